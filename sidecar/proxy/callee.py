"""Whom the app calls: one host and port, explicitly or captured, and who may go there.

Called by ``outbound``. An explicit request is dialed by its name, which is looked up here; a captured connection goes
to the address that it was made to, whatever name is spoken on it.
"""

from __future__ import annotations

import typing
from functools import partial
from typing import Final

from sidecar.addresses import OriginalDst
from sidecar.errors import ProxyError, Reason
from sidecar.net.channel import Channel
from sidecar.net.dial import dial
from sidecar.net.listener import is_own
from sidecar.net.pool import Lease
from sidecar.policy.authorize import Permit, authorize_outbound
from sidecar.policy.egress import Egress
from sidecar.proxy.destination import Destination
from sidecar.proxy.exchange import exchange
from sidecar.proxy.forwarding import Forwarder
from sidecar.proxy.leave import Leave
from sidecar.proxy.opaque import switch
from sidecar.proxy.shared import Shared
from sidecar.proxy.sniff import Sniffed
from sidecar.proxy.streams import ServerStream
from sidecar.resources.protocols import Protocol
from sidecar.resources.snapshot import Snapshot
from sidecar.telemetry.record import Record
from sidecar.wire.head import authority_parts
from sidecar.wire.message import Request

WAIT_SECONDS = 3.0  # for a connection to a destination (F13)
MOST_PLACES: Final = 64  # that are remembered of a callee; a name leads to a handful


class Callee:
    """A ``Target``, for captured connections; for explicit requests, ``forward`` and ``permit_named``."""

    direction = "outbound"
    protocol: Protocol = "auto"
    cluster = ""
    vouches = False

    def __init__(self, address: OriginalDst, forwarder: Forwarder, shared: Shared, leave: Leave) -> None:
        self.guide: Guide = _Nowhere()
        self.address = address
        self.original = str(address)
        self._shared = shared
        self._forwarder = forwarder
        self._leave = leave
        self._judged: Egress | None = None  # by which ``_verdict`` was found
        self._verdict = False
        self._dialed = Dialed()
        self.destination = self._made()

    def permit_address(self) -> None:
        """Refuses a captured connection to a listener of ours, before anything is read of it. Raises ProxyError."""
        authorize_outbound(loopback=True, destination_is_own=self._is_own())

    def permit_named(self) -> Permit:
        """Leave for whoever named this host and port itself, and so goes where we find it. Raises ProxyError."""
        return self._permit(self._allowed())

    async def forward(self, stream: ServerStream, request: Request, record: Record, permit: Permit) -> None:
        """Forwards one request and its reply. Raises ProxyError."""
        fields = self._forwarder.fields(stream, request, record)
        switched = await exchange(stream, request, fields, self.destination.origin, permit, record)
        if switched is not None:
            await switch(stream, switched.upstream, switched.head, record, self._shared)

    async def permit_request(self, request: Request) -> Permit:
        """Leave for a request of a captured connection, whose name has to lead where that goes. Raises ProxyError."""
        return self._permit(self._allowed() or await self._allows_as(authority_parts(request.authority)[0]))

    # -- captured: see Target ----------------------------------------------------------------------------------------

    def trusts(self, host: str) -> bool:
        return False

    async def lease_early(self) -> Lease:
        self.permit_named()  # nobody has said a name yet: the address has to be enough
        return await self.destination.fresh_at_once()

    async def permit(self, found: Sniffed) -> Permit:
        return self._permit(self._allowed() or await self._allows_as(found.sni.decode("ascii", "replace")))

    def led_by(self, name: bytes) -> Callee:
        return self.guide.by_name(self, name) or self

    async def handle(self, stream: ServerStream, request: Request, record: Record) -> None:
        if request.method == b"CONNECT" or request.absolute:
            raise ProxyError(Reason.METHOD_REFUSED, "a proxy request inside a tunnel or a captured connection")
        callee = self.guide.by_request(self, request) or self
        await callee.forward(stream, request, record, await callee.permit_request(request))

    async def _allows_as(self, name: str) -> bool:
        """Whether the name said on a captured connection is an allowed one, and leads to where that goes."""
        egress, address = self._leave.egress, self.address
        if not egress.allows(name, address.port):
            return False
        resolved = await self._shared.resolver.resolve(name)
        return egress.allows_as(name, resolved, address.host, address.port)

    # -- both --------------------------------------------------------------------------------------------------------

    def _made(self) -> Destination:
        dial_it = partial(
            _dial, self.address, self._shared, self._dialed
        )  # no bound method: whoever makes room is gone at once
        return Destination(self.original, dial_it, self._shared, wait_seconds=WAIT_SECONDS, apart=False)

    def _permit(self, allowed: bool) -> Permit:
        if self._shared.mesh is not None and self._dialed.has_joined(self._shared.mesh.snapshot):
            self.destination.renew()
        return authorize_outbound(
            loopback=True, destination_is_own=self._is_own(), allowed=allowed, configured=self._leave.configured
        )

    def _allowed(self) -> bool:
        """Whether the policy of this moment lets anybody go there who names it as it stands."""
        egress = self._leave.egress
        if egress is not self._judged:
            self._judged = egress
            self._verdict = egress.allows(self.address.host, self.address.port)
        return self._verdict

    def _is_own(self) -> bool:
        return is_own(self._shared.listeners, self.address.host, self.address.port)


