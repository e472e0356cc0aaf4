"""Whom the app calls within the mesh: a port of a service, at its endpoints, over mutual TLS.

Called by ``services`` for destinations that the Snapshot knows. There are two ways to dial, since ALPN says what is
inside: HTTP for the pool, opaque bytes one to one. All endpoints of a port have the same identities, server name and
ALPN, so their connections share a pool. ``secure`` dials them.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Final

import msgspec

from certs.spiffe import SpiffeId
from sidecar.addresses import Address, OriginalDst
from sidecar.errors import ProxyError, Reason
from sidecar.identity import ALPN_DETECT, ALPN_HTTP1, ALPN_OPAQUE
from sidecar.net.channel import Channel
from sidecar.net.pool import Lease
from sidecar.policy.authorize import Permit, authorize_service
from sidecar.policy.recent import Failures
from sidecar.proxy.callee import Callee
from sidecar.proxy.destination import Destination
from sidecar.proxy.forwarding import Forwarder
from sidecar.proxy.leave import Leave
from sidecar.proxy.secure import Secure
from sidecar.proxy.shared import Shared
from sidecar.proxy.sniff import Sniffed
from sidecar.proxy.streams import ServerStream
from sidecar.resources.snapshot import Endpoint, ServicePort
from sidecar.telemetry.record import Record
from sidecar.wire.message import Request

WAIT_SECONDS: Final = 3.0  # for a connection to an endpoint (F13)
ATTEMPT_SECONDS: Final = 1.0  # for one endpoint to answer, while there are others to try
HTTP_OFFER: Final = (ALPN_HTTP1, ALPN_DETECT, b"http/1.1")
OPAQUE_OFFER: Final = (ALPN_OPAQUE, ALPN_DETECT)
# Nothing of the request has been seen by anybody then: the next endpoint may have it.
_NOT_REACHED: Final = frozenset(
    {Reason.CONNECT_FAILED, Reason.CONNECT_TIMEOUT, Reason.UPSTREAM_HANDSHAKE, Reason.UPSTREAM_IDENTITY}
)


class MeshCallee(Callee):
    """A port of a service as the app calls it, explicitly or captured. New connections go to its endpoints in turn, and
    to the next one where one can't be reached."""

    vouches = True

    def __init__(
        self,
        address: OriginalDst,
        port: ServicePort,
        original: str,
        forwarder: Forwarder,
        secure: Secure,
        shared: Shared,
        leave: Leave,
    ) -> None:
        self.port = port
        self._secure = secure
        self._turn = 0
        self._failures: Failures[Endpoint] = Failures()
        super().__init__(address, forwarder, shared, leave)
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
            before, now = set(self.port.endpoints), set(port.endpoints)
            there = _peers(now - before)
            self.destination.leave(_peers(before - now) - there, there)
        self.port = port

    def retire(self, port: ServicePort | None) -> None:
        """Others serve this port from now on, or (None) nobody does. Whoever holds on to this gets to them alone."""
        self.destination.close()
        self.port = msgspec.structs.replace(self.port, endpoints=()) if port is None else port

    async def forward(self, stream: ServerStream, request: Request, record: Record, permit: Permit) -> None:
        record.cluster = self.cluster
        await super().forward(stream, request, record, permit)

    def permit_address(self) -> None:
        """See ``Callee``: whatever is dialed is an endpoint of the service."""

    def permit_named(self) -> Permit:
        return authorize_service(known=bool(self.port.identities))

    async def permit(self, found: Sniffed) -> Permit:
        return self.permit_named()

    def led_by(self, name: bytes) -> Callee:
        return self

    async def lease_early(self) -> Lease:
        return await self.destination.fresh_at_once()

    async def permit_request(self, request: Request) -> Permit:
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
        """To the next endpoint, or the one after it where that can't be reached; all of them together have little more
        than the time that one has. Raises ProxyError."""
        port = self.port
        endpoints = port.endpoints
        if not endpoints:
            raise ProxyError(Reason.NO_ENDPOINT, f"{port} has no endpoint")
        self._turn += 1
        began, patience = monotonic(), self._shared.connect_timeout
        for number, endpoint in enumerate(self._failures.in_turn(endpoints, self._turn, began), 1):
            last = number == len(endpoints)
            seconds = patience if last else min(ATTEMPT_SECONDS, patience)
            try:
                return await self._secure.dial(endpoint, port.identities, port.sni, offer, seconds)
            except ProxyError as error:
                if error.reason not in _NOT_REACHED:
                    raise
                self._failures.note(endpoint, monotonic())
                if last or monotonic() > began + patience:
                    raise
        raise AssertionError("unreachable")


def _peers(endpoints: set[Endpoint]) -> set[str]:
    """What their connections are called, at whichever of their addresses."""
    return {str(Address(address, endpoint.port)) for endpoint in endpoints for address in endpoint.addresses}
