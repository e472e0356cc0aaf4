"""Which VirtualServices, DestinationRules and BackendTrafficPolicies a proxy sees, and in which order. Pure.

Who calls it: ``visibility``, once the services and entries that the proxy sees are known.

- **VirtualService**. Those of the proxy's own namespace, and those of others that have a host which it sees. Where
  ``exportTo`` is written it decides instead of the hosts: what is exported to the namespace is sent, unless a Sidecar
  document says what is seen; then one of its hosts must be among that. The older counts where two have one host.
- **DestinationRule** and **BackendTrafficPolicy**. Those of the proxy's own namespace; those of the namespace of a
  service or entry that it sees and that they name; those of ROOT_NAMESPACE that name something it sees. ``exportTo``
  bounds all three. A DestinationRule with a ``workloadSelector`` is for workloads of its own namespace with these
  labels; for them it stands in place of those for the same host that have another selector or none, as Istio has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from sidecar.resources.kinds import ROOT_NAMESPACE, DestinationRule
from sidecar.resources.mesh_documents import Mesh, Place
from sidecar.resources.route_tables import RouteTable, Seen

Labels = Mapping[str, str]


def virtual_services(mesh: Mesh, namespace: str, seen: Seen, *, bounded: bool) -> tuple[Place, ...]:
    """The VirtualServices that a proxy of this namespace sees, the one that counts first before others. ``bounded``: a
    Sidecar document says what is seen."""
    table = mesh.virtual_services
    found = table.meaning(seen)
    if not bounded:
        found.update(table.exported.get("*", ()), table.exported.get(namespace, ()))
    found.update(table.by_namespace.get(namespace, ()))
    return tuple(table.permitted(found, namespace))


def destination_rules(mesh: Mesh, namespace: str, seen: Seen, labels: Iterable[Labels]) -> tuple[Place, ...]:
    """The DestinationRules that hold for calls of a proxy of this namespace whose workload has one of these sets of
    labels, in the order of :func:`_ordered`."""
    table = mesh.destination_rules
    own = table.by_namespace.get(namespace, [])
    if not table.selecting.isdisjoint(own):
        own = list(_of_workload(mesh, table, own, list(labels)))
    return _ordered(table, namespace, own, seen)


def backend_policies(mesh: Mesh, namespace: str, seen: Seen) -> tuple[Place, ...]:
    """The BackendTrafficPolicies, likewise."""
    table = mesh.backend_policies
    return _ordered(table, namespace, table.by_namespace.get(namespace, []), seen)


def _ordered(table: RouteTable, namespace: str, own: list[int], seen: Seen) -> tuple[Place, ...]:
    """Those of the caller's namespace, then those of the services' and entries', then those of ROOT_NAMESPACE; of one
    of these ranks the older first."""
    others = [place for place in table.permitted(table.meaning(seen), namespace) if place[0] != namespace]
    last = [place for place in others if place[0] == ROOT_NAMESPACE]
    if last:
        others = [place for place in others if place[0] != ROOT_NAMESPACE]
    return (*table.permitted(own, namespace), *others, *last)


def _of_workload(mesh: Mesh, table: RouteTable, ranks: Iterable[int], labels: list[Labels]) -> Iterator[int]:
    """Of these rules of a namespace, the oldest first, those for a workload with one of these sets of labels; for each
    host those of one selector."""
    documents = mesh.of("DestinationRule")
    chosen: dict[str, Labels] = {}  # by host, the selector of the oldest that is for chosen workloads alone
    matching: list[tuple[str, Labels, int]] = []
    for rank in ranks:
        document = documents[table.places[rank]]
        assert isinstance(document.spec, DestinationRule)
        selector = document.spec.workload_selector
        wanted = {} if selector is None else selector.match_labels
        if wanted and not any(wanted.items() <= one.items() for one in labels):
            continue
        (host,) = mesh.route_hosts(document)
        matching.append((host, wanted, rank))
        if wanted:
            chosen.setdefault(host, wanted)
    return (rank for host, wanted, rank in matching if wanted == chosen.get(host, {}))
