"""Whom the app calls by a service entry: a host without a sidecar, in plaintext, since an operator's document says so.

Called by ``services``, which asks for a service of the mesh first. This is the only place where a document leads to a
destination that no identity is asked of. It can't lead to a service: an entry's port is another type than a service's,
and whatever address it comes to is held against the mesh's own before it is dialed, each time.
"""

from __future__ import annotations

from time import monotonic
from typing import Final

from sidecar.addresses import Address, OriginalDst
from sidecar.errors import ProxyError, Reason
from sidecar.net.channel import Channel
from sidecar.net.dial import dial
from sidecar.net.listener import is_own
from sidecar.net.pool import Lease
from sidecar.policy.authorize import Permit, authorize_outbound
from sidecar.policy.recent import Failures
from sidecar.proxy.callee import WAIT_SECONDS, Callee
from sidecar.proxy.destination import Destination
from sidecar.proxy.forwarding import Forwarder
from sidecar.proxy.leave import Leave
from sidecar.proxy.mesh import ATTEMPT_SECONDS
from sidecar.proxy.shared import Shared
from sidecar.proxy.sniff import Sniffed
from sidecar.proxy.streams import ServerStream
from sidecar.resources.snapshot import EntryPort
from sidecar.telemetry.record import Record
from sidecar.wire.head import authority_parts
from sidecar.wire.message import Request

_NEXT: Final = frozenset({Reason.CONNECT_FAILED, Reason.CONNECT_TIMEOUT, Reason.DNS_FAILED, Reason.BLACK_HOLE})


class EntryCallee(Callee):
    """A port of an entry's host as the app calls it. ``address`` is what it called: a name, or where a captured
    connection was going. ``chosen``: the app alone chose that address, and says a name of the entry there."""

    def __init__(
        self,
        address: OriginalDst,
        port: EntryPort,
        forwarder: Forwarder,
        shared: Shared,
        leave: Leave,
        *,
        original: str,
        chosen: bool,
    ) -> None:
        self.port = port
        self._chosen = chosen
        self._retired = False
        self._turn = 0
        self._failures: Failures[Address] = Failures()
        super().__init__(address, forwarder, shared, leave)
        self.original = original
        self.protocol = port.protocol
        self.cluster = f"outbound|{port.port}||{port.host}"

    def take(self, port: EntryPort) -> None:
        """The same port as a newer Snapshot has it."""
        if (port.places, port.resolution) != (self.port.places, self.port.resolution):
            self.destination.renew()
        self.port = port
        self.protocol = port.protocol

    def retire(self) -> None:
        """The entry is gone, or a service has taken its place: whoever holds on to this gets nowhere."""
        self._retired = True
        self.destination.close()

    def permit_named(self) -> Permit:
        return self._permit(True)

    async def permit_request(self, request: Request) -> Permit:
        return await self._permit_name(authority_parts(request.authority)[0])

    async def permit(self, found: Sniffed) -> Permit:
        return await self._permit_name(found.sni.decode("ascii", "replace"))

    async def lease_early(self) -> Lease:
        self._permit(not self._chosen or self._allowed())
        return await self.destination.fresh_at_once()

    async def forward(self, stream: ServerStream, request: Request, record: Record, permit: Permit) -> None:
        record.cluster = self.cluster
        await super().forward(stream, request, record, permit)

    def _permit(self, allowed: bool) -> Permit:
        if self._retired:
            raise ProxyError(Reason.NO_ROUTE, f"the service entry of {self.port} is gone")
        return super()._permit(allowed)

    async def _permit_name(self, name: str) -> Permit:
        """A name that is said on a connection to an address of the app's choice has to lead there, as with
        --allow-host."""
        if not self._chosen or self._allowed():
            return self._permit(True)
        return self._permit(self.address.host in await self._shared.resolver.resolve(name))

    def _made(self) -> Destination:
        return Destination(str(self.port), self._dial, self._shared, wait_seconds=WAIT_SECONDS, apart=False)

    async def _dial(self) -> Channel:
        """To the first of its places that can be reached. Raises ProxyError."""
        places = self.port.places or (self._place(),)
        self._turn += 1
        began, patience = monotonic(), self._shared.connect_timeout
        for number, place in enumerate(self._failures.in_turn(places, self._turn, began), 1):
            last = number == len(places)
            try:
                return await self._dial_place(place, patience if last else min(ATTEMPT_SECONDS, patience))
            except ProxyError as error:
                if error.reason not in _NEXT:
                    raise
                self._failures.note(place, monotonic())
                if last or monotonic() > began + patience:
                    raise
        raise AssertionError("unreachable")

    def _place(self) -> Address:
        """Where it is dialed that has no endpoints. Raises ProxyError(NO_ENDPOINT)."""
        port = self.port
        if port.resolution == "NONE":
            return self.address
        if port.resolution == "DNS":
            name = self.address.host if self.address.ip is None else port.host
            if not name.startswith("*."):
                return Address(name, port.target)
        raise ProxyError(Reason.NO_ENDPOINT, f"the service entry of {port} has no endpoint, and no name to look up")

    async def _dial_place(self, place: Address, seconds: float) -> Channel:
        shared = self._shared
        found = await self._dialed.look_up(shared, place.host, place.port, f"the service entry of {self.port}")
        own = any(is_own(shared.listeners, host, place.port) for host in found)
        authorize_outbound(loopback=True, destination_is_own=own)
        return await dial(found, place.port, timeout=seconds, registry=shared.channels)
