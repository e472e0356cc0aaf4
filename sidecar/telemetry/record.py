"""One record per request and per opaque connection: what happened, to whom, how long it took.

The proxy fills it while it works and hands it to :class:`Telemetry` once, at the end; the access log and the counters
read it and nothing else. Not frozen, since an exchange writes it step by step; nobody writes to it after ``finish``.
"""

from __future__ import annotations

from typing import Final, Protocol

from sidecar.errors import Reason

SERVER_ERROR: Final = 500  # statuses from here on are failures, whoever made them


class Origin:
    """How a client's connection came to be served as it is; one per connection, shared by its records.

    ``opened`` is on the wall clock; ``detected`` is what it speaks and how that was found out, in words; ``after`` how
    many seconds that took; ``original`` where a captured connection wanted to go, empty for any other.
    """

    __slots__ = ("after", "detected", "opened", "original")

    def __init__(self, opened: float, detected: str, after: float, original: str = "") -> None:
        self.opened = opened
        self.detected = detected
        self.after = after
        self.original = original


class Try:
    """One attempt that failed and was followed by another: where, on a reused connection or not, the reason, and the
    seconds it took."""

    __slots__ = ("detail", "reason", "reused", "seconds", "upstream")

    def __init__(self, upstream: str, reused: bool, reason: Reason, detail: str, seconds: float) -> None:
        self.upstream = upstream
        self.reused = reused
        self.reason = reason
        self.detail = detail
        self.seconds = seconds


class Record:
    """The facts of one exchange. Bytes are as the peer sent them (escape before printing); times in seconds.

    ``start`` is on the wall clock, ``began`` and ``first_byte`` on the monotonic one (``first_byte``: when the head of
    the upstream's answer was there, 0.0 if it never was). ``status`` is 0 on an opaque connection and where no answer
    could be given. ``bytes_received`` and ``bytes_sent`` are of bodies, or of all that an opaque connection carried.
    """

    __slots__ = (
        "attempts",
        "authority",
        "began",
        "bytes_received",
        "bytes_sent",
        "client",
        "detail",
        "direction",
        "duration",
        "first_byte",
        "forwarded_for",
        "method",
        "origin",
        "path",
        "protocol",
        "reason",
        "request_id",
        "reused",
        "sent_target",
        "sni",
        "start",
        "status",
        "stripped",
        "tries",
        "upstream",
        "user_agent",
    )

    def __init__(self, direction: str, protocol: str, client: str, start: float, began: float) -> None:
        self.direction = direction  # "inbound" or "outbound"
        self.protocol = protocol  # "HTTP/1.1", "HTTP/1.0", "TCP", "TLS", "HTTP/2" (relayed)
        self.client = client
        self.start = start
        self.began = began
        self.first_byte = 0.0
        self.duration = 0.0
        self.method = b""
        self.path = b""
        self.authority = b""
        self.user_agent = b""
        self.forwarded_for = b""
        self.request_id = b""
        self.sni = b""
        self.status = 0
        self.reason: Reason | None = None
        self.detail = ""
        self.bytes_received = 0
        self.bytes_sent = 0
        self.upstream = ""
        self.attempts = 0
        self.reused = False
        self.origin: Origin | None = None
        self.sent_target = b""  # as it came; ``path`` is as it went on
        self.stripped: tuple[str, ...] = ()  # names of fields that the client may not send
        self.tries: tuple[Try, ...] = ()  # those before the last one

    @property
    def failed(self) -> bool:
        """Whether something went wrong: for a reason of ours, or in the app, which answered 5xx."""
        return self.reason is not None or self.status >= SERVER_ERROR


class Sink(Protocol):
    """Whoever takes finished records: called once per record, on the event loop, and must not block."""

    def finish(self, record: Record) -> None: ...
