"""What is explained of a request while no policy can judge it: the refusal that the request would get."""

from __future__ import annotations

import dataclasses
from typing import Any

from sidecar.policy.authorize import Asked
from sidecar.proxy.policy_enforcement import InboundPolicies
from sidecar.resources.snapshot import NOTHING
from tests.unit.test_bounded_table import _context

GET = Asked("inbound", "", "10.0.0.1", "", "HTTP", b"GET", b"/", b"app.test")


def explained(mesh: Any) -> dict[str, object]:
    context = dataclasses.replace(_context(), mesh=mesh)
    return InboundPolicies(context).explain(NOTHING, GET)


def test_before_the_first_configuration_a_mesh_proxy_explains_its_refusal() -> None:
    told = explained(object())
    assert (told["allowed"], told["status"]) == (False, 503)
    assert "no configuration received yet" in str(told["decided_by"])


def test_a_lone_proxy_allows_by_default() -> None:
    assert explained(None)["allowed"] is True
