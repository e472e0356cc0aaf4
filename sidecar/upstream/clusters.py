"""The clusters that the app calls: one for each port of a service, one for each port of a service entry, and one for
all other destinations. Kept in step with the Snapshot.

Called by ``proxy.route_table``, which finds the destination of a request. A cluster is made when it is first called,
and follows the Snapshot from then on: ten thousand services that the app does not call cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Protocol

from sidecar.addresses import Address
from sidecar.errors import Reason
from sidecar.net.connection import Connection
from sidecar.net.connection_pool import Limits, PoolCounters
from sidecar.resources.snapshot import Endpoint, EntryPort, ServicePort, Snapshot
from sidecar.upstream.cluster import Cluster, Terms
from sidecar.upstream.plaintext import PlaintextConnector
from sidecar.upstream.transport import Mtls, Plaintext

PASSTHROUGH: Final = "PassthroughCluster"
# Nothing of the request has been sent then, so the next endpoint may be tried.
_NOT_REACHED: Final = frozenset(
    {Reason.CONNECT_FAILED, Reason.CONNECT_TIMEOUT, Reason.UPSTREAM_HANDSHAKE, Reason.UPSTREAM_IDENTITY}
)
_NOT_REACHED_OUTSIDE: Final = frozenset(
    {Reason.CONNECT_FAILED, Reason.CONNECT_TIMEOUT, Reason.DNS_FAILED, Reason.BLACK_HOLE}
)


class MeshConnector(Protocol):
    """See ``upstream.mtls``, which imports OpenSSL."""

    async def connect(self, endpoint: Endpoint, transport: Mtls, seconds: float, *, opaque: bool) -> Connection: ...


class Clusters:
    """The clusters of one process. ``mesh`` dials services; None outside of a mesh. ``patience`` is how many seconds a
    connection may take."""

    def __init__(
        self,
        limits: Limits,
        patience: float,
        counters: PoolCounters,
        plaintext: PlaintextConnector,
        mesh: MeshConnector | None,
    ) -> None:
        self._limits = limits
        self._patience = patience
        self._counters = counters
        self._plaintext = plaintext
        self._mesh = mesh
        self._services: dict[str, tuple[Cluster[Endpoint], ServicePort]] = {}
        self._entries: dict[tuple[str, int], tuple[Cluster[Address], EntryPort]] = {}
        self.passthrough: Cluster[Address] = Cluster(
            self._terms(PASSTHROUGH, "the outside", frozenset()), self._connect_outside, counters
        )

    def of_service(self, port: ServicePort) -> Cluster[Endpoint]:
        """Return the cluster of a port of a service, by the Snapshot in force."""
        name = str(port)
        known = self._services.get(name)
        if known is not None:
            return known[0]
        mesh, transport = self._mesh, Mtls(port.identities, port.sni)
        assert mesh is not None
        made: Cluster[Endpoint] = Cluster(
            self._terms(cluster_name(port), name, _NOT_REACHED, tuple(sorted(map(str, port.identities)))),
            lambda endpoint, seconds: mesh.connect(endpoint, transport, seconds, opaque=False),
            self._counters,
            connect_opaque=lambda endpoint, seconds: mesh.connect(endpoint, transport, seconds, opaque=True),
            places=port.endpoints,
        )
        self._services[name] = made, port
        return made

    def of_entry(self, port: EntryPort) -> Cluster[Address]:
        """Return the cluster of a port of a service entry's host. If the entry has no endpoints, requests name
        theirs."""
        key = port.host, port.port
        known = self._entries.get(key)
        if known is not None:
            return known[0]
        connector, transport = self._plaintext, Plaintext(f"the service entry of {port}")
        made: Cluster[Address] = Cluster(
            self._terms(cluster_name(port), str(port), _NOT_REACHED_OUTSIDE),
            lambda place, seconds: connector.connect(place, transport, seconds),
            self._counters,
            places=port.places,
        )
        self._entries[key] = made, port
        return made

    def follow(self, snapshot: Snapshot) -> None:
        """Apply a new Snapshot. Clusters get their endpoints; those whose ports are gone, or are served by other
        workloads now, finish what they carry."""
        for name, (cluster, port) in list(self._services.items()):
            now = _same(snapshot, port)
            if now is None or (now.identities, now.sni, now.protocol) != (port.identities, port.sni, port.protocol):
                del self._services[name]
                cluster.close()
            elif now is not port:
                cluster.take(now.endpoints)
                self._services[name] = cluster, now
        for key, (entries, entry) in list(self._entries.items()):
            known = snapshot.hosts.get(key[0].encode(), {}).get(key[1])
            if known is None or snapshot.by_name(entry.host) is not None:
                del self._entries[key]
                entries.close()
            elif known is not entry:
                if (known.places, known.resolution) != (entry.places, entry.resolution):
                    entries.renew()
                entries.take(known.places)
                self._entries[key] = entries, known
        joined = self._plaintext.joined(snapshot)
        if joined is None or joined:
            for each in (self.passthrough, *[cluster for cluster, _ in self._entries.values()]):
                if joined is None:
                    each.renew()
                else:
                    each.renew_at(joined)

    def renew(self) -> None:
        """Let no existing connection to a service be used again: our identity has changed."""
        for cluster, _ in self._services.values():
            cluster.renew()

    @property
    def called(self) -> list[Cluster[Any]]:
        """The clusters of services and of service entries."""
        return [*[each for each, _ in self._services.values()], *[each for each, _ in self._entries.values()]]

    def __iter__(self) -> Iterator[Cluster[Any]]:
        yield self.passthrough
        yield from self.called

    def sweep(self, now: float) -> None:
        """Close connections that have been idle for too long."""
        for cluster in self:
            cluster.sweep(now)

    def close(self) -> None:
        """Close idle connections."""
        for cluster in self:
            cluster.close()

    def _terms(self, name: str, shown: str, next_on: frozenset[Reason], identities: tuple[str, ...] = ()) -> Terms:
        return Terms(name, shown, self._limits, self._patience, next_on, identities)

    async def _connect_outside(self, place: Address, seconds: float) -> Connection:
        return await self._plaintext.connect(place, Plaintext(str(place)), seconds)


def cluster_name(port: ServicePort | EntryPort) -> str:
    """Return the name of a port's cluster, in Envoy's form."""
    return f"outbound|{port.port}||{port.host}"


def _same(snapshot: Snapshot, port: ServicePort) -> ServicePort | None:
    """Return the same port in this Snapshot, or None."""
    service = snapshot.services.get((port.namespace, port.service))
    found = None if service is None else service.ports.get(port.port)
    return found if found is not None and found.trust_domain == port.trust_domain else None
