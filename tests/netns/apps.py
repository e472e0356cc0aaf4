"""Apps that a test plays itself, in threads, on a listener of a pod."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def serving(listener: socket.socket, serve: Callable[[socket.socket], object]) -> Iterator[list[BaseException]]:
    """Accept, and serve each connection in a thread; ends the listener. Yields what the threads raised, if they did."""
    raised: list[BaseException] = []
    threads: list[threading.Thread] = []

    def guarded(sock: socket.socket) -> None:
        try:
            with sock:
                serve(sock)
        except BaseException as error:
            raised.append(error)

    def accept() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return  # the end of the block
            sock.settimeout(60)
            threads.append(threading.Thread(target=guarded, args=(sock,), daemon=True))
            threads[-1].start()

    acceptor = threading.Thread(target=accept, daemon=True)
    with listener:
        acceptor.start()
        try:
            yield raised
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join(10)
            for thread in threads:
                thread.join(10)


def read_exactly(sock: socket.socket, count: int) -> bytes:
    """That many bytes, or fewer where the connection ends."""
    data = b""
    while len(data) < count and (more := sock.recv(count - len(data))):
        data += more
    return data
