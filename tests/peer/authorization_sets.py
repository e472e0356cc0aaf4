"""The judged sets of ``tests/peer/data`` as our engine sees them: policies, requests, and what is expected of ours.

Called by ``test_authorization_verdicts`` and ``test_principal_verdicts``. ``make_authorization_data`` and
``make_principal_data`` describe the form of the sets.
"""

from __future__ import annotations

import ipaddress
from typing import Any, NamedTuple

import msgspec
import yaml

from certs.spiffe import SCHEME
from sidecar.errors import ProxyError
from sidecar.http.h1.head import parse_request
from sidecar.policy.authorize import Asked
from sidecar.policy.rbac import Engine
from sidecar.resources.authorization import PolicySpec, Rule
from tests.peer.make_authorization_data import ALLOWED, REFUSED, Case, head

PORT = 8080
ROOT_NAMESPACE = "istio-system"


class Workload(NamedTuple):
    """The workload that policies are for."""

    namespace: str
    labels: dict[str, str]


def policies(documents: str, workload: Workload) -> list[PolicySpec]:
    """Return what holds at the workload, read independently of how the product reads documents."""
    found: list[dict[str, Any]] = list(yaml.safe_load_all(documents.replace("${INBOUND}", str(PORT))))
    return [_policy(document) for document in found if _applies(document, workload)]


def _applies(document: dict[str, Any], workload: Workload) -> bool:
    selected = document["spec"].get("selector", {}).get("matchLabels", {})
    at_home = document["metadata"]["namespace"] in (workload.namespace, ROOT_NAMESPACE)
    return at_home and selected.items() <= workload.labels.items()


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
    caller = request.get("from")
    peer = SCHEME + caller if caller else ""
    if request.get("protocol") == "TCP":
        return Asked("inbound", peer, "127.0.0.1", "app", "TCP", place=("127.0.0.1", PORT))
    parsed = parse_request(head(request, PORT))
    assert parsed is not None
    read, client = parsed[0], request.get("source", "127.0.0.1")
    return Asked(
        "inbound",
        peer,
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


def verdict(engine: Engine, request: Case) -> tuple[int, bool]:
    """Return our status, and whether an AUDIT policy matches."""
    try:
        question = asked(request)
    except ProxyError:
        return REFUSED, False
    judgement = engine.judge(question)
    return (ALLOWED if judgement.allowed else REFUSED), judgement.audited != ""


def expected(request: Case, envoys: int) -> int:
    """Return the verdict that ours has to be, by Envoy's and the marks of the request."""
    if "ours" in request:
        ours: int = request["ours"][0]
        return ours
    return REFUSED if request.get("stricter") else envoys


def check_reasons(sets: list[Case], intended: set[str]) -> None:
    """Check that each verdict of ours that differs has one of these reasons, and that each reason is needed."""
    requests = [request for case in sets for request in case["requests"]]
    reasons = {request["ours"][1] for request in requests if "ours" in request}
    reasons |= {request["audit"] for request in requests if "audit" in request}
    assert reasons == intended
    for case in sets:
        for request, envoys in zip(case["requests"], case["verdicts"], strict=True):
            assert "ours" not in request or request["ours"][0] != envoys, (case["name"], request)
