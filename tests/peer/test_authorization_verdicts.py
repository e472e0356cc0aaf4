"""Envoy, driven by Istio's istiod, has judged these requests under these AuthorizationPolicies; our engine agrees.

``make_authorization_data`` asks them, and says how to renew and extend the data, so that no test needs istiod. Where a
request is marked as stricter, Envoy allows it and we refuse it. Where it has a verdict of ours, that differs for one of
the reasons of INTENDED, and may be the looser one.
"""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import msgspec
import pytest
import yaml

from sidecar.errors import ProxyError
from sidecar.feed.time_slicer import at_once
from sidecar.http.h1.head import parse_request
from sidecar.policy.authorize import Asked
from sidecar.policy.rbac import Engine, compile_policies
from sidecar.resources.authorization import PolicySpec, Rule
from tests.peer.make_authorization_data import ALLOWED, DATA, REFUSED, Case, head

PORT = 8080
LABELS = {"app": "app"}  # of the workload that the policies are for, in the namespace default
ROOT_NAMESPACE = "istio-system"
INTENDED = {
    "host",  # no port in a rule: any; a trailing dot and port 80 mean nothing; so one host has one verdict
    "mapped",  # an IPv4 address is the same one within IPv6
    "escaped",  # Envoy escapes a character that we keep as it was sent
}
SETS: list[Case] = [json.loads(line) for line in DATA.read_text().splitlines()]


def policies(documents: str) -> list[PolicySpec]:
    """Return what holds at the workload, read independently of how the product reads documents."""
    found: list[dict[str, Any]] = list(yaml.safe_load_all(documents.replace("${INBOUND}", str(PORT))))
    return [_policy(document) for document in found if _applies(document)]


def _applies(document: dict[str, Any]) -> bool:
    selected = document["spec"].get("selector", {}).get("matchLabels", {})
    return document["metadata"]["namespace"] in ("default", ROOT_NAMESPACE) and selected.items() <= LABELS.items()


def _policy(document: dict[str, Any]) -> PolicySpec:
    metadata, spec = document["metadata"], document["spec"]
    return PolicySpec(
        metadata["name"],
        metadata["namespace"],
        spec.get("action", "ALLOW"),
        msgspec.convert(spec.get("rules", []), list[Rule]),
        metadata.get("annotations", {}).get("istio.io/dry-run") == "true",
    )


def asked(request: Case) -> Asked:
    """Return the request as our inbound side asks for it. Raises ProxyError if it is refused before."""
    parsed = parse_request(head(request, PORT))
    assert parsed is not None
    read, client = parsed[0], request.get("source", "127.0.0.1")
    return Asked(
        "inbound",
        "",
        client,
        "app",
        "HTTP",
        method=read.method,
        path=read.sent,
        authority=read.authority,
        remote=_remote(request, client),
        place=("127.0.0.1", PORT),
        fields=read.fields,
    )


def _remote(request: Case, client: str) -> str:
    """Return the last address of x-forwarded-for: Envoy trusts every peer with it, as ours does trusted proxies."""
    forwarded = ",".join(value for name, value in request.get("headers", []) if name.lower() == "x-forwarded-for")
    last = forwarded.rpartition(",")[2].strip()
    try:
        return str(ipaddress.ip_address(last))
    except ValueError:
        return client


def verdict(engine: Engine, request: Case) -> int:
    try:
        question = asked(request)
    except ProxyError:
        return REFUSED
    return ALLOWED if engine.judge(question).allowed else REFUSED


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in SETS])
def test_engine_judges_as_envoy(case: Case) -> None:
    engine = at_once(compile_policies(policies(case["documents"]), "cluster.local"))
    differences = []
    for request, envoys in zip(case["requests"], case["verdicts"], strict=True):
        expected = request["ours"][0] if "ours" in request else REFUSED if request.get("stricter") else envoys
        if (ours := verdict(engine, request)) != expected:
            differences.append(f"ours {ours}, Envoy's {envoys}: {request}")
    assert not differences, "\n".join(["", *differences, case["documents"]])


def test_each_verdict_that_differs_has_its_reason() -> None:
    reasons = {request["ours"][1] for case in SETS for request in case["requests"] if "ours" in request}
    assert reasons == INTENDED
    for case in SETS:
        for request, envoys in zip(case["requests"], case["verdicts"], strict=True):
            assert "ours" not in request or request["ours"][0] != envoys, (case["name"], request)


def test_data_is_what_it_claims_to_be() -> None:
    assert len(SETS) >= 60
    for case in SETS:
        assert len(case["requests"]) == len(case["verdicts"]) >= 30, case["name"]
        assert set(case["verdicts"]) <= {ALLOWED, REFUSED}, case["name"]
        stricter = [v for r, v in zip(case["requests"], case["verdicts"], strict=True) if "stricter" in r]
        assert REFUSED not in stricter, case["name"]
