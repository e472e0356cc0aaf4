"""What stands in the fields of a document is judged, each with its place."""

from __future__ import annotations

import pytest

from tests.unit.resources.docs import doc
from tests.unit.resources.test_documents import wrong


def spec_problems(kind: str, spec: str) -> list[str]:
    """Of a document with this spec, which stands in its fourth line."""
    return [each.removeprefix("4: spec.") for each in wrong(doc(kind, "shop/a", spec))]


ONE = "hosts: [a], ports: [{number: 1, name: a}]"


@pytest.mark.parametrize(
    ("kind", "spec", "problems"),
    [
        ("Service", "{ports: [{port: 80}], serviceAccounts: [a], addresses: [x], exportTo: ['**', .]}", [
            "addresses[0]: 'x' is not an IP address; names are not supported yet",
            "exportTo[0]: '**' is no namespace; a name, or one of . * ~",
        ]),
        ("Service", "{ports: [{port: 80}], serviceAccounts: [A_], subjectAltNames: ['spiffe://X/a'], selector: {}}", [
            "selector: is not supported yet; endpoints are registered, or listed in endpoints",
        ]),
        ("Service", "{ports: [{port: 80}], serviceAccounts: [a], endpoints: [{address: 10.0.0.1, labels: {a b: c}}]}", [
            "endpoints[0].labels.a b: 'a b' is no key of a label",
        ]),
        ("Service", "{ports: [{port: 80}], serviceAccounts: [a], addresses: [240.240.0.1]}", [
            "addresses[0]: '240.240.0.1' is of the range that virtual addresses are of; choose another",
        ]),
        ("ServiceEntry", "{" + ONE + ", addresses: ['2001:2:0::7']}", [
            "addresses[0]: '2001:2:0::7' is of the range that virtual addresses are of; choose another",
        ]),
        ("PeerAuthentication", "{mtls: {mode: LOOSE}}", [
            "mtls.mode: 'LOOSE' is not one of UNSET, STRICT, PERMISSIVE, DISABLE",
        ]),
        ("PeerAuthentication", "{portLevelMtls: {80: {mode: STRICT}}}", [
            "portLevelMtls: needs a selector: ports are those of a workload; add matchLabels",
        ]),
        ("PeerAuthentication", "{selector: {matchLabels: {a: '*'}, matchExpressions: []}}", [
            "selector.matchExpressions: is not supported yet; write matchLabels",
        ]),
        ("ServiceEntry", "{}", ["spec: hosts is missing", "spec: ports is missing"]),
        ("ServiceEntry", "{hosts: [], ports: []}", [
            "hosts: there are none; an entry has one or more", "ports: there are none; an entry has one or more",
        ]),
        ("ServiceEntry", "{ports: [{number: 1, name: a}], hosts: [A.example, '*', 10.0.0.1, a..b, x.1, '*.a', a, a]}", [
            "hosts[0]: 'A.example' is no host: a name in lower case, or *. and a name",
            "hosts[1]: '*' is no host: a name in lower case, or *. and a name",
            "hosts[2]: 10.0.0.1 is an address; write it in addresses, and a name here",
            "hosts[3]: 'a..b' is no host: a name in lower case, or *. and a name",
            "hosts[4]: 'x.1' is no host: a name in lower case, or *. and a name",
            "hosts[7]: 'a' stands here twice",
        ]),
        ("ServiceEntry", "{addresses: [10.0.0.0/8, 10.0.0.1, 10.0.0.1, a.b, 0.0.0.0]," + ONE + "}", [
            "addresses[0]: '10.0.0.0/8' is a range, which is not supported yet; list addresses",
            "addresses[2]: 10.0.0.1 stands here twice",
            "addresses[3]: 'a.b' is not an IP address",
            "addresses[4]: 0.0.0.0 is nobody's address",
        ]),
        ("ServiceEntry", "{hosts: [a], ports: [{number: 1, name: A, protocol: QUIC}, {number: 1, name: A}]}", [
            "ports[0].name: 'A' is not a DNS label (a-z, 0-9 and inner hyphens, at most 63)",
            "ports[0].protocol: 'QUIC' is not one of HTTP, HTTP2, GRPC, GRPC-WEB, HTTPS, TLS, TCP, MONGO, MYSQL, REDIS",
            "ports[1].name: 'A' is not a DNS label (a-z, 0-9 and inner hyphens, at most 63)",
            "ports[1].number: 1 is there already", "ports[1].name: 'A' is there already",
        ]),
        ("ServiceEntry", "{" + ONE + ", location: MESH_INTERNAL, resolution: DNS_ROUND_ROBIN}", [
            "location: MESH_INTERNAL is not supported yet: where there are sidecars write a Service, and where there "
            "are none MESH_EXTERNAL, since plaintext goes there",
            "resolution: DNS_ROUND_ROBIN is not supported yet; write DNS",
        ]),
        ("ServiceEntry", "{" + ONE + ", endpoints: [{address: 10.0.0.1}]}", [
            "resolution: NONE goes where the app was going; with endpoints it is STATIC or DNS",
        ]),
        ("ServiceEntry", "{" + ONE + ", resolution: STATIC}", [
            "resolution: STATIC has nowhere to go; add endpoints or workloadSelector",
        ]),
        ("ServiceEntry", "{hosts: ['*.a'], ports: [{number: 1, name: a}], resolution: DNS}", [
            "hosts[0]: *.a can't be looked up; list endpoints, or write resolution: NONE",
        ]),
        ("ServiceEntry", "{" + ONE + ", resolution: STATIC, workloadSelector: {labels: {}}, "
         "endpoints: [{address: a.b}, {address: unix:///x}, {address: 10.0.0.1, ports: {z: 1}}, {address: a.b}]}", [
            "workloadSelector: and endpoints can't be together; one of them is enough",
            "endpoints[0].address: 'a.b' is not an IP address",
            "endpoints[1].address: a unix socket is not supported yet; write an IP address",
            "endpoints[2].ports.z: is not the name of a port of this entry",
            "endpoints[3].address: 'a.b' is not an IP address", "endpoints[3]: 'a.b' stands here twice",
            "workloadSelector.labels: there are none; leave out workloadSelector to mean all",
        ]),
        ("WorkloadEntry", "{address: A.b, ports: {P: 1}, labels: {a: b}}", [
            "address: 'A.b' is neither an IP address nor a host name in lower case",
            "ports.P: 'P' is not a DNS label (a-z, 0-9 and inner hyphens, at most 63)",
        ]),
        ("Sidecar", "{egress: [{hosts: []}, {hosts: [web, A/x, '*/a*', a/B]}], workloadSelector: {labels: {}}}", [
            "workloadSelector.labels: there are none; leave out workloadSelector to mean all",
            "egress[0].hosts: there are none; for no host at all write ~/*",
            "egress[1].hosts[0]: 'web' is not NAMESPACE/HOST; for the own namespace write ./HOST",
            "egress[1].hosts[1]: 'A' is no namespace; a name, or one of . * ~",
            "egress[1].hosts[2]: 'a*' is no host: a name in lower case, *. and a name, or *",
            "egress[1].hosts[3]: 'B' is no host: a name in lower case, *. and a name, or *",
        ]),
        ("Sidecar", "{outboundTrafficPolicy: {}, ingress: [], workloadSelector: 7}", [
            "ingress: is not supported yet; leave it out",
            "workloadSelector: 7 is not a mapping",
            "outboundTrafficPolicy: mode is missing",
        ]),
    ],
)  # fmt: skip
def test_what_stands_in_the_fields_is_judged(kind: str, spec: str, problems: list[str]) -> None:
    assert sorted(spec_problems(kind, spec)) == sorted(
        each.replace("spec: ", "4: spec: ", 1) if each.startswith("spec: ") else each for each in problems
    )
