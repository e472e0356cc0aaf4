"""One record per request and per opaque connection: what happened, to whom, how long it took.

The proxy fills it while it works and hands it to :class:`Telemetry` once, at the end; the access log and the counters
read it and nothing else. Not frozen, since an exchange writes it step by step; nobody writes to it after ``finish``.
"""

from __future__ import annotations

from time import monotonic
from typing import Final, Protocol

import msgspec

from sidecar.errors import DELAY_INJECTED, RETRIES_EXHAUSTED, ProxyError, Reason

SERVER_ERROR: Final = 500  # statuses from here on are failures, whoever made them


class ConnectionInfo(msgspec.Struct, array_like=True, gc=False):
    """How a client's connection came to be served as it is; one per connection, shared by its records.

    ``opened`` is on the wall clock; ``detected`` is what it speaks and how that was found out, in words; ``after`` how
    many seconds that took; ``original`` where a captured connection wanted to go, empty for any other; ``principal``
    the SPIFFE id that the client has shown by mutual TLS, empty where it showed none. ``client`` is the address that it
    comes from, ``place`` the address and port at which it reached the app, ``sni`` the server
    name in its handshake with this proxy.
    """

    opened: float
    detected: str
    after: float
    original: str = ""
    principal: str = ""
    client: str = ""
    place: tuple[str, int] = ("", 0)
    sni: bytes = b""


UNKNOWN_CONNECTION: Final = ConnectionInfo(0.0, "", 0.0)


class Attempt(msgspec.Struct, gc=False):
    """One attempt: where, and whether on a reused connection; when it began and ended, on the monotonic clock, and when
    the head of its answer was there (0.0 if it never was). ``status`` is that answer's, 0 for none; ``reason`` why it
    failed, None if it did not."""

    upstream: str
    principal: str
    reused: bool
    began: float
    first_byte: float
    ended: float
    status: int
    reason: Reason | None
    detail: str


class Record(msgspec.Struct, array_like=True, gc=False):
    """The facts of one exchange. Bytes are as the peer sent them (escape before printing); times in seconds.

    ``start`` is on the wall clock, ``began`` and ``first_byte`` on the monotonic one (``first_byte``: when the head of
    the upstream's answer was there, 0.0 if it never was). ``status`` is 0 on an opaque connection and where no answer
    could be given. ``bytes_received`` and ``bytes_sent`` are of bodies, or of all that an opaque connection carried.

    The collector does not look at records, so nothing in one may lead back to it.
    """

    direction: str  # "inbound" or "outbound"
    protocol: str  # "HTTP/1.1", "HTTP/1.0", "TCP", "TLS", "HTTP/2" (relayed)
    client: str
    start: float
    began: float
    duration: float = 0.0
    method: bytes = b""
    status: int = 0
    upstream: str = ""  # up to here as in ``history.Glance``
    origin: ConnectionInfo | None = None
    first_byte: float = 0.0
    path: bytes = b""
    sent_target: bytes = b""  # as it came; ``path`` is as it went on
    authority: bytes = b""
    user_agent: bytes = b""
    forwarded_for: bytes = b""
    request_id: bytes = b""
    sni: bytes = b""
    reason: Reason | None = None
    detail: str = ""
    bytes_received: int = 0
    bytes_sent: int = 0
    cluster: str = ""  # of a service of the mesh, by its name; others are known by where they are
    upstream_principal: str = ""  # who the upstream has shown to be; empty for plaintext
    attempts: int = 0
    reused: bool = False
    stripped: tuple[str, ...] = ()  # names of fields that the client may not send
    tries: tuple[Attempt, ...] = ()  # those before the last one, whose facts are this record's: see ``all_tries``
    rule: str = ""  # of those that the reason stands for, the one that was broken
    permit: str = ""  # the rule that allowed it
    note: str = ""  # what audits and dry runs have to add
    judged: tuple[tuple[bytes, bytes], ...] = ()  # the fields that policies ask for, as they went on
    limits: tuple[tuple[str, str, float, int], ...] = ()  # policy, limit, left after this request, size of the bucket
    tried: float = 0.0  # when the last attempt began, on the monotonic clock
    flagged: bool = False  # there is a flag beside that of the reason
    exhausted: str = ""  # why a retry that the policy wants was not made: "attempts" or "budget" is used up
    delayed: bool = False  # by a fault that was injected
    route: str = ""  # the rule that routed it: NAMESPACE/VIRTUAL-SERVICE/RULE
    subset: str = ""  # of the cluster

    @property
    def flags(self) -> str:
        """The response flags, joined by a comma as Envoy does; ``-`` for none."""
        found = [DELAY_INJECTED] if self.delayed else []
        if self.reason is not None:
            found.append(self.reason.flag)
        if self.exhausted and RETRIES_EXHAUSTED not in found:
            found.append(RETRIES_EXHAUSTED)
        return ",".join(found) or "-"

    @property
    def principal(self) -> str:
        """Who the client has shown to be; empty for an unauthenticated one."""
        return "" if self.origin is None else self.origin.principal

    def blame(self, error: ProxyError) -> None:
        """It ended by this error."""
        self.reason, self.detail, self.rule = error.reason, error.detail, error.rule
        self.note = error.note or self.note

    def exhaust(self, what: str) -> None:
        """No retry follows, since these are used up: "attempts", or the "budget"."""
        self.exhausted, self.flagged = what, True

    def delay(self) -> None:
        """A fault delays the request."""
        self.delayed = self.flagged = True

    def keep_try(self, error: ProxyError | None = None) -> None:
        """The attempt at hand is over, by this error or with an answer, and is followed by another one."""
        reason, detail = (None, "") if error is None else (error.reason, error.detail)
        self.tries += (self._try(monotonic(), reason, detail),)
        self.first_byte, self.status, self.upstream_principal, self.reused = 0.0, 0, "", False

    @property
    def all_tries(self) -> tuple[Attempt, ...]:
        """Every attempt, the last one included; empty if none was made."""
        if len(self.tries) >= self.attempts:  # none, or it ended while it waited for the next one
            return self.tries
        return *self.tries, self._try(self.began + self.duration, self.reason, self.detail)

    def _try(self, ended: float, reason: Reason | None, detail: str) -> Attempt:
        return Attempt(
            self.upstream,
            self.upstream_principal,
            self.reused,
            self.tried,
            self.first_byte,
            ended,
            self.status,
            reason,
            detail,
        )

    @property
    def failed(self) -> bool:
        """Whether something went wrong: for a reason of ours, or in the app, which answered 5xx."""
        return self.reason is not None or self.status >= SERVER_ERROR


class Sink(Protocol):
    """Whoever takes finished records: called once per record, on the event loop, and must not block."""

    def finish(self, record: Record) -> None: ...
