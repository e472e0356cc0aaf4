"""Five failures, staged for real: ``python examples/failures.py STAGE`` for who wants to learn what each looks like.

It starts an app that misbehaves and a sidecar in front of it on the usual ports, plays the callers, prints what those
saw, and stays until Ctrl-C, so that ``http://127.0.0.1:15000`` can be asked why. docs/troubleshooting.md is what
somebody found out who did so.
"""

from __future__ import annotations

import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from types import TracebackType

Answer = Callable[[socket.socket], None]
Seen = list[str]

PATIENCE = 30.0  # seconds; nothing here takes as long


@dataclass(frozen=True, slots=True)
class Stage:
    """``answer`` is what the app does with a request once its head is there, None where there is no app; ``play`` is
    the callers, given the inbound port: it returns what they saw."""

    what: str
    flags: tuple[str, ...]
    answer: Answer | None
    play: Callable[[int], Seen]


class App:
    """Listens on 127.0.0.1, and does with each request as it was told; ``port`` 0 takes any."""

    def __init__(self, answer: Answer, port: int = 0) -> None:
        self._answer = answer
        self._ended = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> App:
        self._thread.start()
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, suppress(OSError):
            sock.settimeout(PATIENCE)
            while read_head(sock):
                self._answer(sock)


def read_head(sock: socket.socket) -> bytes:
    """Up to the empty line; nothing at the end."""
    head = b""
    while b"\r\n\r\n" not in head:
        data = sock.recv(65536)
        if not data:
            return b""
        head += data
    return head


# -- what the app does -----------------------------------------------------------------------------------------------


def hang(sock: socket.socket) -> None:
    """Takes the request, and never answers: waits until the other side has had enough."""
    sock.recv(1)


def break_off(sock: socket.socket) -> None:
    """Begins its answer and resets the connection, as a process does that crashes."""
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nthe first of many")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def reset(sock: socket.socket) -> None:
    """Resets the connection before it says a word."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def work(sock: socket.socket) -> None:
    """Takes two seconds for an answer."""
    threading.Event().wait(2.0)
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n")


# -- what the callers do ---------------------------------------------------------------------------------------------


def send(port: int, request: bytes, patience: float = PATIENCE) -> str:
    """One connection, one request; the first line of the answer, or what came instead."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as sock:
        sock.sendall(request)
        sock.settimeout(patience)
        answer = b""
        try:
            while data := sock.recv(65536):
                answer += data
        except TimeoutError:
            return f"gave up after {patience:g} s"
        except ConnectionError:
            answer += b"\r\n(connection reset)"
    lines = answer.split(b"\r\n")
    return lines[0].decode() + (" (connection reset)" if lines[-1] == b"(connection reset)" and len(lines) > 1 else "")


def get(path: str, *fields: str, method: str = "GET", body: str = "") -> bytes:
    """A request as text; it asks for the connection to end."""
    lines = [f"{method} {path} HTTP/1.1", "Host: shop.example", *fields, "Connection: close", "", body]
    return "\r\n".join(lines).encode()


def one_by_one(*requests: bytes, patience: float = PATIENCE) -> Callable[[int], Seen]:
    return lambda port: [send(port, request, patience) for request in requests]


def impatient(port: int) -> Seen:
    """Two who wait, and one who leaves after 300 ms."""
    return [send(port, get("/report")), send(port, get("/report")), send(port, get("/report"), 0.3)]


def crowd(port: int) -> Seen:
    """Twenty at once."""
    with ThreadPoolExecutor(20) as pool:
        return sorted(pool.map(lambda number: send(port, get(f"/search/{number}")), range(20)))


SMUGGLED = "0\r\n\r\nGET /admin HTTP/1.1\r\nHost: shop.example\r\n\r\n"
TWO_LENGTHS = (f"Content-Length: {len(SMUGGLED)}", "Transfer-Encoding: chunked")

STAGES = {
    "app-down": Stage("nobody listens at --upstream", (), None, one_by_one(*[get("/cart")] * 3)),
    "app-slow": Stage(
        "the app takes requests and does not answer", ("--stream-idle-timeout", "1s"), hang, impatient
    ),
    "app-resets": Stage(
        "the app's process dies while it answers", (), break_off, one_by_one(*[get("/cart")] * 3)
    ),
    "app-resets-early": Stage(
        "the app resets connections before it answers", (), reset,
        one_by_one(get("/cart"), get("/cart", "Content-Length: 2", method="POST", body="{}")),
    ),
    "bad-framing": Stage(
        "a client sends requests whose length is in doubt", (), work,
        one_by_one(
            get("/cart", *TWO_LENGTHS, method="POST", body=SMUGGLED),
            get("/cart", "Content-Length: 2", "Content-Length: 3", method="POST", body="{}"),
            get("/cart", "Transfer-Encoding: chunked", method="POST", body="zz\r\n"),
        ),
    ),
    "overload": Stage(
        "more requests than the app answers", ("--max-app-connections", "2", "--max-waiting", "4"), work, crowd
    ),
}  # fmt: skip


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1] not in STAGES:
        print("usage: python examples/failures.py STAGE; there are:", file=sys.stderr)
        for name, stage in STAGES.items():
            print(f"  {name:17} {stage.what}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    stage = STAGES[sys.argv[1]]
    with App(stage.answer, 8080) if stage.answer else nullcontext():
        command = [sys.executable, "-m", "sidecar", "--upstream", "127.0.0.1:8080", "--access-log", "off", *stage.flags]
        with subprocess.Popen(command, start_new_session=True) as sidecar:
            try:
                subprocess.run([sys.executable, "-m", "sidecar", "wait", "--timeout", "10s"], check=True)
                for seen in stage.play(15006):
                    print(f"a caller saw: {seen}")
                print("Now ask http://127.0.0.1:15000 why. Ctrl-C ends this.", flush=True)
                sidecar.wait()
            except KeyboardInterrupt:
                return 0
            finally:
                sidecar.terminate()
    return 0


if __name__ == "__main__":
    sys.exit(main())
