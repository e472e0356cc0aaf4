"""The routes and destinations of a Snapshot, compiled: one value for the data plane. Pure.

Called by ``feed.policy_rules``, in slices, before a Snapshot is taken; ``proxy.route_table`` reads the result.
"""

from __future__ import annotations

from collections.abc import Generator

import msgspec

from sidecar.policy.backends import Backends
from sidecar.policy.virtual_hosts import VirtualHosts, compile_virtual_hosts
from sidecar.resources.snapshot import Snapshot


class Routing(msgspec.Struct, frozen=True):
    """``hosts`` are VirtualServices by their hosts, ``backends`` what is said of destinations."""

    hosts: VirtualHosts
    backends: Backends

    def parts(self) -> list[object]:
        """Return what it is made of, in small pieces, so that it can be freed piece by piece."""
        found: list[object] = []
        for host in self.hosts.all:
            found += host.parts()
        return found


def compile_routing(snapshot: Snapshot) -> Generator[None, None, Routing]:
    """Compile what this Snapshot has of VirtualServices, DestinationRules and BackendTrafficPolicies."""
    me = snapshot.me
    hosts = yield from compile_virtual_hosts(snapshot.virtual_services, me.namespace, snapshot.labels)
    backends = Backends(me.namespace)
    yield from backends.fill(snapshot.destination_rules, snapshot.backend_policies)
    return Routing(hosts, backends)
