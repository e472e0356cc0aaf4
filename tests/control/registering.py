"""A registry on a store in memory, with a clock that a test sets, and what stands in the store written by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import trio
import trio.testing

from certs.spiffe import SpiffeId, workload
from control.documents import stored_document
from control.documents.table import Documents
from control.metrics import Figures
from control.registry.endpoint_table import Key, Registry
from control.registry.endpoints import Outcome
from control.registry.registration import Heartbeat, RegisteredEndpoint, Registration
from control.registry.wiring import RegistryParts
from control.store import Change, Store
from control.store.sqlite import open_store
from control.token_store import TokenStore
from tests.control.plane import BILLING

DOMAIN = "cluster.local"
KEY = ("shop", "billing")
SPEC: dict[str, Any] = {"ports": [{"port": 80}], "serviceAccounts": ["billing"]}


@dataclass
class Room:
    """A registry that runs, and the time on both of its clocks, which a test sets."""

    store: Store
    documents: Documents
    figures: Figures
    now: float
    networks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        control_id = workload(DOMAIN, "sidecar-system", "sidecar-control")
        self.tokens = TokenStore(self.store, control_id)
        self.assembly = RegistryParts(
            self.store, self.documents, self.tokens, self.figures, DOMAIN, lambda: self.now, lambda: self.now,
            networks=self.networks,
        )  # fmt: skip

    @property
    def registry(self) -> Registry:
        return self.assembly.registry

    async def write(self, key: Key = KEY, spec: dict[str, Any] | None = SPEC) -> None:
        """A service's document, as operators write it; None takes it away. Known when this returns."""
        namespace, name = key
        entry = stored_document.name_of(("Service", namespace, name))
        value = None
        if spec is not None:
            document = {
                "apiVersion": "sidecar/v1", "kind": "Service", "spec": spec,
                "metadata": {"namespace": namespace, "name": name},
            }  # fmt: skip
            value = stored_document.encode(msgspec.json.encode(document), 1, "token:x", self.now)
        await self.documents.reached(await self.store.write([Change(stored_document.KIND, entry, value)]))

    async def register(
        self, endpoint_id: str, identity: SpiffeId = BILLING, key: Key = KEY, peer: str = "10.0.0.7", **told: Any
    ) -> RegisteredEndpoint:
        return (await self.place(endpoint_id, identity, key, peer, **told)).endpoint

    async def place(
        self, endpoint_id: str, identity: SpiffeId = BILLING, key: Key = KEY, peer: str = "10.0.0.7", **told: Any
    ) -> Outcome:
        """As ``register``, with the addresses that were refused."""
        wanted = msgspec.convert({"ttl": "15s", **told}, Registration)
        return await self.assembly.endpoints.register(key, endpoint_id, identity, peer, wanted)

    def called(self, key: Key = KEY) -> list[str]:
        """The addresses, by their ids, at which callers are to call."""
        return [address for each in self.registry.live(*key) if not each.unwell for address in each.addresses]

    async def beat(self, endpoint_id: str, healthy: bool | None = None, detail: str = "", process: str = "") -> None:
        await self.assembly.endpoints.heartbeat(KEY, endpoint_id, BILLING, Heartbeat(healthy, detail, process))

    def ids(self, key: Key = KEY) -> list[str]:
        return [each.id for each in self.registry.endpoints(*key)]

    async def pass_time(self, seconds: float, *beating: str) -> None:
        """Time goes by in steps of a second, each of which the ageing judges, with a heartbeat of these every 5 s."""
        for _ in range(int(seconds)):
            self.now += 1.0
            if int(self.now) % 5 == 0:
                for endpoint_id in beating:
                    await self.beat(endpoint_id)
            await self.assembly.ageing.round(self.now)


async def until(true: Any) -> None:
    """Until this is so; what makes it so runs in other tasks here."""
    with trio.fail_after(30):
        while not true():
            await trio.testing.wait_all_tasks_blocked(0.005)


@asynccontextmanager
async def registering(
    store: Store | None = None, now: float = 1000.0, networks: tuple[str, ...] = ()
) -> AsyncIterator[Room]:
    """A registry that runs while this lasts, but for its ageing: who judges when is for the test to say."""
    held = store or open_store("", 1.0)
    documents = Documents(held, DOMAIN)
    await documents.load()
    room = Room(held, documents, Figures(), now, networks)
    await room.assembly.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(documents.run)
        nursery.start_soon(room.registry.run)
        nursery.start_soon(room.assembly.following.run)
        yield room
        nursery.cancel_scope.cancel()
    if store is None:
        held.close()
