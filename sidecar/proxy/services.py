"""The services of the mesh and the hosts of service entries as the app calls them: who is asked before anybody else.

Called by ``outbound``, and by ``callee`` for names that are said on captured connections. A name or an address that
leads to a service never leads to an entry. A new Snapshot is taken up by those that were called so far, and by nobody
else: ten thousand services that the app does not call cost it nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from sidecar.addresses import OriginalDst
from sidecar.errors import ProxyError, Reason
from sidecar.proxy.callee import Callee
from sidecar.proxy.destination import Destinations
from sidecar.proxy.entry import EntryCallee
from sidecar.proxy.forwarding import Forwarder
from sidecar.proxy.leave import Leave
from sidecar.proxy.mesh import MeshCallee
from sidecar.proxy.secure import Mesh
from sidecar.proxy.shared import Shared
from sidecar.resources.snapshot import EntryPort, ServicePort, Snapshot
from sidecar.resources.virtual import is_virtual
from sidecar.wire.head import authority_parts
from sidecar.wire.message import Request

_SPELLINGS: Final = 4096  # of names of services that are remembered; a service has a handful

_MeshKey = tuple[str, OriginalDst | None]  # the service port, and where a captured connection to it was going
_EntryKey = tuple[str, int, OriginalDst, str, bool]  # host and port; what was called, on its way to where; chosen


class Services:
    """``leave`` learns of each Snapshot here. A ``Guide``."""

    def __init__(self, mesh: Mesh, forwarder: Forwarder, shared: Shared, leave: Leave) -> None:
        self._mesh = mesh
        self._forwarder = forwarder
        self._shared = shared
        self._leave = leave
        self._callees: dict[_MeshKey, MeshCallee] = {}
        self._named: dict[tuple[str, int], MeshCallee] = {}  # as they were called, for the Snapshot that was seen
        self._no_service: dict[tuple[str, int], EntryPort | None] = {}  # likewise
        self._entries: Destinations[_EntryKey, EntryCallee] = Destinations(self._made)
        self._seen: Snapshot | None = None
        mesh.secure.identity.follow(lambda _: self._renew())

    def named(self, host: str, port: int) -> Callee | None:
        """The service, or else the entry, that this authority names. Raises ProxyError(NO_ROUTE) for a service that has
        no such port: what bears its name is never reached in another way."""
        if self._mesh.snapshot is self._seen and (known := self._named.get((host, port))) is not None:
            return known  # as nearly always
        if (known := self._service(host, port)) is not None:
            return known
        entry = self._no_service[host, port]
        return None if entry is None else self._entry(entry, OriginalDst(host, port), "", chosen=False)

    def at(self, original: OriginalDst) -> Callee | None:
        """The service, or else the entry, at this original destination. Raises ProxyError(NO_ROUTE) for an address that
        could stand for a service only, and does not."""
        self._follow()
        snapshot = self._mesh.snapshot
        port = snapshot.by_address(original.host, original.port)
        if port is not None:
            return self._callee(port, original)
        entry = snapshot.entry_by_address(original.host, original.port)
        if entry is not None:
            return self._entry(entry, original, str(original), chosen=False)
        if self._leave.configured and is_virtual(original.host):
            raise ProxyError(
                Reason.NO_ROUTE, f"{original} stands for no port of a service; a look-up may be out of date"
            )
        return None

    # -- names that are said on captured connections: see Guide ------------------------------------------------------

    def by_request(self, callee: Callee, request: Request) -> Callee | None:
        """See ``Guide``."""
        host, port = authority_parts(request.authority)
        return self._service(host, port or 80) or self._led(callee, host, port or 80)

    def by_name(self, callee: Callee, name: bytes) -> Callee | None:
        """See ``Guide``. Entries alone: what is a service's, and yet on its way elsewhere, goes where it was going."""
        self._follow()
        host, port = name.decode("ascii", "replace"), callee.address.port
        if self._mesh.snapshot.by_name(host) is not None:
            return None
        self._no_service[host, port] = self._mesh.snapshot.entry_by_authority(host, port)
        return self._led(callee, host, port)

    def _led(self, callee: Callee, host: str, port: int) -> Callee | None:
        entry = self._no_service.get((host, port))
        if entry is None:
            return None
        if entry.resolution != "NONE":
            return self._entry(entry, OriginalDst(host, port), callee.original, chosen=False)
        if isinstance(callee, MeshCallee):
            return None  # on its way to a service, whatever it says
        return self._entry(entry, callee.address, callee.original, chosen=True)

    # -- those that were called --------------------------------------------------------------------------------------

    def _service(self, host: str, port: int) -> MeshCallee | None:
        """Likewise; whoever gets None finds in ``_no_service`` whether it is an entry's."""
        snapshot = self._mesh.snapshot
        if snapshot is self._seen:
            if (known := self._named.get((host, port))) is not None:
                return known
            if (host, port) in self._no_service:
                return None
        else:
            self._refresh()
        found = snapshot.by_authority(host, port)
        if found is None:
            if snapshot.by_name(host) is not None:
                raise ProxyError(Reason.NO_ROUTE, f"the service is known, and has no port {port}")
            if len(self._no_service) >= _SPELLINGS:
                self._no_service.clear()
            self._no_service[host, port] = snapshot.entry_by_authority(host, port)
            return None
        callee = self._callee(found, None)
        if len(self._named) < _SPELLINGS:
            self._named[host, port] = callee
        return callee

    def _callee(self, port: ServicePort, original: OriginalDst | None) -> MeshCallee:
        key = str(port), original
        found = self._callees.get(key)
        if found is None:
            address = OriginalDst(port.host, port.port)
            found = self._callees[key] = MeshCallee(
                address, port, str(original or ""), self._forwarder, self._mesh.secure, self._shared, self._leave
            )
        return found

    def _entry(self, port: EntryPort, called: OriginalDst, original: str, *, chosen: bool) -> EntryCallee:
        return self._entries.find((port.host, port.port, called, original, chosen))

    def _made(self, key: _EntryKey) -> EntryCallee:
        host, number, called, original, chosen = key
        made = EntryCallee(
            called,
            self._mesh.snapshot.hosts[host.encode()][number],
            self._forwarder,
            self._shared,
            self._leave,
            original=original,
            chosen=chosen,
        )
        made.guide = self
        return made

    # -- a new Snapshot ----------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        if self._mesh.snapshot is not self._seen:
            self._refresh()

    def _refresh(self) -> None:
        """A new Snapshot: callees learn of their ports' endpoints; those of ports that are gone, or are now served by
        somebody else, begin anew."""
        self._seen = snapshot = self._mesh.snapshot
        self._leave.take(snapshot)
        self._named.clear()
        self._no_service.clear()
        for key, callee in list(self._callees.items()):
            port = _now(snapshot, callee.port)
            if port is not None and (port.identities, port.sni, port.protocol) == callee.terms:
                callee.take(port)
            else:
                self._callees.pop(key).retire(port)
        for place, entry in list(self._entries.items()):
            known = snapshot.hosts.get(place[0].encode(), {}).get(place[1])
            if known is None or _is_of_mesh(snapshot, entry.address, known):
                self._entries.drop(place)
                entry.retire()
            else:
                entry.take(known)

    def _renew(self) -> None:
        for callee in self._callees.values():
            callee.destination.renew()

    def values(self) -> Iterable[Callee]:
        """All that were called so far."""
        return [*self._callees.values(), *self._entries.values()]

    def sweep(self, now: float) -> None:
        """Closes connections that have been idle for too long, and follows the Snapshot where nobody asks."""
        self._follow()
        for key, callee in list(self._callees.items()):
            callee.destination.sweep(now)
            if callee.destination.at_rest and not self._leads(key):
                self._callees.pop(key).destination.close()
        self._entries.sweep(now)

    def _leads(self, key: _MeshKey) -> bool:
        """Whether that address still stands for the service port; those of endpoints come and go."""
        name, original = key
        if original is None:
            return True
        port = self._mesh.snapshot.by_address(original.host, original.port)
        return port is not None and str(port) == name

    def close(self) -> None:
        """Closes idle connections."""
        for callee in self._callees.values():
            callee.destination.close()
        self._entries.close()


def _now(snapshot: Snapshot, port: ServicePort) -> ServicePort | None:
    """The same port in this Snapshot."""
    service = snapshot.services.get((port.namespace, port.service))
    found = None if service is None else service.ports.get(port.port)
    return found if found is not None and found.trust_domain == port.trust_domain else None


def _is_of_mesh(snapshot: Snapshot, called: OriginalDst, port: EntryPort) -> bool:
    """Whether what an entry stood for is a service's by now."""
    if snapshot.by_name(called.host) is not None or snapshot.by_name(port.host) is not None:
        return True
    return any(snapshot.of_mesh(place.host, place.port) is not None for place in (called, *port.places))
