"""Distribution over a store in memory, with the real tables in front of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec
import trio

from certs.spiffe import workload
from control.distribution.metrics import RoundFigures
from control.distribution.push import BATCH_SECONDS, MOST, SnapshotPush
from control.distribution.subscriptions import Member
from control.distribution.tables import EndpointTable
from control.documents.stored_document import encode
from control.documents.table import Documents
from control.metrics import Figures
from control.registry.endpoint_table import Registry
from control.registry.registration import RegisteredEndpoint
from control.store import Change
from control.store.sqlite import SqliteStore, open_store
from sidecar.resources.documents import plain
from sidecar.resources.proxy_config import ProxyConfig
from sidecar.resources.schema import EndpointSpec
from tests.unit.resources import docs

DOMAIN = "cluster.local"


@dataclass
class Distributing:
    """All of it, while it runs. ``told`` are the snapshots that each follower was told, in order."""

    store: SqliteStore
    documents: Documents
    rounds: SnapshotPush
    told: dict[str, list[ProxyConfig]] = field(default_factory=dict)

    async def write(self, *texts: str, gone: Iterable[str] = (), aged: float = 1.0) -> int:
        """Documents, as an apply does: all in one write. ``gone`` are names as ``Service/shop/web``; ``aged``: when the
        documents were created."""
        found = docs.read("".join(texts)) if texts else None
        assert found is None or found.mesh is not None, found
        changes = [
            Change("document", "/".join(each.key), encode(msgspec.json.encode(plain(each)), 1, "test", 1.0, aged))
            for each in (found.mesh.documents() if found and found.mesh else ())
        ]
        changes += [Change("document", name, None) for name in gone]
        return await self.store.write(changes)

    async def register(self, service: str, endpoint: str, address: str = "10.0.0.1", healthy: bool = True) -> int:
        """An endpoint of ``namespace/name``."""
        entry = RegisteredEndpoint(
            id=endpoint, identity="", address=address, port=8080, ttl=15.0, healthy=healthy, registered=1.0, changed=1.0
        )
        return await self.store.put("endpoint", f"{service}/{endpoint}", msgspec.json.encode(entry))

    async def member(self, who: str) -> Member:
        """The identity ``namespace/account``, as if it asked."""
        return await self.rounds.member(workload(DOMAIN, *who.split("/")))

    async def mesh(self, who: str) -> ProxyConfig:
        """What it is told at this moment."""
        return read(await self.member(who))

    async def follow(self, who: str) -> None:
        """Asks once and then waits for each change, for as long as the test lasts."""
        member = await self.member(who)
        seen = self.told.setdefault(who, [read(member)])
        with self.rounds.waiting(member):
            while True:
                changed = member.published.changed
                if str(member.published.version) == seen[-1].version:
                    await changed.wait()
                seen.append(read(member))

    async def settled(self) -> None:
        """All that was written is published by then: the clock goes on only when nobody has anything to do."""
        await trio.sleep(3 * BATCH_SECONDS)


def read(member: Member) -> ProxyConfig:
    """The snapshot of an identity, as a proxy decodes it."""
    version = str(member.published.version)
    body = b"".join(member.published.value.parts(version))
    assert len(body) == member.published.value.length(version)
    return msgspec.json.decode(body, type=ProxyConfig)


def endpoints(mesh: ProxyConfig, service: str) -> list[str]:
    """Addresses at which ``namespace/name`` is called."""
    (found,) = (each for each in mesh.services if f"{each.namespace}/{each.name}" == service)
    return [each.address for each in found.endpoints if not each.unwell]


def services(mesh: ProxyConfig) -> list[str]:
    """``namespace/name`` of those in it."""
    return [f"{each.namespace}/{each.name}" for each in mesh.services]


class Behind:
    """A registry whose watch is behind that of the documents: what it has comes without a version of its own."""

    def __init__(self) -> None:
        self.version = 0
        self._live: dict[tuple[str, str], list[EndpointSpec]] = {}
        self._follower: Callable[[frozenset[tuple[str, str]], int], None] = lambda keys, version: None

    def live(self, namespace: str, name: str) -> list[EndpointSpec]:
        return self._live.get((namespace, name), [])

    def virtual(self, namespace: str, name: str) -> tuple[str, ...]:
        return ()

    def follow(self, callback: Callable[[frozenset[tuple[str, str]], int], None], /) -> None:
        self._follower = callback

    def has(self, namespace: str, name: str, *endpoints: EndpointSpec) -> None:
        """These are there, and were from the start."""
        self._live[namespace, name] = list(endpoints)

    def comes(self, namespace: str, name: str, address: str) -> None:
        """An endpoint is there now."""
        self.has(namespace, name, EndpointSpec(address=address, port=8080))
        self._follower(frozenset({(namespace, name)}), self.version)


@asynccontextmanager
async def distributing(most: int = MOST, endpoints: EndpointTable | None = None) -> AsyncIterator[Distributing]:
    """Everything that runs, while this lasts; with ``endpoints`` in place of the registry."""
    store = open_store("", 1_700_000_000.0)
    found, registry = Documents(store, DOMAIN), Registry(store, trio.current_time)
    await found.load()
    await registry.open()
    shown = RoundFigures(Figures())
    told: EndpointTable = endpoints or registry
    rounds = SnapshotPush(found, told, store, DOMAIN, lambda: 1_700_000_000.0, trio.current_time, shown, most)
    rounds.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.run)
        nursery.start_soon(registry.run)
        nursery.start_soon(rounds.run)
        try:
            yield Distributing(store, found, rounds)
        finally:
            nursery.cancel_scope.cancel()
    store.close()
