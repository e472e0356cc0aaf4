"""The endpoints that there are, in memory: a view of the store, and when each of them was heard.

Who reads it: what sends configuration to proxies (``endpoints``, ``live``, ``virtual_address_allocator``, ``follow``),
and the registry's own calls. Who feeds it: its own ``run``, from the store alone; no other task writes, so that what
is seen here is what a restart would find. Who has just written and wants to see it here waits for its version
(``reached``). When each was heard stands in no store: after a start all are as if they had been heard then.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import msgspec
import trio

from control.registry.liveness import Liveness, anew, heard, unheard
from control.registry.registration import RegisteredEndpoint
from control.registry.virtual_address_allocator import Virtual
from control.store import Event, Store, TooOld
from sidecar.resources.proxy_config import RegisteredSpec

ENDPOINT = "endpoint"
VIRTUAL = "virtual"
_log = logging.getLogger(__name__)

Key = tuple[str, str]  # (namespace, name) of a service
Follower = Callable[[frozenset[Key], int], None]


class Registry:
    """See the module. ``open`` comes first, then ``run``, which only ends by being cancelled."""

    def __init__(self, store: Store, monotonic: Callable[[], float]) -> None:
        self._store = store
        self._monotonic = monotonic
        self._endpoints: dict[Key, dict[str, RegisteredEndpoint]] = {}
        self._versions: dict[str, int] = {}  # an endpoint's entry -> its version
        self._hearings: dict[Key, dict[str, Liveness]] = {}
        self._owned: Counter[str] = Counter()
        self._weights: Counter[str] = Counter()
        self._leaving: frozenset[str] = frozenset()
        self._virtual: dict[Key, Virtual] = {}
        self._followers: list[Follower] = []
        self._arrived = trio.Event()
        self.version = 0

    # -- for readers -------------------------------------------------------------------------------------------------

    def endpoints(self, namespace: str, name: str) -> tuple[RegisteredEndpoint, ...]:
        """All of a service, well or not, by their ids. Several may have the same one."""
        found = self._endpoints.get((namespace, name), {})
        return tuple(found[each] for each in sorted(found))

    def live(self, namespace: str, name: str) -> list[RegisteredSpec]:
        """Those that callers are told of, by their ids, and which of them are unwell. Of several at one place the one
        that registered last counts: the others are what was there before it."""
        taken: set[tuple[object, ...]] = set()
        found: list[tuple[str, RegisteredSpec]] = []
        for each in sorted(self.endpoints(namespace, name), key=lambda each: each.registered, reverse=True):
            free = [address for address in each.addresses if (address, *each.ports_key) not in taken]
            taken |= each.places
            if free:
                found.append((each.key, each.spec(free)))
        return [spec for _, spec in sorted(found, key=lambda pair: pair[0])]

    def virtual(self, namespace: str, name: str) -> tuple[str, ...]:
        """The addresses that stand for a service: one IPv4, one IPv6; none where there are none."""
        found = self._virtual.get((namespace, name))
        return (found.v4, found.v6) if found else ()

    def follow(self, callback: Follower) -> None:
        """Calls it after each batch of changes, with the services that they are about and the store's version. It must
        not wait; all of the batch is in the table by then."""
        self._followers.append(callback)

    async def reached(self, version: int) -> None:
        """Waits until what was written up to this version is here."""
        while self.version < version:
            await self._arrived.wait()

    # -- for the registry itself -------------------------------------------------------------------------------------

    def find(self, namespace: str, service: str, key: str) -> tuple[RegisteredEndpoint, int] | None:
        """The endpoint with this key, and the version of its entry."""
        found = self._endpoints.get((namespace, service), {}).get(key)
        return (found, self._versions[entry_name(namespace, service, key)]) if found else None

    def services(self) -> tuple[Key, ...]:
        """Every service that has endpoints."""
        return tuple(self._endpoints)

    def virtuals(self) -> Mapping[Key, Virtual]:
        """Every service that has addresses of ours."""
        return self._virtual

    def owned(self, identity: str) -> int:
        """How many endpoints belong to this identity."""
        return self._owned[identity]

    def weight(self, identity: str) -> int:
        """How much room these take in what callers are told, in bytes and roughly."""
        return self._weights[identity]

    def leaving(self, namespace: str, service: str, key: str) -> bool:
        """Whether it is being dropped for its silence, so that to have been heard would come to nothing."""
        return entry_name(namespace, service, key) in self._leaving

    @contextmanager
    def drop(self, names: Iterable[str]) -> Iterator[None]:
        """These entries are being dropped, while this lasts."""
        self._leaving = frozenset(names)
        try:
            yield
        finally:
            self._leaving = frozenset()

    def heard(self, namespace: str, service: str, key: str, detail: str = "") -> None:
        """This endpoint was heard now."""
        known = self._endpoints.get((namespace, service), {}).get(key)
        if known is not None:
            hearings = self._hearings[namespace, service]
            hearings[key] = heard(hearings.get(key), self._monotonic(), known.ttl, detail)

    def hearings(self, namespace: str, service: str) -> Mapping[str, Liveness]:
        """When each of a service's endpoints was heard, by their keys."""
        return self._hearings.get((namespace, service), {})

    def begin_anew(self) -> None:
        """We were away: all are as if they had been heard now."""
        now = self._monotonic()
        for hearings in self._hearings.values():
            for key, each in hearings.items():
                hearings[key] = anew(each, now)

    # -- how it is fed -----------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Takes everything from the store."""
        known = {(ENDPOINT, name) for name in self._versions}
        known |= {(VIRTUAL, f"{namespace}/{name}") for namespace, name in self._virtual}
        listings = {kind: await self._store.list(kind) for kind in (ENDPOINT, VIRTUAL)}
        events = [
            Event(kind, entry.name, entry.value, entry.version)
            for kind, listing in listings.items()
            for entry in listing.entries
        ]
        lost = known - {(event.kind, event.name) for event in events}
        # What happened between the two lists comes once more, in its order, which does no harm.
        version = min(listing.version for listing in listings.values())
        self._take([*events, *(Event(kind, name, None, version) for kind, name in sorted(lost))], version)

    async def run(self) -> None:
        """Follows the store."""
        while True:
            try:
                async with self._store.watch({ENDPOINT, VIRTUAL}, self.version) as batches:
                    async for batch in batches:
                        self._take(batch, batch[-1].version)
            except TooOld:
                _log.warning("the registry was behind the store, and reads all of it again")
                await self.open()

    def _take(self, events: Sequence[Event], version: int) -> None:
        """One batch."""
        keys = frozenset(key for event in events if (key := self._apply(event)) is not None)
        self.version = max(self.version, version)
        for follower in self._followers:
            follower(keys, self.version)
        arrived, self._arrived = self._arrived, trio.Event()
        arrived.set()

    def _apply(self, event: Event) -> Key | None:
        """One change; the service that it is about."""
        namespace, _, rest = event.name.partition("/")
        service, _, endpoint_key = rest.partition("/")
        key = namespace, service
        try:
            if event.kind == VIRTUAL:
                self._apply_virtual(key, event.value)
            else:
                self._apply_endpoint(key, endpoint_key, event)
        except msgspec.MsgspecError as error:
            _log.error("the store's %s %s can't be read, and is left out: %s", event.kind, event.name, error)
            return None
        return key

    def _apply_virtual(self, key: Key, value: bytes | None) -> None:
        if value is None:
            self._virtual.pop(key, None)
        else:
            self._virtual[key] = msgspec.json.decode(value, type=Virtual)

    def _apply_endpoint(self, key: Key, endpoint_key: str, event: Event) -> None:
        fresh = None if event.value is None else msgspec.json.decode(event.value, type=RegisteredEndpoint)
        self._count(self._endpoints.get(key, {}).get(endpoint_key), fresh)
        if fresh is None:
            self._versions.pop(event.name, None)
            for table in (self._endpoints, self._hearings):
                table.get(key, {}).pop(endpoint_key, None)
                if not table.get(key, True):
                    del table[key]
            return
        self._endpoints.setdefault(key, {})[endpoint_key] = fresh
        self._versions[event.name] = event.version
        hearings = self._hearings.setdefault(key, {})
        before = hearings.get(endpoint_key)
        if before is None:
            hearings[endpoint_key] = unheard(self._monotonic(), fresh.ttl)
        elif before.ttl != fresh.ttl:
            hearings[endpoint_key] = msgspec.structs.replace(before, ttl=fresh.ttl)

    def _count(self, before: RegisteredEndpoint | None, after: RegisteredEndpoint | None) -> None:
        """Whose endpoints there are how many of, and how much room they take."""
        if after is not None:
            self._owned[after.identity] += 1
            self._weights[after.identity] += after.weight
        if before is not None:
            self._owned[before.identity] -= 1
            self._weights[before.identity] -= before.weight
            if not self._owned[before.identity]:
                del self._owned[before.identity], self._weights[before.identity]


def entry_name(namespace: str, service: str, key: str) -> str:
    """The name in the store of the entry of the endpoint with this key."""
    return f"{namespace}/{service}/{key}"
