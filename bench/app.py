"""The apps behind the proxies: nginx for all that speaks HTTP, a thread that greets for server-first.

Called by the command line (nginx, once per run) and by the scenario `server-first`.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.processes import Process, fill, held_port, listens, which

PAGE_BYTES = 8 * 1024
DOWNLOAD_BYTES = 10 * 1024 * 1024
GREETING = b"220 app.example ready\r\n"


@contextlib.contextmanager
def nginx(run: Path, core: int) -> Iterator[int]:
    """Run nginx with `configs/nginx.conf`; yields its port on 127.0.0.1. Raises BenchError where it does not start."""
    with held_port() as port, start_nginx(run, core, f"127.0.0.1:{port}") as process:
        process.wait_until(lambda: listens(port), 10.0)
        yield port


def start_nginx(run: Path, core: int, listen: str, inside: Sequence[str] = ()) -> Process:
    """nginx, started but not yet waited for; ``inside`` is a command that runs another one in a namespace."""
    files = run / "www"
    files.mkdir()
    (files / "page.html").write_bytes(
        b"A page of the app, sixty-four bytes to a line, sent in chunks.\r\n" * (PAGE_BYTES // 64)
    )
    (files / "download").write_bytes(bytes(range(256)) * (DOWNLOAD_BYTES // 256))
    config = fill("nginx.conf", run / "nginx.conf", RUN=run, PORT=listen)
    argv = [*inside, which("nginx", "nginx"), "-p", str(run), "-e", "stderr", "-c", str(config)]
    return Process(argv, core, run, name="nginx")


@contextlib.contextmanager
def greeter() -> Iterator[int]:
    """An app that speaks first: sends GREETING to whoever connects, then waits for the end; yields its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        threading.Thread(target=_greet, args=(listener,), daemon=True).start()
        try:
            yield listener.getsockname()[1]
        finally:
            # Closing alone would leave accept() waiting.
            listener.shutdown(socket.SHUT_RDWR)


def _greet(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.settimeout(5.0)
            with contextlib.suppress(OSError):
                connection.sendall(GREETING)
                connection.recv(1)
