"""What is legal and yet most likely a mistake is told, and taken."""

from __future__ import annotations

import pytest

from sidecar.resources.document_files import read_config
from sidecar.resources.lint import lint
from tests.unit.resources.docs import doc, entry, read, service

WEB = service("a/web", labels="{app: web}")
DB = service("a/db", labels="{app: db}", ports="{port: 5432, name: tcp, targetPort: 15432}")
POLICY = "{selector: {matchLabels: {app: %s}}, action: %s, rules: [%s]}"
GET = "{to: [{operation: {methods: [GET]}}]}"


def policy(spec: str, where: str = "a/p") -> str:
    return doc("AuthorizationPolicy", where, spec)


def by(principal: str) -> str:
    return policy(f"{{rules: [{{from: [{{source: {{principals: ['{principal}']}}}}]}}]}}")


PEER = "{selector: {matchLabels: {app: %s}}, portLevelMtls: {%d: {mode: DISABLE}}}"


@pytest.mark.parametrize(
    ("text", "note"),
    [
        (WEB + doc("PeerAuthentication", "a/p", PEER % ("web", 80)), None),
        (WEB + doc("PeerAuthentication", "a/p", PEER % ("api", 80)),
         "spec.selector: matches no service of namespace a: workloads have the labels of the services they serve"),
        (WEB + doc("PeerAuthentication", "a/p", PEER % ("web", 81)),
         "spec.portLevelMtls[81]: is no port that callers of these services reach"),
        (WEB + doc("Sidecar", "a/p", "{workloadSelector: {labels: {app: api}}}"),
         "spec.workloadSelector: matches no service of namespace a: workloads have the labels of the services they "
         "serve"),
        (WEB + entry("a/e", "e.example", "resolution: STATIC, workloadSelector: {labels: {app: web}}"),
         "spec.workloadSelector: matches no WorkloadEntry of namespace a"),
        (doc("PeerAuthentication", "a/p", "{}") + doc("PeerAuthentication", "a/q", "{mtls: {mode: STRICT}}"),
         "metadata.name: p is for all of namespace a as well, and counts, since its name comes first"),
        (doc("Sidecar", "sidecar-system/p", "{}") + doc("Sidecar", "sidecar-system/q", "{}"),
         "metadata.name: p is for the whole mesh as well, and counts, since its name comes first"),
        (WEB + "".join(doc("PeerAuthentication", where, PEER % ("web", 80)) for where in ("a/p", "a/q")),
         "spec.selector: p is for these workloads as well, and counts, since its name comes first"),
        (doc("PeerAuthentication", "a/p", "{}") + doc("PeerAuthentication", "b/p", "{}"), None),
        (WEB + doc("Sidecar", "b/s", "{egress: [{hosts: [a/web.a.svc.cluster.local, './*', '*/*', '~/*']}]}"), None),
        (WEB + doc("Sidecar", "sidecar-system/s", "{egress: [{hosts: [./web.a.svc.cluster.local]}]}"), None),
        (WEB + doc("Sidecar", "b/s", "{egress: [{hosts: ['~/*', a/web]}]}"),
         "spec.egress[0].hosts[1]: 'a/web' matches no service and no service entry; a service's name is "
         "web.NS.svc.cluster.local"),
        (WEB + doc("Sidecar", "b/s", "{egress: [{hosts: [b/e.example]}]}"),
         "spec.egress[0].hosts[0]: 'b/e.example' matches no service and no service entry"),
        (service("a/web", more="exportTo: [.]") + doc("Sidecar", "b/s", "{egress: [{hosts: ['a/*']}]}"),
         "spec.egress[0].hosts[0]: 'a/*' is not exported to namespace b"),
        (entry("a/e", "e.example") + entry("b/e", "e.example"),
         "spec.hosts[0]: e.example, port 443, is ServiceEntry a/e's as well; who sees both takes that of the own "
         "namespace, then the first by name"),
        (doc("WorkloadEntry", "a/w", "{address: 10.0.0.1, labels: {app: vm}}"),
         "spec.labels: are selected by no ServiceEntry of its namespace"),
        (entry("a/e", "e.example", "resolution: STATIC, workloadSelector: {labels: {app: vm}}")
         + doc("WorkloadEntry", "a/w", "{address: vm.example, labels: {app: vm}}"),
         "spec.address: 'vm.example' is a name, which an entry with resolution STATIC leaves out"),
        (entry("a/e", "e.example", "resolution: DNS, workloadSelector: {labels: {app: vm}}")
         + doc("WorkloadEntry", "a/w", "{address: vm.example, labels: {app: vm}}"), None),
        (WEB + policy("{}") + policy("{}", "a/q"), None),  # all of them count
        (WEB + policy(POLICY % ("api", "ALLOW", "")),
         "spec.selector: matches no service of namespace a: workloads have the labels of the services they serve"),
        (WEB + policy(POLICY % ("web", "ALLOW", ""), "sidecar-system/p"), None),
        (WEB + policy(POLICY % ("api", "ALLOW", ""), "sidecar-system/p"),
         "spec.selector: matches no service of the mesh: workloads have the labels of the services they serve"),
        (policy("{action: DENY}"),
         "spec.rules: has none, so this DENY policy never matches; for everything write rules: [{}]"),
        (policy("{action: AUDIT, rules: []}"),
         "spec.rules: has none, so this AUDIT policy never matches; for everything write rules: [{}]"),
        (WEB + DB + policy(POLICY % ("web", "ALLOW", GET)), None),
        (WEB + DB + policy(POLICY % ("db", "ALLOW", "{}")), None),
        (WEB + DB + policy(POLICY % ("db", "AUDIT", GET)), None),
        (WEB + DB + policy(POLICY % ("db", "ALLOW", GET)),
         "spec.rules[0]: has HTTP fields, and service a/db has the tcp port 5432: it never allows opaque bytes there"),
        (WEB + DB + policy(POLICY % ("db", "DENY", "{}, " + GET)),
         "spec.rules[1]: has HTTP fields, and service a/db has the tcp port 5432: it denies all opaque bytes there"),
        (WEB + DB + policy(f"{{action: DENY, rules: [{GET}]}}", "sidecar-system/p"),
         "spec.rules[0]: has HTTP fields, and service a/db has the tcp port 5432: it denies all opaque bytes there"),
        (DB + policy("{action: DENY, rules: [{when: [{key: 'request.headers[x]', values: [y]}]}]}"),
         "spec.rules[0]: has HTTP fields, and service a/db has the tcp port 5432: it denies all opaque bytes there"),
        (DB + policy("{action: DENY, rules: [{to: [{operation: {paths: [/x], ports: ['80']}}]}]}"), None),
        (DB + policy("{action: DENY, rules: [{to: [{operation: {paths: [/x], notPorts: ['15432']}}]}]}"), None),
        (DB + policy("{action: DENY, rules: [{to: [{operation: {paths: [/x], ports: ['15432']}}]}]}"),
         "spec.rules[0]: has HTTP fields, and service a/db has the tcp port 5432: it denies all opaque bytes there"),
        (DB + policy("{rules: [{to: [{operation: {paths: [/x]}}, {operation: {ports: ['15432']}}]}]}"), None),
        (by("cluster.local/ns/a/sa/x"), None),
        (by("*/ns/a/sa/x"), None),
        (by("*"), None),
        (by("spiffe://cluster.local/ns/a/sa/x"),
         "spec.rules[0].from[0].source.principals[0]: 'spiffe://cluster.local/ns/a/sa/x' allows no caller: principals "
         "are written without spiffe://"),
        (by("other.example/ns/a/*"),
         "spec.rules[0].from[0].source.principals[0]: 'other.example/ns/a/*' is of another trust domain, and matches "
         "no caller; the mesh's is cluster.local"),
        (policy("{rules: [{when: [{key: source.principal, notValues: ['spiffe://*']}]}]}"),
         "spec.rules[0].when[0].notValues[0]: 'spiffe://*' allows no caller: principals are written without spiffe://"),
    ],
)  # fmt: skip
def test_what_is_odd(text: str, note: str | None) -> None:
    found = read(text)
    assert found.problems == ()
    assert found.mesh is not None
    told = [each.partition(": ")[2] for each in found.notes]
    assert told == ([note] if note else [])
    for document in found.documents:
        alone = lint(found.mesh, [document.key, ("Service", "a", "gone")])
        assert alone == [each for each in lint(found.mesh) if each.key == document.key]


def test_cluster_local_means_the_trust_domain_of_the_mesh() -> None:
    domains = ("cluster.local", "corp.example", "b.example")
    text = "".join(by(f"{domain}/ns/a/sa/x").replace("name: p", f"name: p{n}") for n, domain in enumerate(domains))
    found = read_config([("f0.yaml", text.encode())], "corp.example")
    (note,) = found.notes
    assert note.endswith(
        "'b.example/ns/a/sa/x' is of another trust domain, and matches no caller; the mesh's is corp.example, or "
        "cluster.local for the same"
    )
