"""The calls of the registry: one method per row of ``control.calls``, named after it.

Who calls it: ``control.gate``. A workload is told what is wrong with its request and whether there is such a service;
that something is not its own it learns from the status alone.
"""

from __future__ import annotations

from collections.abc import Callable

from certs.spiffe import SpiffeId
from control.bodies import read
from control.documents.table import Documents
from control.doors import PEER, Peer
from control.gate import Answer, Asked
from control.pages import Mark, Wanted, page
from control.problems import Invalid
from control.registry import permits, shown
from control.registry.endpoints import Endpoints
from control.registry.registered import Heartbeat, Registration, check_process
from control.registry.table import Key, Registry
from sidecar.resources.documents import Document


class RegistryCalls:
    """See the module. ``clock`` in seconds since the epoch."""

    def __init__(
        self,
        endpoints: Endpoints,
        registry: Registry,
        documents: Documents,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._endpoints = endpoints
        self._registry = registry
        self._documents = documents
        self._clock = clock
        self._monotonic = monotonic

    # -- for sidecars ------------------------------------------------------------------------------------------------

    async def endpoints_put(self, asked: Asked) -> Answer:
        """Registers, or registers again."""
        key, endpoint_id, identity = _named(asked)
        wanted = read(asked.body, Registration)
        peer: Peer = asked.request.scope[PEER]
        stands, refused = await self._endpoints.register(key, endpoint_id, identity, peer.address, wanted)
        answer = shown.RegisteredShown(stands.address, stands.addresses, f"{stands.ttl:g}s", refused)
        where = ", ".join(stands.addresses)
        return Answer(body=answer, subject=f"{'/'.join(key)}/{endpoint_id} at {where} of {identity}")

    async def endpoints_heartbeat(self, asked: Asked) -> Answer:
        """It is there, and so well."""
        key, endpoint_id, identity = _named(asked)
        await self._endpoints.heartbeat(key, endpoint_id, identity, read(asked.body or b"{}", Heartbeat))
        return Answer(204)

    async def endpoints_delete(self, asked: Asked) -> Answer:
        """It goes."""
        key, endpoint_id, identity = _named(asked)
        process = check_process(asked.request.query_params.get("process", ""))
        await self._endpoints.deregister(key, endpoint_id, identity, process)
        return Answer(204, subject=f"{'/'.join(key)}/{endpoint_id} of {identity}")

    # -- for people --------------------------------------------------------------------------------------------------

    async def services_list(self, asked: Asked) -> Answer:
        """A page of the services, or of those of one namespace."""
        query = asked.request.query_params
        wanted = Wanted.read(query)
        effective = self._documents.state.effective
        keys = [key for key in permits.services(effective) if query.get("namespace", key[0]) == key[0]]
        found, after = page(keys, "/".join, wanted)
        items = [self._shown(effective["Service", *key]) for key in found]
        return Answer(body=shown.ServiceList(items, str(Mark(after)) if after else ""))

    async def services_get(self, asked: Asked) -> Answer:
        """One service."""
        key = _key(asked)
        document = permits.document_of(self._documents.state.effective, key)
        if document is None:
            raise Invalid(f"there is no service {key[1][:63]!r} in namespace {key[0][:63]!r}", 404)
        return Answer(body=self._shown(document))

    def _shown(self, document: Document) -> shown.ServiceShown:
        key = document.metadata.namespace, document.metadata.name
        registry = self._registry
        return shown.service(
            document,
            registry.virtual(*key),
            registry.endpoints(*key),
            registry.hearings(*key),
            self._clock(),
            self._monotonic(),
        )


def _key(asked: Asked) -> Key:
    told = asked.request.path_params
    return told["namespace"], told["name"]


def _named(asked: Asked) -> tuple[Key, str, SpiffeId]:
    """The service, the endpoint's id, and who asks."""
    identity = asked.who.identity
    assert identity is not None  # the table lets only workloads in, and they have one
    return _key(asked), asked.request.path_params["id"], identity
