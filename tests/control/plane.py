"""A control plane to test against, and a client that says exactly what it is told to."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h11
import msgspec
import trio

from certs import jointoken
from certs.keys import PrivateKey, new_key
from certs.request import new_request
from certs.spiffe import SpiffeId, workload
from certs.xfcc import element
from control.app import ControlPlane
from control.settings import Settings, examine

BILLING = workload("cluster.local", "shop", "billing")
ORDERS = workload("cluster.local", "shop", "orders")
PLAIN = "plain"
SOCKET = "socket"


class Clock:
    """The time, which a test can set forward, or stop."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self._stopped = 0.0

    def __call__(self) -> float:
        return (self._stopped or time.time()) + self.ahead

    def stop(self) -> None:
        """From now on it is always now: so nothing depends on how fast this machine is."""
        self._stopped = time.time()


@dataclass
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def told(self) -> bytes:
        """The body but for the request's id, which is another each time, and is that of the header."""
        return self.body.replace(self.headers["x-request-id"].encode(), b"ID")


@dataclass
class Plane:
    """A control plane that serves."""

    control: ControlPlane
    directory: Path
    socket: Path
    clock: Clock
    seen: list[bytes] = field(default_factory=list)  # every byte that it has answered

    @property
    def operator(self) -> str:
        return (self.directory / "operator-token").read_text().strip()

    async def ask(
        self,
        method: str,
        path: str,
        token: str = "",
        body: object = None,
        *,
        door: str = PLAIN,
        peer: SpiffeId | None = None,
        fingerprint: str = "00" * 32,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One call. ``peer``: what our own inbound would say of a client with that identity."""
        fields = [("host", "control"), ("connection", "close")]
        if token:
            fields.append(("authorization", f"Bearer {token}"))
        if peer is not None:
            fields.append(("x-forwarded-client-cert", element(self.control.control_id, fingerprint, "", peer)))
        fields += list((headers or {}).items())
        data = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
        if data:
            fields.append(("content-length", str(len(data))))
        async with await self.connect(door) as stream:
            reply = await exchange(stream, method, path, fields, data)
        self.seen.append(repr(reply).encode())
        return reply

    async def connect(self, door: str = PLAIN) -> trio.abc.Stream:
        if door == SOCKET:
            return await trio.open_unix_socket(self.socket)
        address = self.control.listening[0]
        return await trio.open_tcp_stream(address.host, address.port)

    async def token(self, identity: SpiffeId = BILLING, **more: object) -> str:
        """A join token for a workload."""
        namespace, account = identity.workload() or ("", "")
        wanted = {"role": "workload", "namespace": namespace, "serviceAccount": account, **more}
        reply = await self.ask("POST", "/v1/tokens", self.operator, wanted)
        assert reply.status == 201, reply
        self.seen.pop()  # the one answer in which a secret belongs
        return str(reply.json["token"])

    def audit(self) -> list[dict[str, Any]]:
        path = self.directory.parent / "audit.jsonl"
        return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]


def csr(identity: SpiffeId = BILLING, key: PrivateKey | None = None) -> dict[str, str]:
    """A body for /v1/certificates."""
    return {"csr": new_request(key or new_key(), identity)}


def with_another_secret(token: str) -> str:
    """A token that differs in its secret alone."""
    shown = jointoken.parse(token)
    return str(replace(shown, secret=bytes(byte ^ 1 for byte in shown.secret)))


async def exchange(
    stream: trio.abc.Stream, method: str, path: str, fields: list[tuple[str, str]], data: bytes = b""
) -> Reply:
    """One request and its answer on a connection."""
    connection = h11.Connection(h11.CLIENT)
    await stream.send_all(connection.send(h11.Request(method=method, target=path, headers=fields)) or b"")
    if data:
        await stream.send_all(connection.send(h11.Data(data=data)) or b"")
    await stream.send_all(connection.send(h11.EndOfMessage()) or b"")
    status, headers, body = 0, {}, b""
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(bytes(await stream.receive_some()))
        elif isinstance(event, h11.Response):
            status = event.status_code
            headers = {name.decode(): value.decode() for name, value in event.headers}
        elif isinstance(event, h11.Data):
            body += event.data
        else:
            assert isinstance(event, h11.EndOfMessage), event
            return Reply(status, headers, body)


def settings(path: Path, **told: object) -> Settings:
    """As from the command line, but on a free port, with everything below ``path``; ``told`` are values as parsed."""
    flags = {"listen": "127.0.0.1:0", "ca_dir": str(path / "ca"), "audit_log": str(path / "audit.jsonl")}
    found, problems = examine(flags, {})
    assert found is not None, problems
    return msgspec.structs.replace(found, **told)


def _make(directory: Path) -> None:
    """A directory for this user alone."""
    directory.mkdir(mode=0o700, exist_ok=True)


@asynccontextmanager
async def running(path: Path, **told: object) -> AsyncIterator[Plane]:
    """A control plane that serves while this lasts, with its files below ``path``, which may have been used before."""
    told_all = settings(path, **told)
    directory = Path(told_all.ca_dir)
    _make(directory)
    private = path / "private"
    _make(private)
    clock = Clock()
    control = ControlPlane(told_all, directory, clock)
    await control.open(private / "api")
    async with trio.open_nursery() as nursery:
        await nursery.start(control.serve)
        try:
            yield Plane(control, directory, private / "api", clock)
        finally:
            control.closing.set()
            nursery.cancel_scope.deadline = trio.current_time() + 10
