"""Endpoints, registered and taken back by the workloads that serve: what may be written, and when.

Who calls it: ``control.registry.api``. **An endpoint belongs to the process that registered it**: to its identity,
and to a number that the process draws when it starts. No other process speaks for it or removes it, whatever its id:
two that register under one id are two endpoints. Only the same identity at the same address and port takes the place of
what is there, since that is what a restart looks like.

**What is written** is what callers are told, and what a restart must find: where it is, and whether it is well. That it
was heard is not: a thousand sidecars say so every few seconds. Each write names the version of the entry that it was
decided on, so of two at once one is decided again, on what the other wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from certs.spiffe import SpiffeId
from control.documents.table import Documents
from control.problems import Invalid, Refused
from control.registry import address_check, serving_rights
from control.registry.address_check import Placed, RefusedAddress
from control.registry.endpoint_table import ENDPOINT, Key, Registry, entry_name
from control.registry.reconciler import remove
from control.registry.registration import (
    Heartbeat,
    RegisteredEndpoint,
    Registration,
    check,
    check_id,
    key_of,
    printable,
    registrant,
)
from control.store import Change, Conflict, Store
from control.token_store import TokenStore
from sidecar.resources.kinds import Service

OF_A_SERVICE: Final = 5000  # endpoints; half of what a proxy is measured with in all
PLACES_OF_A_SERVICE: Final = 50_000  # endpoints times ports: each is a row in a table of every caller
OF_AN_IDENTITY: Final = 10_000  # in all services: so that nobody fills everybody's memory alone
WEIGHT_OF_AN_IDENTITY: Final = 4 << 20  # bytes of these in a Snapshot, of which a proxy takes four times as many in all
ATTEMPTS: Final = 5  # at a write; who loses so often in a row is in a crowd that makes no sense for one endpoint

Decide = Callable[[RegisteredEndpoint | None], RegisteredEndpoint | None]


class Outcome(NamedTuple):
    """A registration as it stands, and the addresses that it does not have."""

    endpoint: RegisteredEndpoint
    refused: tuple[RefusedAddress, ...]


class Endpoints:
    """See the module. ``networks`` are those in which every workload may register (``--workload-networks``)."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        documents: Documents,
        tokens: TokenStore,
        trust_domain: str,
        clock: Callable[[], float],
        networks: Sequence[str] = (),
    ) -> None:
        self._store = store
        self._registry = registry
        self._documents = documents
        self._tokens = tokens
        self._trust_domain = trust_domain
        self._clock = clock
        self._networks = tuple(networks)

    async def register(
        self, key: Key, endpoint_id: str, identity: SpiffeId, peer: str, wanted: Registration
    ) -> Outcome:
        """The endpoint as it stands now, known to everybody who reads the table. ``peer`` is where the call came from.

        Invalid where the registration can't be, Refused (403) where it is not for this identity.
        """
        service = self._service(key, identity)
        check_id(endpoint_id)
        ttl = check(wanted, service.ports)
        own = key_of(endpoint_id, registrant(str(identity), wanted.process))
        allowed = await self._allowed(own, key, peer, wanted, identity)
        now = self._clock()
        outcome: list[tuple[Placed, list[tuple[RegisteredEndpoint, int]]]] = []

        def decide(known: RegisteredEndpoint | None) -> RegisteredEndpoint:
            where = address_check.placed(wanted.address, wanted.addresses, peer, known.proven if known else (), allowed)
            fresh = RegisteredEndpoint(
                id=endpoint_id,
                identity=str(identity),
                registrant=registrant(str(identity), wanted.process),
                address=where.addresses[0],
                others=where.addresses[1:],
                proven=where.proven,
                port=wanted.port,
                ports=wanted.ports,
                mode=wanted.mode,
                labels=wanted.labels,
                ttl=ttl,
                healthy=wanted.healthy,
                detail=printable(wanted.detail),
                registered=now,
                changed=now,
            )
            replaced = self._replaced(key, fresh)
            self._check_room(key, known, fresh, len(service.ports), replaced)
            outcome[:] = [(where, replaced)]
            return fresh if known is None else _again(known, fresh)

        stands = await self._settle(key, own, decide, rewrite=self._registry.leaving(*key, own))
        assert stands is not None
        self._registry.heard(*key, own, printable(wanted.detail))
        ((where, replaced),) = outcome
        # Only now: a process that was killed in between leaves two, of which callers are told of the later one.
        gone = [Change(ENDPOINT, entry_name(*key, each.key), None, if_version=version) for each, version in replaced]
        await remove(self._store, self._registry, gone)
        return Outcome(stands, where.refused)

    async def heartbeat(self, key: Key, endpoint_id: str, identity: SpiffeId, beat: Heartbeat) -> None:
        """It is there, and so well. Invalid (404) where this process has not registered it, or it is about to be
        dropped."""
        self._service(key, identity)
        detail = printable(beat.detail)
        now = self._clock()
        own = key_of(endpoint_id, registrant(str(identity), beat.process))

        def decide(known: RegisteredEndpoint | None) -> RegisteredEndpoint:
            if known is None or self._registry.leaving(*key, own):
                raise Invalid("this endpoint is not registered; register it again", 404, kind="not-registered")
            return _with_health(known, beat.healthy, detail, now)

        await self._settle(key, own, decide)
        self._registry.heard(*key, own, detail)

    async def deregister(self, key: Key, endpoint_id: str, identity: SpiffeId, process: str = "") -> None:
        """It is gone, or was gone. What another process registered stays."""
        self._service(key, identity)
        await self._settle(key, key_of(endpoint_id, registrant(str(identity), process)), lambda _: None)

    def _replaced(self, key: Key, fresh: RegisteredEndpoint) -> list[tuple[RegisteredEndpoint, int]]:
        """What was at this place under this id before a restart, each with the version of its entry."""
        same = [
            self._registry.find(*key, each.key)
            for each in self._registry.endpoints(*key)
            if (each.id, each.identity) == (fresh.id, fresh.identity) and each.key != fresh.key and each.meets(fresh)
        ]
        return [found for found in same if found is not None]

    # -- who may -----------------------------------------------------------------------------------------------------

    def _service(self, key: Key, identity: SpiffeId) -> Service:
        service = serving_rights.service_of(self._documents.state.effective, key)
        if service is None:
            raise Invalid(f"there is no service {key[1][:63]!r} in namespace {key[0][:63]!r}", 404)
        if not serving_rights.may_serve(service, key[0], identity, self._trust_domain):
            raise Refused(403, f"may not serve {key[0]}/{key[1]}")
        return service

    def _check_room(
        self,
        key: Key,
        known: RegisteredEndpoint | None,
        fresh: RegisteredEndpoint,
        ports: int,
        replaced: Sequence[tuple[RegisteredEndpoint, int]],
    ) -> None:
        identity, freed = fresh.identity, len(replaced)
        most = min(OF_A_SERVICE, max(1, PLACES_OF_A_SERVICE // ports))
        if known is None and len(self._registry.endpoints(*key)) - freed >= most:
            raise Invalid(f"this service has {most} endpoints already, as many as one with {ports} ports may have", 409)
        if known is None and self._registry.owned(identity) - freed >= OF_AN_IDENTITY:
            raise Invalid(f"this identity has {OF_AN_IDENTITY} endpoints already", 409)
        grows = fresh.weight - (known.weight if known else 0) - sum(each.weight for each, _ in replaced)
        if grows > 0 and self._registry.weight(identity) + grows > WEIGHT_OF_AN_IDENTITY:
            raise Invalid(
                "labels and ports of this identity's endpoints would be too long in all: every caller is told them", 409
            )

    async def _allowed(
        self, own: str, key: Key, peer: str, wanted: Registration, identity: SpiffeId
    ) -> tuple[str, ...]:
        """The networks in which this identity may be; looked up only where the registration needs one."""
        known = self._registry.find(*key, own)
        proven = known[0].proven if known else ()
        if all(
            address_check.is_proven(each, peer, proven) for each in (*filter(None, [wanted.address]), *wanted.addresses)
        ):
            return ()
        workload = identity.workload()
        of_tokens = await self._tokens.addresses(*workload, self._clock()) if workload else ()
        return (*self._networks, *of_tokens)

    # -- writing -----------------------------------------------------------------------------------------------------

    async def _settle(self, key: Key, own: str, decide: Decide, rewrite: bool = False) -> RegisteredEndpoint | None:
        """Writes what ``decide`` makes of what there is, where that differs; None is nothing at all. With ``rewrite``
        also where it does not: who is about to be dropped is not, then."""
        name = entry_name(*key, own)
        known, version = self._registry.find(*key, own) or (None, 0)
        for _ in range(ATTEMPTS):
            wanted = decide(known)
            if wanted == known and not rewrite:
                return known
            value = None if wanted is None else msgspec.json.encode(wanted)
            try:
                reached = await self._store.write([Change(ENDPOINT, name, value, if_version=version)])
            except Conflict:
                known, version = await self._read(name)
            else:
                await self._registry.reached(reached)
                return wanted
        raise Invalid("this endpoint is being changed by others all the time; try again", 409)

    async def _read(self, name: str) -> tuple[RegisteredEndpoint | None, int]:
        """The entry as it is in the store, which is ahead of the table."""
        entry = await self._store.get(ENDPOINT, name)
        return (msgspec.json.decode(entry.value, type=RegisteredEndpoint), entry.version) if entry else (None, 0)


def _again(known: RegisteredEndpoint, fresh: RegisteredEndpoint) -> RegisteredEndpoint:
    """A registration of what is registered: where it only says again what stands it changes nothing."""
    same_place = msgspec.structs.replace(
        fresh, registered=known.registered, changed=known.changed, healthy=known.healthy, detail=known.detail
    )
    if same_place != known:
        return fresh
    return _with_health(known, fresh.healthy, fresh.detail, fresh.changed)


def _with_health(known: RegisteredEndpoint, healthy: bool | None, detail: str, now: float) -> RegisteredEndpoint:
    if known.healthy == healthy:
        return known
    return msgspec.structs.replace(known, healthy=healthy, detail=detail, changed=now)
