"""What a hostile case is: an id, the bytes, and the outcomes that are right, as data.

The ids are those of the project's list of hostile inputs: REQ (request framing), CHK (chunks), LIM (limits), UPS
(hostile upstreams), HDR (header trust), CTL (operation), and H11 for the inputs that h11 takes and we must not.
:func:`head` and :func:`post` build bytes; nothing here talks to anybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

AFTER = b"GET /smuggled HTTP/1.1\r\nHost: app\r\n\r\n"
"""Rides behind a request that must be refused. It must never be seen as a request."""


@dataclass(frozen=True, slots=True)
class Told:
    """One request that the app must see. ``host`` None: any valid one; ``fields`` must be there, ``absent`` not."""

    method: bytes = b"GET"
    target: bytes = b"/"
    body: bytes = b""
    host: bytes | None = None
    fields: tuple[tuple[bytes, bytes], ...] = ()
    absent: tuple[bytes, ...] = ()
    trailers: tuple[tuple[bytes, bytes], ...] | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """An error reply and a close. ``after`` well-formed requests came before it and were served; ``partial``: the app
    may have seen the beginning of this one, and then its connection's end, never a whole request; ``silent``: a close
    without a reply is as good."""

    statuses: frozenset[int]
    after: int = 0
    partial: bool = False
    silent: bool = False


@dataclass(frozen=True, slots=True)
class Forwarded:
    """Exactly these requests, in the canonical form, each answered; what follows on the connection is unharmed."""

    told: tuple[Told, ...]


@dataclass(frozen=True, slots=True)
class Opaque:
    """Not HTTP to us: relayed byte by byte to an app that makes of it what it likes."""


Expect = Refused | Forwarded | Opaque


@dataclass(frozen=True, slots=True)
class Case:
    """``send`` may name @UPSTREAM@, @INBOUND@ and @OUTBOUND@ (HOST:PORT each). ``expect`` is a set of outcomes, any of
    which is right, but the same one however the bytes are split; ``auto`` is where detection makes it another set.
    ``finish``: FIN after the last byte. ``rig`` names the flags of the process (see ``rig.RIGS``)."""

    id: str
    name: str
    send: bytes
    expect: tuple[Expect, ...]
    auto: tuple[Expect, ...] | None = None
    finish: bool = False
    port: str = "inbound"
    rig: str = "main"
    slow: bool = False  # too long to be sent byte by byte

    def expected(self, protocol: str) -> tuple[Expect, ...]:
        return self.auto if protocol == "auto" and self.auto is not None else self.expect

    def __str__(self) -> str:
        return f"{self.id}-{self.name}"


def refused(*statuses: int, after: int = 0, partial: bool = False, silent: bool = False) -> Refused:
    """400 unless told otherwise."""
    return Refused(frozenset(statuses or (400,)), after, partial, silent)


def forwarded(*told: Told) -> Forwarded:
    return Forwarded(told or (Told(),))


def head(*lines: bytes, body: bytes = b"") -> bytes:
    """These lines with CRLF, an empty line, and a body as it is."""
    return b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


def get(*lines: bytes, target: bytes = b"/", body: bytes = b"") -> bytes:
    """GET with a Host and these field lines."""
    return head(b"GET " + target + b" HTTP/1.1", b"Host: app", *lines, body=body)


def post(*lines: bytes, body: bytes = b"", target: bytes = b"/") -> bytes:
    """POST with a Host and these field lines, which say how long the body is, or fail to."""
    return head(b"POST " + target + b" HTTP/1.1", b"Host: app", *lines, body=body)


def chunked(body: bytes, *lines: bytes) -> bytes:
    """POST whose body is these bytes of the chunked coding."""
    return post(b"Transfer-Encoding: chunked", *lines, body=body)


def each(id: str, stem: str, sends: Sequence[tuple[str, bytes]], *expect: Expect) -> list[Case]:
    """One case per pair of name and bytes, all with one expectation."""
    return [Case(id, f"{stem}{name}", send, expect) for name, send in sends]
