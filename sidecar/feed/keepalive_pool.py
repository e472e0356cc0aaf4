"""Lines to the control plane: connections on which one request goes after the other, and those of them that rest.

Who calls it: ``feed.control_client``. h11 frames; what may come in an answer is bounded here (head, body), its time is
for whoever waits. A line is given back only when both sides have said all that they had to; any oddity ends it: bytes
that nobody asked for, an end, a word that it is the last, a cut by ``identity``.
"""

from __future__ import annotations

from typing import Final

import h11
import msgspec
from OpenSSL import SSL

from sidecar.net.connection import Connection, ConnectionClosed

HEAD_BYTES: Final = 16 * 1024
REST_SECONDS: Final = 30.0  # the control plane ends a connection on which nothing comes for 75 s


class Reply(msgspec.Struct, frozen=True):
    """What came, whatever its status. ``fields`` have lower-case names; of a name that came twice the last."""

    status: int
    fields: dict[str, str]
    body: bytes


class TooLarge(Exception):
    """An answer beyond what was asked for."""


class Broken(Exception):
    """It ended before it answered."""


class KeepAliveConnection:
    """One connection. ``context`` is what it was made with, None without TLS; ``used``: it has answered before;
    ``heard``: something of the answer that is awaited has come."""

    __slots__ = ("_machine", "connection", "context", "heard", "rests_since", "used")

    def __init__(self, connection: Connection, context: SSL.Context | None) -> None:
        self.connection = connection
        self.context = context
        self.used = False
        self.heard = False
        self.rests_since = 0.0
        self._machine = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES)

    async def exchange(self, request: h11.Request, body: bytes, most: int) -> Reply:
        """The answer, with at most ``most`` bytes. Raises TooLarge, Broken, ConnectionClosed, ProxyError,
        h11.RemoteProtocolError; then, or when it is cancelled, the line is only good to be closed."""
        self.heard = False
        machine = self._machine
        data = machine.send(request) or b""
        if body:
            data += machine.send(h11.Data(data=body)) or b""
        await self.connection.send_all(data + (machine.send(h11.EndOfMessage()) or b""))
        response, pieces = await self._receive(most)
        self.used = True
        told = {bytes(name).decode("ascii"): bytes(value).decode("latin-1") for name, value in response.headers}
        return Reply(response.status_code, told, b"".join(pieces))

    async def _receive(self, most: int) -> tuple[h11.Response, list[bytes]]:
        response: h11.Response | None = None
        pieces: list[bytes] = []
        length = 0
        while True:
            event = self._machine.next_event()
            if event is h11.NEED_DATA:
                data = await self.connection.recv()
                self.heard = self.heard or bool(data)
                if not data and response is None:
                    raise Broken
                self._machine.receive_data(data)
            elif isinstance(event, h11.Response):
                response = event
            elif isinstance(event, h11.Data):
                pieces.append(event.data)
                length += len(event.data)
                if length > most:
                    raise TooLarge
            elif isinstance(event, h11.EndOfMessage):
                assert response is not None  # h11: no end of a message before its head
                return response, pieces
            elif not isinstance(event, h11.InformationalResponse):
                raise Broken

    def rest(self, now: float) -> bool:
        """Whether it may be used again; then it is ready for the next request."""
        if self._machine.our_state is not h11.DONE or self._machine.their_state is not h11.DONE:
            return False
        if self._machine.trailing_data[0]:
            return False
        self._machine.start_next_cycle()
        self.rests_since = now
        return True

    def is_good(self, now: float) -> bool:
        """Whether a line that rests may be used still."""
        if self.connection.closed or self.connection.overdue is not None or now - self.rests_since > REST_SECONDS:
            return False
        try:
            came = self.connection.recv_nowait() is not None  # an end, or bytes that were not requested
            return not came and not self.connection.holds_unread()
        except ConnectionClosed:
            return False


class KeepAlivePool:
    """Those that rest, ``most`` at once: what is beyond is closed."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._resting: list[KeepAliveConnection] = []

    @property
    def kept(self) -> bool:
        """Whether any would be."""
        return self._most > 0

    def take(self, context: SSL.Context | None, now: float) -> KeepAliveConnection | None:
        """One that was made with this context, the last that was used; those that are no good any more are closed, and
        so are those of another context: the certificate has changed."""
        good = []
        for line in self._resting:
            if line.context is context and line.is_good(now):
                good.append(line)
            else:
                line.connection.close()
        self._resting = good
        return good.pop() if good else None

    def give(self, line: KeepAliveConnection, now: float) -> None:
        """After an exchange that went well."""
        if len(self._resting) < self._most and line.rest(now):
            self._resting.append(line)
        else:
            line.connection.close()

    def close(self) -> None:
        """All of them."""
        for line in self._resting:
            line.connection.close()
        self._resting.clear()
