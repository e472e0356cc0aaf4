"""Envoy has judged callers by their certificates, with the filters that Istio writes; our engine agrees.

``make_principal_data`` asks them, and says how to renew and extend the data, so that no test needs Go or istiod. A
verdict of ours that is marked in the data differs for one of the reasons of INTENDED.
"""

from __future__ import annotations

import pytest

from sidecar.feed.time_slicer import at_once
from sidecar.policy.rbac import compile_policies
from tests.peer.authorization_sets import Workload, check_reasons, expected, policies, verdict
from tests.peer.make_authorization_data import ALLOWED, REFUSED, Case, read_sets
from tests.peer.make_principal_data import DATA, USUAL, trust_domain

WORKLOAD = Workload("shop", {"app": "billing"})
INTENDED = {
    "form",  # an id that is not TRUST-DOMAIN/ns/NAME/sa/NAME has no namespace or account that can be decided
    "own",  # cluster.local at the start of a principal is the mesh's trust domain, however many parts follow
    "scheme",  # a principal that is written with spiffe:// never allows; Envoy takes it for no caller, ours refuses
    "segment",  # a namespace is judged alone; Istio's regular expression goes on into what follows it
    "alias",  # a mesh has one trust domain, without aliases
}
LOOSER = {"own", "segment"}  # the others only make ours refuse what Envoy allows
SETS = read_sets(DATA)


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in SETS])
def test_engine_judges_callers_as_envoy(case: Case) -> None:
    engine = at_once(compile_policies(policies(case["documents"], WORKLOAD), trust_domain(case)))
    differences = []
    for number, (request, envoys) in enumerate(zip(case["requests"], case["verdicts"], strict=True)):
        ours, audited = verdict(engine, USUAL | request)
        if ours != expected(request, envoys):
            differences.append(f"ours {ours}, Envoy's {envoys}: {request}")
        if "audited" in case and request.get("protocol") != "TCP":
            envoy_audits = number in case["audited"]
            if (audited is not envoy_audits) is not ("audit" in request):
                differences.append(f"our audit {audited}, Envoy's {envoy_audits}: {request}")
    assert not differences, "\n".join(["", *differences, case["documents"]])


def test_each_verdict_that_differs_has_its_reason() -> None:
    check_reasons(SETS, INTENDED)
    marks = [request["ours"] for case in SETS for request in case["requests"] if "ours" in request]
    assert {reason for ours, reason in marks if ours == ALLOWED} == LOOSER


def test_data_is_what_it_claims_to_be() -> None:
    assert len(SETS) >= 20
    for case in SETS:
        assert len(case["requests"]) == len(case["verdicts"]) >= 30, case["name"]
        assert set(case["verdicts"]) == {ALLOWED, REFUSED} or "audited" in case, case["name"]
        assert "" in (request["from"] for request in case["requests"]), case["name"]
