"""What is legal and yet most likely a mistake is told, and taken."""

from __future__ import annotations

import pytest

from sidecar.resources.lint import lint
from tests.unit.resources.docs import doc, entry, read, service

WEB = service("a/web", labels="{app: web}")
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
