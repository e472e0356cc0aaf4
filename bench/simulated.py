"""Simulated proxies: each waits for its snapshots as a sidecar does, and notes what arrived when.

Used by `registry`. A proxy has one connection, a token of an identity of its own, and no data plane: it decodes what
comes, tells that it took it, and asks again. Thousands fit into one process, which is what they are for.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Final

import msgspec
import trio

from sidecar.addresses import Address
from sidecar.resources.proxy_config import ProxyConfig

WAIT_SECONDS: Final = 30
_json = msgspec.json


class ControlRefused(Exception):
    """The control plane answered with another status than one that is expected; the text has it."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A status and a body."""

    status: int
    body: bytes


class Line:
    """A connection that is kept, and makes one call after the other; opened by the first."""

    def __init__(self, address: Address, token: str) -> None:
        self._address = address
        self._token = token
        self._stream: trio.SocketStream | None = None
        self._held = bytearray()

    async def ask(self, method: str, path: str, body: object = None) -> Reply:
        """One call. Who asks too often waits as long as it is told, and asks again."""
        data = b"" if body is None else _json.encode(body)
        while True:
            status, headers, content = await self._exchange(method, path, data)
            if status not in (429, 503):
                return Reply(status, content)
            await trio.sleep(float(headers.get(b"retry-after", b"1")))

    async def change(self, method: str, path: str, body: object) -> bytes:
        """One call that must be granted."""
        reply = await self.ask(method, path, body)
        if reply.status >= 300:
            raise ControlRefused(f"{method} {path}: {reply.status} {reply.body[:400].decode(errors='replace')}")
        return reply.body

    async def aclose(self) -> None:
        """Ends the connection."""
        if self._stream is not None:
            await self._stream.aclose()

    async def _exchange(self, method: str, path: str, data: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
        if self._stream is None:
            self._stream = await trio.open_tcp_stream(self._address.host, self._address.port)
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: control\r\nauthorization: Bearer {self._token}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
        )
        await self._stream.send_all(head.encode() + data)
        while (end := self._held.find(b"\r\n\r\n")) < 0:
            await self._receive()
        first, *rest = bytes(self._held[:end]).split(b"\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(b":") for line in rest)}
        del self._held[: end + 4]
        status = int(first.split(b" ")[1])
        length = 0 if status in (204, 304) else int(headers[b"content-length"])
        while len(self._held) < length:
            await self._receive()
        content = bytes(self._held[:length])
        del self._held[:length]
        if headers.get(b"connection", b"").lower() == b"close":
            await self._stream.aclose()
            self._stream = None
        return status, headers, content

    async def _receive(self) -> None:
        assert self._stream is not None
        data = await self._stream.receive_some(256 * 1024)
        if not data:
            raise ControlRefused("the control plane closed a connection in the middle of an answer")
        self._held += data


@dataclass(slots=True)
class SimulatedProxy:
    """One of them. ``arrived``: when each change came (on the monotonic clock), by the port that it set; ``woken``: how
    many snapshots came; ``fewest`` and ``most``: services in one of them; ``ready``: the first is here."""

    line: Line
    instance: str
    arrived: dict[int, float] = field(default_factory=dict)
    woken: int = 0
    fewest: int = 1 << 30
    most: int = 0
    received: int = 0
    ready: trio.Event = field(default_factory=trio.Event)

    async def run(self) -> None:
        """Until it is cancelled."""
        version = ""
        while True:
            query = f"instance={self.instance}&schema=1.0&wait={WAIT_SECONDS}s" + (
                f"&version={version}" if version else ""
            )
            reply = await self.line.ask("GET", f"/v1/snapshot?{query}")
            if reply.status == 200:
                version = self._take(reply.body)
                status = {"version": version, "accepted": True, "held": version, "software": "simulated"}
                await self.line.change("POST", f"/v1/snapshot/status?instance={self.instance}", status)
                self.ready.set()
            elif reply.status != 304:
                raise ControlRefused(f"snapshot: {reply.status} {reply.body[:400].decode(errors='replace')}")

    def _take(self, body: bytes) -> str:
        now = time.monotonic()
        mesh = _json.decode(body, type=ProxyConfig)
        self.woken += 1
        self.received += len(body)
        self.fewest, self.most = min(self.fewest, len(mesh.services)), max(self.most, len(mesh.services))
        for service in mesh.services:
            for endpoint in service.endpoints:
                if endpoint.port is not None:
                    self.arrived.setdefault(endpoint.port, now)
        return mesh.version