class Dialed:
    """Where one callee was dialed as the app speaks. What was nobody's then may be a service's later: then connections
    that are there are not used again."""

    __slots__ = ("_places", "_seen")

    def __init__(self) -> None:
        self._places: set[tuple[str, int]] = set()
        self._seen: Snapshot | None = None

    def has_joined(self, snapshot: Snapshot) -> bool:
        """Whether one of these places belongs to the mesh now, and did not when this was asked last."""
        if snapshot is self._seen:
            return False
        self._seen = snapshot
        joined = {place for place in self._places if snapshot.of_mesh(*place) is not None}
        self._places -= joined
        return bool(joined)

    async def look_up(self, shared: Shared, host: str, port: int, called: str) -> list[str]:
        """The addresses to dial. None of them may be where a service of the mesh is, and ``host`` may not be a
        service's name, whoever came upon it: that is looked at for each connection. Raises ProxyError."""
        if shared.mesh is None:
            return await shared.resolver.resolve(host)
        if (service := shared.mesh.snapshot.by_name(host)) is not None:
            raise _of_mesh(called, f"service {service.name} of namespace {service.namespace}")
        found = await shared.resolver.resolve(host)
        snapshot = shared.mesh.snapshot
        for each in found:
            if (known := snapshot.of_mesh(each, port)) is not None:
                raise _of_mesh(called, str(known))
        if len(self._places) + len(found) > MOST_PLACES:
            self._places.clear()
        self._places.update((each, port) for each in found)
        return found


def _of_mesh(called: str, known: str) -> ProxyError:
    return ProxyError(
        Reason.BLACK_HOLE, f"{called} leads to {known}, which is never spoken to in plaintext; call it by its own name"
    )


async def _dial(address: OriginalDst, shared: Shared, dialed: Dialed) -> Channel:
    """Raises ProxyError."""
    found = await dialed.look_up(shared, address.host, address.port, str(address))
    # Judged for each connection: a name may lead somewhere else than it did for the last one.
    authorize_outbound(
        loopback=True, destination_is_own=any(is_own(shared.listeners, host, address.port) for host in found)
    )
    return await dial(found, address.port, timeout=shared.connect_timeout, registry=shared.channels)


class Guide(typing.Protocol):
    """Who knows whether a name that is said on a captured connection leads elsewhere. None: it goes where it was
    going."""

    def by_request(self, callee: Callee, request: Request) -> Callee | None:
        """By the request's authority. Raises ProxyError(NO_ROUTE)."""
        ...

    def by_name(self, callee: Callee, name: bytes) -> Callee | None:
        """By the server name of a TLS handshake."""
        ...


class _Nowhere:
    """Without a mesh no name leads elsewhere."""

    def by_request(self, callee: Callee, request: Request) -> Callee | None:
        return None

    def by_name(self, callee: Callee, name: bytes) -> Callee | None:
        return None
