"""The clusters that the app calls: one for each port and subset of a service or a service entry, and one for all other
destinations. Kept in step with the Snapshot.

Called by ``proxy.route_table``, which finds the destination of a request. A cluster is made when it is first called,
and follows the Snapshot from then on: ten thousand services that the app does not call cost nothing. What
DestinationRules say of a cluster (its endpoints' labels, balancing, the budget of its retries) is a ``Backend``; when
it changes, the cluster keeps its connections.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from sidecar.addresses import Address
from sidecar.errors import ProxyError, Reason
from sidecar.net.connection import Connection
from sidecar.net.connection_pool import Limits, PoolCounters
from sidecar.policy.retry_budget import compile_budget
from sidecar.resources.snapshot import Endpoint, EntryPort, ServicePort, Snapshot
from sidecar.upstream.cluster import Cluster, Terms
from sidecar.upstream.plaintext import PlaintextConnector
from sidecar.upstream.transport import Mtls, Plaintext

if TYPE_CHECKING:  # a proxy without such documents does not load these
    from sidecar.policy.backends import Backend, Backends

PASSTHROUGH: Final = "PassthroughCluster"
Labels = tuple[tuple[str, str], ...]
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
        self._backends: Backends | None = None
        self._services: dict[tuple[str, str], _Called] = {}  # by the port's name, and subset
        self._entries: dict[tuple[str, int, str], _Called] = {}
        self.passthrough: Cluster[Address] = Cluster(
            self._terms(PASSTHROUGH, "the outside", frozenset()), self._connect_outside, counters
        )

    def of_service(self, port: ServicePort, subset: str = "") -> Cluster[Endpoint]:
        """Return the cluster of a port of a service, or of a subset of its endpoints, by the Snapshot in force. Raises
        ProxyError(NO_CLUSTER) if there is no such subset."""
        name = str(port)
        known = self._services.get((name, subset))
        if known is not None:
            return known.cluster
        backend = self.backend_of(port, subset)
        mesh, transport = self._mesh, Mtls(port.identities, port.sni)
        assert mesh is not None
        made: Cluster[Endpoint] = Cluster(
            self._terms(cluster_name(port, subset), name, _NOT_REACHED, tuple(sorted(map(str, port.identities)))),
            lambda endpoint, seconds: mesh.connect(endpoint, transport, seconds, opaque=False),
            self._counters,
            connect_opaque=lambda endpoint, seconds: mesh.connect(endpoint, transport, seconds, opaque=True),
        )
        self._services[name, subset] = called = _Called(made, port, subset)
        called.take(port, backend)
        return made

    def of_entry(self, port: EntryPort, subset: str = "") -> Cluster[Address]:
        """Return the cluster of a port of a service entry's host, likewise. If the entry has no endpoints, requests
        name theirs."""
        key = port.host, port.port, subset
        known = self._entries.get(key)
        if known is not None:
            return known.cluster
        backend = self.backend_of(port, subset)
        connector, transport = self._plaintext, Plaintext(f"the service entry of {port}")
        made: Cluster[Address] = Cluster(
            self._terms(cluster_name(port, subset), str(port), _NOT_REACHED_OUTSIDE),
            lambda place, seconds: connector.connect(place, transport, seconds),
            self._counters,
        )
        self._entries[key] = called = _Called(made, port, subset)
        called.take(port, backend)
        return made

    def backend_of(self, port: ServicePort | EntryPort, subset: str = "") -> Backend | None:
        """Return what documents say of a port and subset; None: nothing. Raises ProxyError(NO_CLUSTER) if there is no
        such subset."""
        if self._backends is None and not subset:
            return None
        found = None if self._backends is None else self._backends.of(port.host, port.port, subset, port.namespace)
        if found is None:
            raise ProxyError(
                Reason.NO_CLUSTER, f"no DestinationRule for {port.host} has the subset {subset}, which a route leads to"
            )
        return found

    def follow(self, snapshot: Snapshot, backends: Backends | None = None) -> None:
        """Apply a new Snapshot, and what its documents say of destinations. Clusters get their endpoints; those whose
        ports or subsets are gone, or are served by other workloads now, finish what they carry."""
        self._backends = backends
        for key, called in list(self._services.items()):
            port = called.port
            now = _same(snapshot, port)
            if now is None or (now.identities, now.sni, now.protocol) != (port.identities, port.sni, port.protocol):
                called.close()
                del self._services[key]
            elif not self._refresh(called, now):
                del self._services[key]
        for place, called in list(self._entries.items()):
            entry = called.port
            known = snapshot.hosts.get(place[0].encode(), {}).get(place[1])
            if known is None or snapshot.by_name(entry.host) is not None:
                called.close()
                del self._entries[place]
                continue
            if known is not entry and (known.places, known.resolution) != (entry.places, entry.resolution):
                called.cluster.renew()
            if not self._refresh(called, known):
                del self._entries[place]
        joined = self._plaintext.joined(snapshot)
        if joined is None or joined:
            for each in (self.passthrough, *[called.cluster for called in self._entries.values()]):
                if joined is None:
                    each.renew()
                else:
                    each.renew_at(joined)

    def _refresh(self, called: _Called, now: ServicePort | EntryPort) -> bool:
        """Bring a cluster in step with its port; close it, and return False, if its subset is gone."""
        try:
            backend = self.backend_of(now, called.subset)
        except ProxyError:
            called.close()
            return False
        called.take(now, backend)
        return True

    def renew(self) -> None:
        """Let no existing connection to a service be used again: our identity has changed."""
        for called in self._services.values():
            called.cluster.renew()

    @property
    def called(self) -> list[Cluster[Any]]:
        """The clusters of services and of service entries."""
        return [each.cluster for each in (*self._services.values(), *self._entries.values())]

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


class _Called:
    """A cluster that was called, with the port, the subset and the rules that it follows."""

    __slots__ = ("backend", "cluster", "port", "subset", "taken")

    def __init__(self, cluster: Cluster[Any], port: ServicePort | EntryPort, subset: str) -> None:
        self.cluster = cluster
        self.port: Any = port
        self.subset = subset
        self.backend: Backend | None = None
        self.taken = False

    def take(self, port: ServicePort | EntryPort, backend: Backend | None) -> None:
        """Follow this port and these rules from now on."""
        before = self.backend
        if self.taken and port is self.port and backend == before:
            return
        self.cluster.take(*places_of(port, () if backend is None else backend.labels))
        self.cluster.set_balancing("LEAST_REQUEST" if backend is None else backend.balancing)
        if not self.taken or _budget(backend) != _budget(before):
            self.cluster.set_budget(compile_budget(None) if backend is None else backend.make_budget())
        self.port, self.backend, self.taken = port, backend, True

    def close(self) -> None:
        """Let it finish what it carries."""
        self.cluster.close()


def _budget(backend: Backend | None) -> object:
    return None if backend is None else (backend.budget, backend.ratio)


def places_of(port: ServicePort | EntryPort, labels: Labels) -> tuple[Sequence[Any], tuple[int, ...]]:
    """Return the places of the endpoints that have all of ``labels``, and their weights; no weights: all weigh the
    same."""
    if isinstance(port, ServicePort):
        wanted = set(labels)
        found = [each for each in port.endpoints if wanted <= set(each.labels)] if wanted else port.endpoints
        weights = tuple([each.weight for each in found])
        return tuple([each.place for each in found]), weights if set(weights) - {1} else ()
    if not labels:
        return port.places, port.place_weights if set(port.place_weights) - {1} else ()
    chosen = [number for number, each in enumerate(port.place_labels) if set(labels) <= set(each)]
    weights = tuple([port.place_weights[number] for number in chosen]) if port.place_weights else ()
    return tuple([port.places[number] for number in chosen]), weights if set(weights) - {1} else ()


def cluster_name(port: ServicePort | EntryPort, subset: str = "") -> str:
    """Return the name of a cluster, in Envoy's form."""
    return f"outbound|{port.port}|{subset}|{port.host}"


def _same(snapshot: Snapshot, port: ServicePort) -> ServicePort | None:
    """Return the same port in this Snapshot, or None."""
    service = snapshot.services.get((port.namespace, port.service))
    found = None if service is None else service.ports.get(port.port)
    return found if found is not None and found.trust_domain == port.trust_domain else None
