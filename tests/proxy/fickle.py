"""A control plane that tells the truth until a test has it do otherwise, and a feed that asks it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import h11
import msgspec
import trio
from cryptography import x509

from certs import pem
from certs.facts import key_id_of
from certs.issue import Issuer, crl, leaf, new_intermediate, new_root
from certs.jointoken import JoinToken
from certs.keys import PublicKey, new_key, new_serial
from certs.spiffe import SpiffeId, workload
from sidecar.control_url import CONTROL_ID
from sidecar.feed.certificate_renewal import IdentityFeed
from sidecar.feed.retrying_client import RetryingClient
from sidecar.feed.wiring import control_caller, identity_feed
from sidecar.identity import Identity
from sidecar.net.connection import Connection
from sidecar.settings import load

BILLING = workload("cluster.local", "shop", "billing")
ORDERS = workload("cluster.local", "shop", "orders")
DAY = 86_400.0
EPOCH = 1_700_000_000
WITHIN = 10.0  # seconds for anything here


class Clock:
    """The wall clock, which a test can set."""

    ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


def authority(trust_domain: str = "cluster.local") -> tuple[Issuer, Issuer]:
    """A root and what is below it."""
    root = new_root(trust_domain, new_key(), new_serial(), time.time(), 30 * DAY)
    return root, new_intermediate(root, new_key(), new_serial(), time.time(), 20 * DAY)


Reply = tuple[int, bytes] | bytes | None  # status and body; raw bytes; None: silence


class Fickle:
    """``wrong``: what to answer to a call (by path) in place of the truth. ``asked`` are the calls, ``keys`` what was
    asked for certificates for, ``shown`` the tokens."""

    def __init__(self, port_file: Path) -> None:
        self.root, self.issuer = authority()
        self.roots: list[x509.Certificate] = [self.root.certificate]
        self.ttl = DAY
        self.bundle_n = 1
        self.lists_n = 1
        self.epoch = EPOCH
        self.revoked: dict[int, float] = {}
        self.date_ahead = 0.0
        self.wrong: dict[str, Callable[[bytes], Reply]] = {}
        self.asked: list[str] = []
        self.lines = 0  # connections
        self.last_answer = False  # each is the last on its connection, and does not say so
        self.shown: set[str] = set()
        self.keys: list[PublicKey] = []
        self.changed = trio.Event()
        self.mesh: bytes | None = None  # None: there is no call for Snapshots
        self.mesh_version = f"{EPOCH}.1"
        self.etag = ""
        self.told: list[dict[str, object]] = []  # statuses
        self.endpoints: dict[str, dict[str, object]] = {}  # by path: as registered, with "beats"
        self.callers: dict[str, list[str]] = {}  # by path: from which addresses it was registered
        self.translated: set[str] = set()  # addresses that are not seen here as what they are
        self.unknown_service = False
        self.ttl_told = "3s"  # to those who register
        self.peer = ""  # who asks at the moment
        self.token_file = port_file
        self.port = 0

    @property
    def token(self) -> str:
        return str(JoinToken("t1", b"s" * 32, (key_id_of(self.root.certificate),), CONTROL_ID))

    def publish(self) -> None:
        """Wakes long polls."""
        self.changed.set()
        self.changed = trio.Event()

    def certificate(self, csr: bytes, ours: SpiffeId = BILLING, *, key: PublicKey | None = None) -> dict[str, str]:
        request = x509.load_pem_x509_csr(csr)
        public = request.public_key()
        self.keys.append(public)  # type: ignore[arg-type]
        made = leaf(self.issuer, key or public, ours, new_serial(), time.time(), self.ttl)  # type: ignore[arg-type]
        chain = pem.to_pem([made, *self.issuer.intermediates])
        return {"chain": chain, "bundle": pem.to_pem(self.roots), "bundleVersion": f"{self.epoch}.{self.bundle_n}"}

    def bundle(self) -> dict[str, str]:
        version = f"{self.epoch}.{self.bundle_n}"
        return {"trustDomain": "cluster.local", "version": version, "bundle": pem.to_pem(self.roots)}

    def lists(self) -> dict[str, object]:
        now = time.time()
        made = crl(self.issuer, self.revoked, now, self.lists_n, now + DAY)
        chain = pem.to_pem(self.issuer.intermediates)
        return {"version": f"{self.epoch}.{self.lists_n}", "lists": [{"crl": made, "chain": chain}]}

    async def serve(self, stream: trio.SocketStream) -> None:
        try:
            async with stream:
                await self._serve(stream)
        except (trio.BrokenResourceError, h11.RemoteProtocolError):
            return  # the feed has hung up

    async def _serve(self, stream: trio.SocketStream) -> None:
        self.lines += 1
        connection, body = h11.Connection(h11.SERVER), b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some())
            elif isinstance(event, h11.Request):
                request, body = event, b""
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                if not await self._answer(stream, connection, request, body):
                    return
                connection.start_next_cycle()
            else:
                return

    async def _answer(
        self, stream: trio.SocketStream, connection: h11.Connection, request: h11.Request, body: bytes
    ) -> bool:
        """Whether another request may follow."""
        path, _, query = request.target.decode().partition("?")
        self.asked.append(path)
        self.shown |= {value.decode() for name, value in request.headers if name == b"authorization"}
        self.peer = str(stream.socket.getpeername()[0])
        reply = await self._reply(request.method.decode(), path, query, body)
        if reply is None:
            await trio.sleep_forever()
        if isinstance(reply, bytes):
            await stream.send_all(reply)
            return False
        date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + self.date_ahead))
        fields = [("date", date)]
        if reply[0] not in (204, 304):
            fields.append(("content-length", str(len(reply[1]))))
        if self.etag:
            fields.append(("etag", self.etag))
        data = connection.send(h11.Response(status_code=reply[0], headers=fields)) or b""
        if reply[1]:
            data += connection.send(h11.Data(data=reply[1])) or b""
        await stream.send_all(data + (connection.send(h11.EndOfMessage()) or b""))
        return connection.our_state is h11.DONE and not self.last_answer

    def registered(self, path: str, body: bytes) -> tuple[int, bytes]:
        """The answer to a registration, which takes those addresses that a call came from."""
        told = msgspec.json.decode(body)
        if path not in self.endpoints:
            self.callers[path] = []
        self.endpoints[path] = told | {"beats": 0}
        self.callers[path].append(self.peer)
        seen = set(self.callers[path]) - self.translated
        taken = [each for each in told["addresses"] if each in seen] or ["127.0.0.1"]
        refused = [{"address": each, "why": "unproven"} for each in told["addresses"] if each not in seen]
        answer = {"address": taken[0], "addresses": taken, "ttl": self.ttl_told, "refused": refused}
        return 200, msgspec.json.encode(answer)

    def _registry(self, method: str, path: str, body: bytes) -> Reply:
        if self.unknown_service:
            return 404, b"{}"
        if method == "PUT":
            return self.registered(path, body)
        endpoint = path.removesuffix("/heartbeat")
        if endpoint not in self.endpoints:
            return 404, b"{}"
        if method == "DELETE":
            del self.endpoints[endpoint]
        else:
            beats = self.endpoints[endpoint].pop("beats")
            assert isinstance(beats, int)
            self.endpoints[endpoint] |= msgspec.json.decode(body) | {"beats": beats + 1}
        return 204, b""

    async def _reply(self, method: str, path: str, query: str, body: bytes) -> Reply:
        if path in self.wrong:
            return self.wrong[path](body)
        if path == "/v1/certificates":
            return 201, msgspec.json.encode(self.certificate(msgspec.json.decode(body)["csr"].encode()))
        if path.startswith("/v1/services/"):
            return self._registry(method, path, body)
        if path == "/v1/snapshot/status":
            self.told.append(msgspec.json.decode(body))
            return 204, b""
        if path == "/v1/snapshot":
            while self.mesh is None or f"version={self.mesh_version}" in query.split("&"):
                if "wait=0.0s" in query.split("&"):
                    return 304, b""
                await self.changed.wait()
                if path in self.wrong:
                    return self.wrong[path](body)
            return 200, self.mesh
        numbers = {"/v1/bundle": lambda: self.bundle_n, "/v1/crl": lambda: self.lists_n}
        while f"version={self.epoch}.{numbers[path]()}&" in query:
            if "wait=0.0s" in query.split("&"):
                return 304, b""
            await self.changed.wait()
            if path in self.wrong:
                return self.wrong[path](body)
        return 200, msgspec.json.encode(self.bundle() if path == "/v1/bundle" else self.lists())


class Fed:
    """A feed that runs, and what it feeds."""

    def __init__(
        self, plane: Fickle, identity: Identity, feed: IdentityFeed, caller: RetryingClient, clock: Clock
    ) -> None:
        self.plane, self.identity, self.feed, self.caller, self.clock = plane, identity, feed, caller, clock

    @property
    def errors(self) -> set[tuple[str, str]]:
        return set(self.caller.errors)

    async def until(self, condition: Callable[[], object]) -> None:
        """Waits until it holds."""
        with trio.fail_after(WITHIN):
            while not condition():  # noqa: ASYNC110  # the feed has no events for tests
                await trio.sleep(0.005)

    async def renewed(self, times: int) -> None:
        await self.until(lambda: self.feed.tally.renewals.get("ok", 0) >= times)


@asynccontextmanager
async def plane_at(path: Path) -> AsyncIterator[Fickle]:
    """It serves while this lasts."""
    plane = Fickle(path / "token")
    plane.token_file.write_text(plane.token + "\n")
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, plane.serve, 0)
        plane.port = listeners[0].socket.getsockname()[1]
        yield plane
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def fed(plane: Fickle, directory: str = "none") -> AsyncIterator[Fed]:
    """A feed at that control plane; ``directory`` is --identity-dir."""
    flags = {
        "control": f"http://127.0.0.1:{plane.port}", "token_file": str(plane.token_file), "namespace": "shop",
        "service_account": "billing", "upstream": "127.0.0.1:1", "identity_dir": directory,
    }  # fmt: skip
    connections: set[Connection] = set()
    clock = Clock()
    identity = Identity(connections, clock)
    caller = control_caller(load(flags, {}), identity, connections, clock, chance=lambda: 0.0)
    feed = identity_feed(load(flags, {}), identity, caller)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed.run)
        yield Fed(plane, identity, feed, caller, clock)
        nursery.cancel_scope.cancel()
    caller.close()
    assert not connections, "a connection is left behind"
