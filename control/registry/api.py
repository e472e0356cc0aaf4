"""The calls of the registry: one method per row of ``control.routes``, named after it.

Who calls it: ``control.middleware``. A workload is told what is wrong with its request and whether there is such a
service; that something is not its own it learns from the status alone.
"""

from __future__ import annotations

from collections.abc import Callable

from certs.spiffe import SpiffeId
from control.api_trust import PEER, Peer
from control.documents.table import Documents
from control.middleware import CallRequest, CallResponse
from control.pagination import Mark, Wanted, page
from control.problems import Invalid
from control.registry import serving_rights, views
from control.registry.endpoint_table import Key, Registry
from control.registry.endpoints import Endpoints
from control.registry.registration import Heartbeat, Registration, check_process
from control.schemas import read
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

    async def endpoints_put(self, asked: CallRequest) -> CallResponse:
        """Registers, or registers again."""
        key, endpoint_id, identity = _named(asked)
        wanted = read(asked.body, Registration)
        peer: Peer = asked.request.scope[PEER]
        stands, refused = await self._endpoints.register(key, endpoint_id, identity, peer.address, wanted)
        answer = views.RegisteredShown(stands.address, stands.addresses, f"{stands.ttl:g}s", refused)
        where = ", ".join(stands.addresses)
        return CallResponse(body=answer, subject=f"{'/'.join(key)}/{endpoint_id} at {where} of {identity}")

    async def endpoints_heartbeat(self, asked: CallRequest) -> CallResponse:
        """It is there, and so well."""
        key, endpoint_id, identity = _named(asked)
        await self._endpoints.heartbeat(key, endpoint_id, identity, read(asked.body or b"{}", Heartbeat))
        return CallResponse(204)

    async def endpoints_delete(self, asked: CallRequest) -> CallResponse:
        """It goes."""
        key, endpoint_id, identity = _named(asked)
        process = check_process(asked.request.query_params.get("process", ""))
        await self._endpoints.deregister(key, endpoint_id, identity, process)
        return CallResponse(204, subject=f"{'/'.join(key)}/{endpoint_id} of {identity}")

    # -- for people --------------------------------------------------------------------------------------------------

    async def services_list(self, asked: CallRequest) -> CallResponse:
        """A page of the services, or of those of one namespace."""
        query = asked.request.query_params
        wanted = Wanted.read(query)
        effective = self._documents.state.effective
        keys = [key for key in serving_rights.services(effective) if query.get("namespace", key[0]) == key[0]]
        found, after = page(keys, "/".join, wanted)
        items = [self._shown(effective["Service", *key]) for key in found]
        return CallResponse(body=views.ServiceList(items, str(Mark(after)) if after else ""))

    async def services_get(self, asked: CallRequest) -> CallResponse:
        """One service."""
        key = _key(asked)
        document = serving_rights.document_of(self._documents.state.effective, key)
        if document is None:
            raise Invalid(f"there is no service {key[1][:63]!r} in namespace {key[0][:63]!r}", 404)
        return CallResponse(body=self._shown(document))

    def _shown(self, document: Document) -> views.ServiceShown:
        key = document.metadata.namespace, document.metadata.name
        registry = self._registry
        return views.service(
            document,
            registry.virtual(*key),
            registry.endpoints(*key),
            registry.hearings(*key),
            self._clock(),
            self._monotonic(),
        )


def _key(asked: CallRequest) -> Key:
    told = asked.request.path_params
    return told["namespace"], told["name"]


def _named(asked: CallRequest) -> tuple[Key, str, SpiffeId]:
    """The service, the endpoint's id, and who asks."""
    identity = asked.who.identity
    assert identity is not None  # the table lets only workloads in, and they have one
    return _key(asked), asked.request.path_params["id"], identity
