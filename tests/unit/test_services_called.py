"""What is kept of services that were called, while their endpoints come and go."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, cast

from sidecar.addresses import OriginalDst
from sidecar.feed.sliced import at_once
from sidecar.net.pipes import Pipes
from sidecar.net.resolve import Resolver
from sidecar.policy.egress import OPEN
from sidecar.proxy.client import Timeouts
from sidecar.proxy.forwarding import Forwarder
from sidecar.proxy.leave import Leave
from sidecar.proxy.secure import Mesh
from sidecar.proxy.services import Services
from sidecar.proxy.shared import Shared
from sidecar.resources.slices import compile_slices
from sidecar.resources.snapshot import Me, Snapshot
from sidecar.telemetry.memory import MemoryGuard
from sidecar.telemetry.telemetry import Telemetry


class _Mesh:
    """As much of a mesh as is looked at; it is its own ``secure`` and ``identity``."""

    def __init__(self) -> None:
        self.snapshot = with_endpoint("10.0.0.1")

    def __getattr__(self, name: str) -> Any:
        return self

    def follow(self, follower: Callable[[object], None]) -> None:
        """Nothing is ever renewed here."""


def with_endpoint(address: str) -> Snapshot:
    """A service with this one, as its pods have come and gone."""
    service = {
        "name": "web", "namespace": "shop", "serviceAccounts": ["web"], "ports": [{"port": 80, "targetPort": 8080}],
        "addresses": ["240.240.0.1"], "endpoints": [{"address": address}],
    }  # fmt: skip
    document = {
        "schema": "1.0", "version": "1.1", "proxy": "spiffe://cluster.local/ns/shop/sa/x", "issued": 1.0,
        "trustDomain": "cluster.local", "services": [service],
    }  # fmt: skip
    found = at_once(compile_slices(json.dumps(document).encode(), Me(), "control"))
    assert found.snapshot is not None, found.problems
    return found.snapshot


def _services(mesh: _Mesh) -> Services:
    shared = Shared(
        Timeouts(5.0, 5.0, 5.0, 1, 5.0, 1 << 20), 5.0, 5.0, 8, 8, (), False, Telemetry("off", "/dev/null"),
        MemoryGuard(0), Resolver(), Pipes(), mesh=cast("Mesh", mesh),
    )  # fmt: skip
    forwarder = Forwarder(shared, appends_caller=False)
    return Services(cast("Mesh", mesh), forwarder, shared, Leave(OPEN, mesh.snapshot))


def test_endpoints_that_were_called_and_are_gone_leave_nothing_behind() -> None:
    mesh = _Mesh()
    services = _services(mesh)
    by_name = services.named("web.shop", 80)
    by_address = services.at(OriginalDst("240.240.0.1", 80))
    for number in range(1, 200):
        mesh.snapshot = with_endpoint(f"10.0.0.{number}")
        assert services.at(OriginalDst(f"10.0.0.{number}", 8080)) is not None
        services.sweep(float(number))
    assert len(list(services.values())) == 3
    assert services.named("web.shop", 80) is by_name
    assert services.at(OriginalDst("240.240.0.1", 80)) is by_address


def test_who_is_connected_to_an_endpoint_that_is_gone_keeps_its_way_to_the_service() -> None:
    mesh = _Mesh()
    services = _services(mesh)
    callee = services.at(OriginalDst("10.0.0.1", 8080))
    assert callee is not None
    callee.destination.users += 1
    mesh.snapshot = with_endpoint("10.0.0.2")
    services.sweep(1.0)
    assert callee in services.values()
    callee.destination.users -= 1
    services.sweep(2.0)
    assert callee not in services.values()
