"""Documents without a control plane: policies and calls to service entries are obeyed, and nothing else looks as if it
were."""

from __future__ import annotations

import pytest

from sidecar.resources.document_files import load_config
from sidecar.resources.load import Loaded
from sidecar.resources.snapshot import Node, Version
from tests.unit.resources.docs import doc, entry, service

SELECTING = "{selector: {matchLabels: {app: web}}}"


def policy(where: str, spec: str = "{}") -> str:
    return doc("AuthorizationPolicy", where, spec)


def alone(text: str, namespace: str = "default", **labels: str) -> Loaded:
    return load_config([("p.yaml", text.encode())], Node(namespace), "cluster.local", Version(0, 1), labels)


def applying(found: Loaded) -> list[str]:
    assert found.snapshot is not None and found.problems == ()
    return [each.title for each in found.snapshot.policies]


def test_policies_of_the_namespace_and_the_mesh_apply() -> None:
    text = policy("default/b") + policy("default/a") + policy("sidecar-system/all") + policy("shop/other")
    found = alone(text)
    assert applying(found) == ["sidecar-system/all", "default/a", "default/b"]
    why = "is not default, which --namespace names: the policy does not apply here"
    assert found.notes == (f"p.yaml:18: metadata.namespace: {why}",)
    assert applying(alone(text, "shop")) == ["sidecar-system/all", "shop/other"]


@pytest.mark.parametrize("where", ["default/p", "sidecar-system/p"])
def test_selectors_look_at_the_labels_of_the_command_line(where: str) -> None:
    found = alone(policy(where, SELECTING), app="web", version="v2")
    assert (applying(found), found.notes) == ([f"{where}"], ())
    found = alone(policy(where, SELECTING), app="api")
    assert applying(found) == []
    assert found.notes == (
        "p.yaml:4: spec.selector: does not match --workload-labels 'app=api' in namespace default: the policy does not "
        "apply here",
        "p.yaml: no AuthorizationPolicy or RateLimitPolicy applies to this proxy, so every call is allowed",
    )


def test_selectors_look_at_the_services_in_the_documents_as_well() -> None:
    text = policy("default/p", SELECTING) + service("default/web", "default", labels="{app: web}")
    found = alone(text)
    assert applying(found) == ["default/p"]
    assert found.notes == (
        "p.yaml: without --control Service has no effect: services can't be called without a certificate",
    )


def test_routes_to_hosts_without_a_sidecar_are_obeyed() -> None:
    def routed(where: str, host: str, to: str) -> str:
        return doc(
            "VirtualService", where, f"{{hosts: [{host}], http: [{{route: [{{destination: {{host: {to}}}}}]}}]}}"
        )

    text = (
        entry("default/out", "out.example", "resolution: STATIC, workloadSelector: {labels: {app: vm}},")
        + doc("WorkloadEntry", "default/vm", "{address: 192.0.2.8, labels: {app: vm, version: v2}, weight: 3}")
        + routed("default/b", "out.example", "out.example")
        + routed("default/a", "out.example", "x")
        + doc("DestinationRule", "default/d", "{host: out.example, subsets: [{name: v2, labels: {version: v2}}]}")
        + doc("BackendTrafficPolicy", "default/p", "{host: out.example, retryBudget: {retryRatio: 0.1}}")
        + routed("shop/own", "web", "web")
    )
    at = alone(text).snapshot
    assert at is not None
    assert [each.title for each in at.virtual_services] == ["default/a", "default/b"]
    assert at.virtual_services[0].http[0].route[0].destination.host == "x.default.svc.cluster.local"
    assert [each.title for each in at.destination_rules] == ["default/d"]
    assert [each.title for each in at.backend_policies] == ["default/p"]
    port = at.entry_by_authority("out.example", 443)
    assert port is not None
    assert port.place_labels == ((("app", "vm"), ("version", "v2")),) and port.place_weights == (3,)
    assert not any("no effect" in note or "every call is allowed" in note for note in alone(text).notes)
    both = service("shop/web") + doc("PeerAuthentication", "shop/p", "{mtls: {mode: DISABLE}}")
    assert "PeerAuthentication and Service have no effect" in " ".join(alone(text + both).notes)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (doc("PeerAuthentication", "default/p", "{mtls: {mode: STRICT}}"),
         "a PeerAuthentication says STRICT, which needs a certificate; add --control URL, or leave it out"),
        (doc("Sidecar", "default/p", "{outboundTrafficPolicy: {mode: REGISTRY_ONLY}}"),
         "a Sidecar says REGISTRY_ONLY, which is read from documents only with --control; write --outbound-policy "
         "REGISTRY_ONLY instead"),
    ],
)  # fmt: skip
def test_what_would_close_something_and_can_not_is_refused(text: str, why: str) -> None:
    assert alone(text + policy("default/p")).problems == (f"p.yaml: {why}",)
    assert alone(text.replace("default/", "shop/").replace("namespace: default", "namespace: shop")).problems == ()
    assert load_config([("p.yaml", text.encode())], Node(), "cluster.local", Version(0, 1)).problems == ()


def test_a_bad_document_refuses_the_set() -> None:
    found = alone(policy("default/p") + policy("default/q", "{rules: [{to: [{operation: {ports: [x]}}]}]}"))
    assert found.snapshot is None
    assert found.problems == ("p.yaml:9: spec.rules[0].to[0].operation.ports[0]: 'x' is not a port from 1 to 65535",)
