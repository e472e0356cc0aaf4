"""A feed of Snapshots at a control plane that a test holds in its hands, and meshes to send."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio

from sidecar.feed.retrying_client import RetryingClient
from sidecar.feed.snapshot_feed import SnapshotFeed
from sidecar.feed.snapshot_holder import SnapshotHolder
from sidecar.feed.wiring import control_caller, identity_feed, snapshot_feed
from sidecar.identity import Identity
from sidecar.net.connection import Connection
from sidecar.settings import load
from tests.proxy.fickle import BILLING, EPOCH, WITHIN, Fickle


def mesh(n: int, *services: str, endpoints: int = 1, epoch: int = EPOCH, **other: Any) -> bytes:
    """A ScopedMesh as JSON: services of one port, with so many endpoints each."""
    told: dict[str, Any] = {
        "schema": "1.0", "version": f"{epoch}.{n}", "proxy": str(BILLING), "issued": time.time(),
        "trustDomain": "cluster.local",
        "services": [
            {
                "name": name, "namespace": "shop", "serviceAccounts": [name], "ports": [{"port": 80, "name": "http"}],
                "endpoints": [
                    {"address": f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}", "port": 8080, "labels": {"version": "v1"}}
                    for i in range(index * endpoints, (index + 1) * endpoints)
                ],
            }
            for index, name in enumerate(services)
        ],
    }  # fmt: skip
    return msgspec.json.encode(told | other)


class Following:
    """A feed that runs, and what it feeds."""

    def __init__(self, plane: Fickle, current: SnapshotHolder, feed: SnapshotFeed, caller: RetryingClient) -> None:
        self.plane, self.current, self.feed, self.caller = plane, current, feed, caller

    @property
    def names(self) -> list[str]:
        return [name for _, name in self.current.snapshot.services]

    def send(self, version: str, body: bytes) -> None:
        self.plane.mesh_version, self.plane.mesh = version, body
        self.plane.publish()

    async def until(self, condition: Any) -> None:
        with trio.fail_after(3 * WITHIN):
            while not condition():  # noqa: ASYNC110  # the feed has no events for tests
                await trio.sleep(0.005)

    async def taken(self, n: int, *services: str, **other: Any) -> None:
        """Sends a mesh, and waits until it is in force."""
        body = mesh(n, *services, **other)
        self.send(f"{other.get('epoch', EPOCH)}.{n}", body)
        await self.until(lambda: self.current.snapshot.version.n == n)


@asynccontextmanager
async def following(plane: Fickle, state_dir: str = "none") -> AsyncIterator[Following]:
    """A feed at that control plane, with a certificate as soon as that gives one."""
    flags = {
        "control": f"http://127.0.0.1:{plane.port}", "token_file": str(plane.token_file), "namespace": "shop",
        "service_account": "billing", "upstream": "127.0.0.1:1", "state_dir": state_dir,
    }  # fmt: skip
    connections: set[Connection] = set()
    settings = load(flags, {})
    identity, current = Identity(connections), SnapshotHolder()
    caller = control_caller(settings, identity, connections, chance=lambda: 0.0)
    feed = snapshot_feed(settings, caller, current, "here")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(identity_feed(settings, identity, caller).run)
        nursery.start_soon(feed.run)
        yield Following(plane, current, feed, caller)
        nursery.cancel_scope.cancel()
    caller.close()
    assert not connections, "a connection is left behind"
