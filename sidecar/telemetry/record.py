"""One record per request and per opaque connection: what happened, to whom, how long it took.

The proxy fills it while it works and hands it to :class:`Telemetry` once, at the end; the access log and the counters
read it and nothing else. Not frozen, since an exchange writes it step by step; nobody writes to it after ``finish``.
"""

from __future__ import annotations

from typing import Protocol

from sidecar.errors import Reason


class Record:
    """The facts of one exchange. Bytes are as the peer sent them (escape before printing); times in seconds.

    ``start`` is on the wall clock, ``began`` and ``first_byte`` on the monotonic one (``first_byte``: when the head of
    the upstream's answer was there, 0.0 if it never was). ``status`` is 0 on an opaque connection and where no answer
    could be given. ``bytes_received`` and ``bytes_sent`` are of bodies, or of all that an opaque connection carried.
    """

    # Defaults are the class's, so that a record costs only what is set in it.
    first_byte = 0.0
    duration = 0.0
    method = b""
    path = b""
    authority = b""
    user_agent = b""
    forwarded_for = b""
    request_id = b""
    sni = b""
    status = 0
    reason: Reason | None = None
    detail = ""
    bytes_received = 0
    bytes_sent = 0
    upstream = ""
    attempts = 0
    reused = False

    def __init__(self, direction: str, protocol: str, client: str, start: float, began: float) -> None:
        self.direction = direction  # "inbound" or "outbound"
        self.protocol = protocol  # "HTTP/1.1", "HTTP/1.0", "TCP", "TLS", "HTTP/2" (relayed)
        self.client = client
        self.start = start
        self.began = began


class Sink(Protocol):
    """Whoever takes finished records: called once per record, on the event loop, and must not block."""

    def finish(self, record: Record) -> None: ...
