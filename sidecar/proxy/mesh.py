"""Whom the app calls within the mesh: a port of a service, at its endpoints, over mutual TLS.

Called by ``outbound`` for destinations that the Snapshot knows. There are two ways to dial, since ALPN says what is
inside: HTTP for the pool, opaque bytes one to one. All endpoints of a port have the same identities, server name and
ALPN, so their connections share a pool. ``secure`` dials them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from certs.spiffe import SpiffeId
from sidecar.addresses import OriginalDst
from sidecar.errors import ProxyError, Reason
from sidecar.identity import ALPN_DETECT, ALPN_HTTP1, ALPN_OPAQUE
from sidecar.net.channel import Channel
from sidecar.net.pool import Lease
from sidecar.policy.authorize import Permit, authorize_service
from sidecar.proxy.callee import Callee
from sidecar.proxy.client import ClientStream
from sidecar.proxy.destination import Destination
from sidecar.proxy.forwarding import Forwarder
from sidecar.proxy.secure import Mesh, Secure
from sidecar.proxy.shared import Shared
from sidecar.proxy.sniff import Sniffed
from sidecar.resources.snapshot import ServicePort, Snapshot
from sidecar.telemetry.record import Record
from sidecar.wire.head import RequestHead

WAIT_SECONDS: Final = 3.0  # for a connection to an endpoint (F13)
HTTP_OFFER: Final = (ALPN_HTTP1, ALPN_DETECT, b"http/1.1")
_SPELLINGS: Final = 4096  # of names of services that are remembered; a service has a handful
OPAQUE_OFFER: Final = (ALPN_OPAQUE, ALPN_DETECT)
# Nothing of the request has been seen by anybody then: the next endpoint may have it.
_NOT_REACHED: Final = frozenset({Reason.CONNECT_FAILED, Reason.CONNECT_TIMEOUT, Reason.UPSTREAM_HANDSHAKE})


class MeshCallee(Callee):
    """A port of a service as the app calls it, explicitly or captured. New connections go to its endpoints in turn, and
    to the next one where one can't be reached."""

    def __init__(
        self,
        address: OriginalDst,
        port: ServicePort,
        original: str,
        forwarder: Forwarder,
        secure: Secure,
        shared: Shared,
    ) -> None:
        self.port = port
        self._secure = secure
        self._turn = 0
        super().__init__(address, forwarder, shared)
        self.original = original
        self.protocol = port.protocol
        self.cluster = f"outbound|{port.port}||{port.host}"

    @property
    def terms(self) -> tuple[frozenset[SpiffeId], bytes, str]:
        """What its connections were made on."""
        return self.port.identities, self.port.sni, self.port.protocol

    def take(self, port: ServicePort) -> None:
        """The same port as a newer Snapshot has it. Connections to endpoints that are gone are not used again."""
        if port.endpoints != self.port.endpoints:
            gone = set(self.port.endpoints) - set(port.endpoints)
            if gone:
                self.destination.renew()
        self.port = port

    def retire(self, port: ServicePort | None) -> None:
        """Others serve this port from now on, or (None) nobody does. Whoever holds on to this gets to them alone."""
        self.destination.close()
        self.port = msgspec.structs.replace(self.port, endpoints=()) if port is None else port

    async def forward(self, client: ClientStream, request: RequestHead, record: Record, permit: Permit) -> None:
        record.cluster = self.cluster
        await super().forward(client, request, record, permit)

    def permit_address(self) -> None:
        """See ``Callee``: whatever is dialed is an endpoint of the service."""

    def permit_named(self) -> Permit:
        return authorize_service(known=bool(self.port.identities))

    async def permit(self, found: Sniffed) -> Permit:
        return self.permit_named()

    async def lease_early(self) -> Lease:
        return await self.destination.fresh_at_once()

    async def permit_request(self, request: RequestHead) -> Permit:
        return self.permit_named()

    def _made(self) -> Destination:
        made = Destination(
            str(self.port),
            self._dial,
            self._shared,
            wait_seconds=WAIT_SECONDS,
            apart=True,
            dial_opaque=self._dial_opaque,
        )
        who = tuple(sorted(map(str, self.port.identities)))
        made.pool.identities = made.opaque.identities = who
        return made

    async def _dial(self) -> Channel:
        return await self._dial_one(HTTP_OFFER)

    async def _dial_opaque(self) -> Channel:
        return await self._dial_one(OPAQUE_OFFER)

    async def _dial_one(self, offer: Sequence[bytes]) -> Channel:
        endpoints = self.port.endpoints
        if not endpoints:
            raise ProxyError(Reason.NO_ENDPOINT, f"{self.port} has no endpoint")
        self._turn += 1
        for number in range(len(endpoints)):
            endpoint = endpoints[(self._turn + number) % len(endpoints)]
            try:
                return await self._secure.dial(endpoint, self.port.identities, self.port.sni, offer)
            except ProxyError as error:
                if number + 1 == len(endpoints) or error.reason not in _NOT_REACHED:
                    raise
        raise AssertionError("unreachable")


