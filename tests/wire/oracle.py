"""What h11 makes of the same bytes."""

from __future__ import annotations

from dataclasses import dataclass

import h11

LIMIT = 1 << 20  # h11's own limit is not what is compared


@dataclass(slots=True)
class Read:
    """What h11 read of one message: ``head`` None and ``error`` where it refused, ``ended`` where the message did."""

    head: h11.Request | h11.InformationalResponse | h11.Response | None
    body: bytes
    trailers: list[tuple[bytes, bytes]]
    ended: bool
    rest: bytes
    error: str
    closes: bool


def server_reads(data: bytes) -> Read:
    """A request."""
    return _read(h11.Connection(h11.SERVER, max_incomplete_event_size=LIMIT), data, h11.CLIENT, fin=False)


def client_reads(data: bytes, method: bytes = b"GET", *, fin: bool = False) -> Read:
    """The answer to a request that offered an upgrade; ``fin``: then the peer closes."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=LIMIT)
    offered = [(b"Host", b"app"), (b"Connection", b"upgrade"), (b"Upgrade", b"websocket")]
    connection.send(h11.Request(method=method, target=b"/", headers=offered))
    connection.send(h11.EndOfMessage())
    return _read(connection, data, h11.SERVER, fin=fin)


def _read(connection: h11.Connection, data: bytes, peer: type[h11.CLIENT] | type[h11.SERVER], *, fin: bool) -> Read:
    found = Read(None, b"", [], ended=False, rest=b"", error="", closes=False)
    try:
        if data:
            connection.receive_data(data)
        if fin:
            connection.receive_data(b"")
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA or event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                break
            if isinstance(event, h11.Request | h11.InformationalResponse | h11.Response):
                found.head = event
                if isinstance(event, h11.InformationalResponse):
                    break
            elif isinstance(event, h11.Data):
                found.body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                found.trailers = event.headers.raw_items()
                found.ended = True
                break
    except h11.RemoteProtocolError as refused:
        found.error = str(refused)
    found.rest = connection.trailing_data[0]
    found.closes = connection.states[peer] is h11.MUST_CLOSE
    return found
