"""What was dialed for a silent client, when a Snapshot comes before the client speaks."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from sidecar.addresses import Address
from sidecar.http.timeouts import Timeouts
from sidecar.net.connection import Connection
from sidecar.net.connection_pool import Lease, Limits, Pool
from sidecar.net.relay_reactor import RelayReactor
from sidecar.net.resolve import Resolver
from sidecar.net.splice_pipes import Pipes
from sidecar.net.timers import Sweeper
from sidecar.policy.authorize import Asked, Permit, allow_all, authorize_inbound
from sidecar.proxy.connection_handler import Target, serve_target
from sidecar.proxy.context import ProxyContext
from sidecar.proxy.pipeline import RunningBytes
from sidecar.proxy.protocol_detection import Detection
from sidecar.proxy.route import Route
from sidecar.resources.snapshot import NOTHING, Snapshot
from sidecar.telemetry.memory import MemoryGuard
from sidecar.telemetry.record import ConnectionInfo
from sidecar.telemetry.telemetry import Telemetry
from tests.proxy.ends import tcp_pair


class Habits:
    server_first = False


class Place:
    """A destination with one pool; ``others`` are the far ends of its connections."""

    def __init__(self, registry: set[Connection], telemetry: Telemetry) -> None:
        self.others: list[trio.SocketStream] = []
        self.dialed = trio.Event()
        self._registry = registry
        self.pool = Pool(self._dial, Limits(8, 8, 1.0, 60.0), telemetry.counters)

    async def _dial(self, seconds: float) -> Connection:
        other, ours = tcp_pair()
        self.others.append(other)
        self.dialed.set()
        return Connection(ours, "a place", self._registry)


class Captured:
    """A target that led to ``before`` until the client spoke, and leads to ``after`` when its permit is asked for."""

    direction, protocol, original, name = "outbound", "auto", "", "a place"
    rejudged = False
    vouches = by_server_name = False
    server_first_cache = Habits()

    def __init__(self, before: Place, after: Place, changes: bool) -> None:
        self._before = before
        self._after = after
        self._changes = changes

    def trusts(self, host: str) -> bool:
        return False

    def current(self) -> Snapshot:
        return NOTHING

    def route_bytes(self, snapshot: Snapshot, found: Detection) -> Route:
        cluster = cast(Any, SimpleNamespace(name="a place", lease=self._lease))
        return Route("outside", cluster, cast(Any, None), None, Address("a place", 80), "a place")

    def asked_of_bytes(self, wanted: RunningBytes) -> None:
        pass

    def reached(self, connection: Connection) -> tuple[str, int]:
        return "192.0.2.1", 80

    async def authorize_bytes(self, snapshot: Snapshot, route: Route, wanted: RunningBytes) -> Permit:
        if self._changes:
            self._before.pool.renew()
        return authorize_inbound(allow_all, Asked("inbound", "", "", "a place", "TCP"))

    async def dial_early(self, info: ConnectionInfo) -> Lease:
        return await self._before.pool.acquire(fresh=True, seconds=1.0)

    async def _lease(self, permit: Permit, at: object, *, opaque: bool) -> Lease:
        return await self._after.pool.acquire(fresh=True, seconds=1.0)


@pytest.mark.parametrize("changes", [True, False])
async def test_what_is_stale_by_then_is_not_used(changes: bool) -> None:
    RelayReactor.current()
    telemetry, registry, pipes = Telemetry("off", "/dev/null"), set[Connection](), Pipes()
    timeouts = Timeouts(5.0, 5.0, 5.0, 1, 5.0, 1 << 20)
    context = ProxyContext(timeouts, 5.0, 5.0, 8, 8, (), False, telemetry, MemoryGuard(0), Resolver(), pipes)
    before, after = Place(registry, telemetry), Place(registry, telemetry)
    client, ours = tcp_pair()
    connection = Connection(ours, "a client", registry)
    target = cast(Target, Captured(before, after, changes))
    with trio.fail_after(10):
        async with client, trio.open_nursery() as nursery:
            nursery.start_soon(Sweeper(registry, []).run)
            nursery.start_soon(serve_target, connection, "127.0.0.1", target, context)
            await before.dialed.wait()
            await client.send_all(b"\xff no HTTP")
            if changes:
                with pytest.raises(StopAsyncIteration):
                    await anext(aiter(before.others[0]))
            reached = after if changes else before
            await reached.dialed.wait()
            assert await reached.others[0].receive_some(100) == b"\xff no HTTP"
            assert len(after.others) == changes
            nursery.cancel_scope.cancel()
    for each in list(registry):
        each.close()
    for other in (*before.others, *after.others):
        await other.aclose()
    pipes.close()
