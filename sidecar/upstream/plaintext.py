"""Connections without TLS of our own: to the outside, and to the app beside this proxy.

Called by the clusters of service entries, of all other destinations outside the mesh, and of the app's ports. Whatever
a name or a document leads to, no address of the mesh is dialed here: each connection is checked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from sidecar.addresses import Address
from sidecar.errors import ProxyError, Reason
from sidecar.net.connection import Connection
from sidecar.net.dial import dial, source_for
from sidecar.net.listener import Listener, is_own
from sidecar.net.resolve import Resolver
from sidecar.policy.authorize import refuse_own_listener
from sidecar.resources.snapshot import Snapshot
from sidecar.upstream.transport import Plaintext

MOST_PLACES: Final = 4096  # remembered as dialed; if there are more, all such connections are renewed


class PlaintextConnector:
    """The dialer without TLS of our own. One per process; ``snapshot`` returns the one in force; None outside of a
    mesh."""

    def __init__(
        self,
        resolver: Resolver,
        listeners: Sequence[Listener],
        connections: set[Connection],
        snapshot: Callable[[], Snapshot] | None,
    ) -> None:
        self._resolver = resolver
        self._listeners = listeners
        self._connections = connections
        self._snapshot = snapshot
        self._dialed: dict[tuple[str, int], set[Address]] = {}  # addresses, and the endpoints that were dialed there
        self._remembered = 0  # look-ups since they were forgotten last: as many as ``_dialed`` can have entries
        self._forgot = False

    async def connect(self, place: Address, transport: Plaintext, seconds: float) -> Connection:
        """Return a connection to a name or address. Each connection is judged by where it leads: a name may resolve to
        another address than before.

        Raises ProxyError: what ``net.dial`` and look-ups raise, OWN_LISTENER, BLACK_HOLE for an address of a service.
        """
        found = await self._look_up(place, transport.called)
        refuse_own_listener(any(is_own(self._listeners, host, place.port) for host in found))
        return await dial(found, place.port, timeout=seconds, registry=self._connections)

    async def connect_app(self, place: Address, seconds: float) -> Connection:
        """Return a connection to the app at the name or address of ``--upstream``. Raises ProxyError."""
        found = await self._resolver.resolve(place.host)
        refuse_own_listener(any(is_own(self._listeners, host, place.port) for host in found), app=True)
        return await dial(found, place.port, timeout=seconds, registry=self._connections)

    async def connect_captured_app(self, place: Address, seconds: float) -> Connection:
        """Return a connection to the app that the rules let through: to this address of the pod, from the source
        address that they match. Raises ProxyError."""
        source = source_for(place.host)
        return await dial([place.host], place.port, timeout=seconds, registry=self._connections, source=source)

    def joined(self, snapshot: Snapshot) -> set[Address] | None:
        """Return the endpoints that were dialed at addresses which belong to the mesh now: their connections must not
        be used again. Return None, for all endpoints, if too many were dialed to remember each."""
        if self._forgot:
            self._forgot = False
            return None
        places = [place for place in self._dialed if snapshot.of_mesh(*place) is not None]
        joined: set[Address] = set()
        return joined.union(*[self._dialed.pop(place) for place in places])

    async def _look_up(self, place: Address, called: str) -> list[str]:
        """Return the addresses to dial. None of them may belong to a service of the mesh, and the host may not be a
        service's name: both are checked for each connection."""
        host, port = place.host, place.port
        if self._snapshot is None:
            return await self._resolver.resolve(host)
        if (service := self._snapshot().by_name(host)) is not None:
            raise _of_mesh(called, f"service {service.name} of namespace {service.namespace}")
        found = await self._resolver.resolve(host)
        snapshot = self._snapshot()  # read it after the look-up, which may have taken a while
        for each in found:
            if (known := snapshot.of_mesh(each, port)) is not None:
                raise _of_mesh(called, str(known))
        for each in found:
            self._dialed.setdefault((each, port), set()).add(place)
        self._remembered += len(found)
        if self._remembered > MOST_PLACES:
            self._dialed.clear()
            self._remembered = 0
            self._forgot = True
        return found


def _of_mesh(called: str, known: str) -> ProxyError:
    return ProxyError(
        Reason.BLACK_HOLE, f"{called} leads to {known}, which is never spoken to in plaintext; call it by its own name"
    )
