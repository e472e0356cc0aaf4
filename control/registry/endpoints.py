"""Endpoints, registered and taken back by the workloads that serve: what may be written, and when.

Who calls it: ``control.registry.calls``. An endpoint belongs to the identity that registered it; nobody else overwrites
it, speaks for it or removes it. **What is written** is what callers are told, and what a restart must find: where it
is, and whether it is well. That it was heard is not: a thousand sidecars say so every few seconds. Each write names the
version of the entry that it was decided on, so of two at once one is decided again, on what the other wrote.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from certs.spiffe import SpiffeId
from control.access import Tokens
from control.documents.table import Documents
from control.problems import Invalid, Refused
from control.registry import permits, place
from control.registry.registered import Heartbeat, Registered, Registration, check, check_id, printable
from control.registry.table import ENDPOINT, Key, Registry, entry_name
from control.store import Change, Conflict, Store
from sidecar.resources.kinds import Service

OF_A_SERVICE: Final = 5000  # endpoints; half of what a proxy is measured with in all
PLACES_OF_A_SERVICE: Final = 50_000  # endpoints times ports: each is a row in a table of every caller
OF_AN_IDENTITY: Final = 10_000  # in all services: so that nobody fills everybody's memory alone
WEIGHT_OF_AN_IDENTITY: Final = 4 << 20  # bytes of these in a Snapshot, of which a proxy takes four times as many in all
ATTEMPTS: Final = 5  # at a write; who loses so often in a row is in a crowd that makes no sense for one endpoint

Decide = Callable[[Registered | None], Registered | None]


class Endpoints:
    """See the module."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        documents: Documents,
        tokens: Tokens,
        trust_domain: str,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._registry = registry
        self._documents = documents
        self._tokens = tokens
        self._trust_domain = trust_domain
        self._clock = clock

    async def register(
        self, key: Key, endpoint_id: str, identity: SpiffeId, peer: str, wanted: Registration
    ) -> Registered:
        """The endpoint as it stands now, known to everybody who reads the table. ``peer`` is where the call came from.

        Invalid where the registration can't be, Refused (403) where it is not for this identity.
        """
        service = self._service(key, identity)
        check_id(endpoint_id)
        ttl = check(wanted, service.ports)
        address = await self._address(wanted.address, peer, identity)
        now = self._clock()
        fresh = Registered(
            id=endpoint_id,
            identity=str(identity),
            address=address,
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

        def decide(known: Registered | None) -> Registered:
            self._check_owner(known, identity)
            self._check_room(key, known, fresh, len(service.ports))
            return fresh if known is None else _again(known, fresh)

        stands = await self._settle(key, endpoint_id, decide, rewrite=self._registry.leaving(*key, endpoint_id))
        self._registry.heard(*key, endpoint_id, fresh.detail)
        return stands or fresh

    async def heartbeat(self, key: Key, endpoint_id: str, identity: SpiffeId, beat: Heartbeat) -> None:
        """It is there, and so well. Invalid (404) where it is not registered, or about to be dropped."""
        self._service(key, identity)
        detail = printable(beat.detail)
        now = self._clock()

        def decide(known: Registered | None) -> Registered:
            if known is None or self._registry.leaving(*key, endpoint_id):
                raise Invalid("this endpoint is not registered; register it again", 404, kind="not-registered")
            self._check_owner(known, identity)
            return _with_health(known, beat.healthy, detail, now)

        await self._settle(key, endpoint_id, decide)
        self._registry.heard(*key, endpoint_id, detail)

    async def deregister(self, key: Key, endpoint_id: str, identity: SpiffeId) -> None:
        """It is gone, or was gone."""
        self._service(key, identity)

        def decide(known: Registered | None) -> None:
            self._check_owner(known, identity)

        await self._settle(key, endpoint_id, decide)

    # -- who may -----------------------------------------------------------------------------------------------------

    def _service(self, key: Key, identity: SpiffeId) -> Service:
        service = permits.service_of(self._documents.state.effective, key)
        if service is None:
            raise Invalid(f"there is no service {key[1][:63]!r} in namespace {key[0][:63]!r}", 404)
        if not permits.may_serve(service, key[0], identity, self._trust_domain):
            raise Refused(403, f"may not serve {key[0]}/{key[1]}")
        return service

    def _check_owner(self, known: Registered | None, identity: SpiffeId) -> None:
        if known is not None and known.identity != str(identity):
            raise Refused(403, f"the endpoint belongs to {known.identity}")

    def _check_room(self, key: Key, known: Registered | None, fresh: Registered, ports: int) -> None:
        identity = fresh.identity
        most = min(OF_A_SERVICE, max(1, PLACES_OF_A_SERVICE // ports))
        if known is None and len(self._registry.endpoints(*key)) >= most:
            raise Invalid(f"this service has {most} endpoints already, as many as one with {ports} ports may have", 409)
        if known is None and self._registry.owned(identity) >= OF_AN_IDENTITY:
            raise Invalid(f"this identity has {OF_AN_IDENTITY} endpoints already", 409)
        grows = fresh.weight - (known.weight if known else 0)
        if grows > 0 and self._registry.weight(identity) + grows > WEIGHT_OF_AN_IDENTITY:
            raise Invalid(
                "labels and ports of this identity's endpoints would be too long in all: every caller is told them", 409
            )

    async def _address(self, wanted: str, peer: str, identity: SpiffeId) -> str:
        """The address in canonical form, if this identity may have it."""
        address = place.address_of(wanted, peer)
        if place.is_own(address, peer):
            return str(address)
        workload = identity.workload()
        allowed = await self._tokens.addresses(*workload, self._clock()) if workload else ()
        if not place.is_allowed(address, allowed):
            raise Invalid(
                f"address: this call does not come from {address}, and no token of this workload allows it; leave it"
                " out, or have a token made whose addresses have it",
                403,
            )
        return str(address)

    # -- writing -----------------------------------------------------------------------------------------------------

    async def _settle(self, key: Key, endpoint_id: str, decide: Decide, rewrite: bool = False) -> Registered | None:
        """Writes what ``decide`` makes of what there is, where that differs; None is nothing at all. With ``rewrite``
        also where it does not: who is about to be dropped is not, then."""
        name = entry_name(*key, endpoint_id)
        known, version = self._registry.find(*key, endpoint_id) or (None, 0)
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

    async def _read(self, name: str) -> tuple[Registered | None, int]:
        """The entry as it is in the store, which is ahead of the table."""
        entry = await self._store.get(ENDPOINT, name)
        return (msgspec.json.decode(entry.value, type=Registered), entry.version) if entry else (None, 0)


def _again(known: Registered, fresh: Registered) -> Registered:
    """A registration of what is registered: where it only says again what stands it changes nothing."""
    same_place = msgspec.structs.replace(
        fresh, registered=known.registered, changed=known.changed, healthy=known.healthy, detail=known.detail
    )
    if same_place != known:
        return fresh
    return _with_health(known, fresh.healthy, fresh.detail, fresh.changed)


def _with_health(known: Registered, healthy: bool | None, detail: str, now: float) -> Registered:
    if known.healthy == healthy:
        return known
    return msgspec.structs.replace(known, healthy=healthy, detail=detail, changed=now)
