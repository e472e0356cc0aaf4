"""Envoy, driven by Istio's istiod, has judged these requests under these AuthorizationPolicies; our engine agrees.

``make_authorization_data`` asks them, and says how to renew and extend the data, so that no test needs istiod. Where a
request is marked as stricter, Envoy allows it and we refuse it. Where it has a verdict of ours, that differs for one of
the reasons of INTENDED, and may be the looser one.
"""

from __future__ import annotations

import pytest

from sidecar.feed.time_slicer import at_once
from sidecar.policy.rbac import compile_policies
from tests.peer.authorization_sets import Workload, check_reasons, expected, policies, verdict
from tests.peer.make_authorization_data import ALLOWED, DATA, REFUSED, Case, read_sets

WORKLOAD = Workload("default", {"app": "app"})
INTENDED = {
    "host",  # no port in a rule: any; a trailing dot and port 80 mean nothing; so one host has one verdict
    "mapped",  # an IPv4 address is the same one within IPv6
    "escaped",  # Envoy escapes a character that we keep as it was sent
}
SETS = read_sets(DATA)


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in SETS])
def test_engine_judges_as_envoy(case: Case) -> None:
    engine = at_once(compile_policies(policies(case["documents"], WORKLOAD), "cluster.local"))
    differences = []
    for request, envoys in zip(case["requests"], case["verdicts"], strict=True):
        ours, _ = verdict(engine, request)
        if ours != expected(request, envoys):
            differences.append(f"ours {ours}, Envoy's {envoys}: {request}")
    assert not differences, "\n".join(["", *differences, case["documents"]])


def test_each_verdict_that_differs_has_its_reason() -> None:
    check_reasons(SETS, INTENDED)


def test_data_is_what_it_claims_to_be() -> None:
    assert len(SETS) >= 60
    for case in SETS:
        assert len(case["requests"]) == len(case["verdicts"]) >= 30, case["name"]
        assert set(case["verdicts"]) <= {ALLOWED, REFUSED}, case["name"]
        stricter = [v for r, v in zip(case["requests"], case["verdicts"], strict=True) if "stricter" in r]
        assert REFUSED not in stricter, case["name"]
