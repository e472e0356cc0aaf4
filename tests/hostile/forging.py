"""Attempts to have an app see an ``x-forwarded-client-cert`` that the caller has made up, and where they are made.

``ATTEMPTS`` are first bytes that might lead a request past HTTP's rules, each with a request of its own path behind
them; ``WAYS`` how a connection is secured. ``attempt_all`` makes each attempt on a connection of its own.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from h2.config import H2Configuration
from h2.connection import H2Connection

from tests.support.secure import client_context

FORGED: Final = "By=spiffe://forged;Hash=00;URI=spiffe://cluster.local/ns/default/sa/forged"
AT_ONCE: Final = 32
QUIET: Final = 0.3  # seconds without a byte after which nothing more is expected
PATIENCE: Final = 10.0

WAYS: Final[dict[str, tuple[str, ...] | None]] = {
    "istio-http/1.1": ("istio-http/1.1",),
    "istio": ("istio",),
    "http/1.1": ("http/1.1",),
    "sidecar-tcp": ("sidecar-tcp",),
    "no ALPN": (),
    "plaintext": None,
}

Connect = Callable[[int], socket.socket]


def request(path: str) -> bytes:
    """A good request that names a caller of its own making."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: app\r\nX-Forwarded-Client-Cert: {FORGED}\r\n"
        f"x_forwarded_client_cert: {FORGED}\r\nConnection: close\r\n\r\n"
    ).encode()


def _after(first: bytes) -> Callable[[str], list[bytes]]:
    return lambda path: [first + request(path)]


def _in_two(first: bytes) -> Callable[[str], list[bytes]]:
    return lambda path: [first, request(path)]


def _with_line(line: bytes) -> Callable[[str], list[bytes]]:
    """The request with another line, in which PATH stands for its path."""
    return lambda path: [line.replace(b"PATH", path.encode()) + request(path).partition(b"\r\n")[2]]


def _http2(path: str) -> bytes:
    connection = H2Connection(H2Configuration(client_side=True))
    connection.initiate_connection()
    fields = [
        (":method", "GET"), (":scheme", "http"), (":authority", "app"), (":path", path),
        ("x-forwarded-client-cert", FORGED),
    ]  # fmt: skip
    connection.send_headers(1, fields, end_stream=True)
    return connection.data_to_send()


_HEAD: Final = b"Host: app\r\n\r\n"
ATTEMPTS: Final[dict[str, Callable[[str], list[bytes]]]] = {
    "http": _after(b""),
    "crlfs": _after(b"\r\n\r\n"),
    "many-crlfs": _after(b"\r\n" * 700),
    "preface": lambda path: [_http2(path)],
    "preface-after-silence": lambda path: [b"", _http2(path)],
    "preface-in-two": lambda path: [_http2(path)[:10], _http2(path)[10:]],
    **{f"method-{size}": _after(b"A" * size + b" / HTTP/1.1\r\n" + _HEAD) for size in (1023, 1024, 1100, 16_000)},
    **{f"method-{size}-in-two": _in_two(b"A" * size + b" / HTTP/1.1\r\n" + _HEAD) for size in (1023, 1024, 1100)},
    **{f"line-{size}": _after(b"A" * size + b"\r\n") for size in (1024, 1100)},
    **{f"target-{size}": _after(b"FOO " + b"x" * size + b" HTTP/1.1\r\n" + _HEAD) for size in (1_000, 20_000)},
    **{f"path-{size}": _after(b"FOO /" + b"x" * size + b" HTTP/1.1\r\n" + _HEAD) for size in (1_000, 20_000)},
    "target-without-version": _after(b"FOO " + b"x" * 1_000 + b"\r\n"),
    **{
        f"blank-{blank[0]:02x}": _with_line(b"GET" + blank + b"PATH" + blank + b"HTTP/1.1\r\n")
        for blank in (b"\x0b", b"\x0c", b"\x1c", b"\x1f", b"\x85", b"\xa0")
    },
    "blank-first": _with_line(b"\x1c\xa0GET PATH HTTP/1.1\r\n"),
    "control-in-the-target": _with_line(b"GET PATH\x01 HTTP/1.1\r\n"),
    "control-first-in-the-target": _with_line(b"GET \x01PATH HTTP/1.1\r\n"),
    "control-in-an-unknown-methods-target": _after(b"FROB \x01 HTTP/1.1\r\n" + _HEAD),
    "blanks-up-to-the-window": _after(b" " * 1022),
    "http-0.9": _after(b"GET /\r\n"),
    "redis": _after(b"GET counter\r\n"),
    "proxy-v1": _after(b"PROXY TCP4 10.0.0.1 10.0.0.2 1000 80\r\n"),
    "proxy-v2": _after(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes(12)),
}


@dataclass(frozen=True, slots=True)
class Papers:
    """A member's certificate and key, and the roots that it trusts."""

    key: Path
    chain: Path
    roots: Path


def attempt_all(ports: Mapping[str, int], connect: Connect, papers: Papers, sni: Mapping[str, str]) -> None:
    """Make every attempt, in every way, at each of these ports, by name; a request's path is ``/PORT/WAY/ATTEMPT``.

    ``sni`` is the server name for each of the ports. Outcomes are for the app to tell.
    """
    contexts = {way: client_context(papers.key, papers.chain, papers.roots, alpn or ()) for way, alpn in WAYS.items()}

    def one(name: str, way: str, attempt: str) -> None:
        pieces = ATTEMPTS[attempt](path_of(name, way, attempt))
        try:
            sock = connect(ports[name])
        except OSError:
            return
        with sock:
            try:
                sock.settimeout(PATIENCE)
                if WAYS[way] is None:
                    _talk(sock, pieces)
                else:
                    with contexts[way].wrap_socket(sock, server_hostname=sni[name]) as secured:
                        _talk(secured, pieces)
            except OSError:
                pass  # refused: what reached the app is looked at, and not how it ended

    with ThreadPoolExecutor(AT_ONCE) as pool:
        todo = [(name, way, attempt) for name in ports for way in WAYS for attempt in ATTEMPTS]
        list(pool.map(lambda each: one(*each), todo))


def path_of(name: str, way: str, attempt: str) -> str:
    return f"/{name}/{way.replace('/', '-').replace(' ', '-')}/{attempt}"


def _talk(sock: socket.socket, pieces: list[bytes]) -> None:
    for number, piece in enumerate(pieces):
        if number:
            time.sleep(0.1)  # past the silence after which the app is dialed
        sock.sendall(piece)
    sock.settimeout(QUIET)
    try:
        while sock.recv(65536):
            pass
    except TimeoutError:
        pass