class Services:
    """The services of the mesh as the app calls them; what ``Outbound`` asks first. ``known`` is the Snapshot of the
    moment."""

    def __init__(self, mesh: Mesh, forwarder: Forwarder, shared: Shared) -> None:
        self._mesh = mesh
        self._forwarder = forwarder
        self._shared = shared
        self._callees: dict[tuple[str, str], MeshCallee] = {}
        self._named: dict[tuple[str, int], MeshCallee] = {}  # as they were called, for the Snapshot that was seen
        self._seen: Snapshot | None = None
        mesh.secure.identity.follow(lambda _: self._renew())

    def named(self, host: str, port: int) -> MeshCallee | None:
        """The service that this authority names. Raises ProxyError(NO_ROUTE) for a service that has no such port: what
        bears its name is never reached in another way."""
        snapshot = self._mesh.snapshot
        if snapshot is self._seen and (known := self._named.get((host, port))) is not None:
            return known
        found = snapshot.by_authority(host, port)
        if found is None and snapshot.by_name(host) is not None:
            raise ProxyError(Reason.NO_ROUTE, f"the service is known, and has no port {port}")
        callee = self._callee(found, "")
        if callee is not None and len(self._named) < _SPELLINGS:
            self._named[host, port] = callee
        return callee

    def at(self, original: OriginalDst) -> MeshCallee | None:
        """The service at this original destination."""
        return self._callee(self._mesh.snapshot.by_address(original.host, original.port), str(original))

    def _callee(self, port: ServicePort | None, original: str) -> MeshCallee | None:
        if self._mesh.snapshot is not self._seen:
            self._refresh()
        if port is None:
            return None
        key = str(port), original
        found = self._callees.get(key)
        if found is None:
            address = OriginalDst(port.host, port.port)
            found = self._callees[key] = MeshCallee(
                address, port, original, self._forwarder, self._mesh.secure, self._shared
            )
        return found

    def _refresh(self) -> None:
        """A new Snapshot: callees learn of their ports' endpoints; those of ports that are gone, or are now served by
        somebody else, begin anew."""
        self._seen = snapshot = self._mesh.snapshot
        self._named.clear()
        now = {str(port): port for service in snapshot.services.values() for port in service.ports.values()}
        for key, callee in list(self._callees.items()):
            port = now.get(key[0])
            if port is not None and (port.identities, port.sni, port.protocol) == callee.terms:
                callee.take(port)
            else:
                self._callees.pop(key).retire(port)

    def _renew(self) -> None:
        for callee in self._callees.values():
            callee.destination.renew()

    def values(self) -> Iterable[MeshCallee]:
        """All that were called so far."""
        return self._callees.values()

    def sweep(self, now: float) -> None:
        """Closes connections that have been idle for too long, and follows the Snapshot where nobody asks."""
        if self._mesh.snapshot is not self._seen:
            self._refresh()
        for callee in self._callees.values():
            callee.destination.sweep(now)

    def close(self) -> None:
        """Closes idle connections."""
        for callee in self._callees.values():
            callee.destination.close()
