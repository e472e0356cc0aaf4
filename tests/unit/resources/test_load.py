"""A mesh file is taken whole, or every problem of it is told, each with its line."""

from __future__ import annotations

import pytest

from sidecar.resources import load as load_module
from sidecar.resources import yaml_reader
from sidecar.resources.load import load_mesh
from sidecar.resources.snapshot import Mode, Node, Version
from tests.support.modules import among, loaded_by
from tests.unit.resources.written import SHOP, loaded, problems, snapshot


def test_all_problems_are_told_at_once_in_the_order_of_their_lines() -> None:
    assert problems("""\
        services:
        - name: Billing
          weird: 3
          serviceAccount: x
          ports: [{port: 70000, number: 3}, {port: x}]
          endpoints:
          - {address: 1, mode: both, locality: a}
        - {}
        - 7
        peerAuthentication:
          portLevelMtls:
            0: {mode: LOOSE}
        kind: DestinationRule
        """) == [
        "mesh.yaml:3: services[0].weird: is not a field here; there are name, ports, namespace, serviceAccounts, "
        "subjectAltNames, addresses, endpoints",
        "mesh.yaml:4: services[0].serviceAccount: is not a field here; there are name, ports, namespace, "
        "serviceAccounts, subjectAltNames, addresses, endpoints",
        "mesh.yaml:5: services[0].ports[0].port: 70000 is not a port from 1 to 65535",
        "mesh.yaml:5: services[0].ports[0].number: is written port here",
        "mesh.yaml:5: services[0].ports[1].port: 'x' is not a port from 1 to 65535",
        "mesh.yaml:7: services[0].endpoints[0].address: 1 is not text; put it in quotes",
        "mesh.yaml:7: services[0].endpoints[0].mode: 'both' is not one of captured, direct",
        "mesh.yaml:7: services[0].endpoints[0].locality: is not supported yet; leave it out",
        "mesh.yaml:8: services[1]: name is missing",
        "mesh.yaml:8: services[1]: ports is missing",
        "mesh.yaml:9: services[2]: 7 is not a mapping",
        "mesh.yaml:12: peerAuthentication.portLevelMtls[0]: the key 0 is not a port from 1 to 65535",
        "mesh.yaml:12: peerAuthentication.portLevelMtls[0].mode: 'LOOSE' is not one of UNSET, STRICT, PERMISSIVE, "
        "DISABLE",
        "mesh.yaml:13: kind: documents are not supported yet; a mesh file has services and peerAuthentication",
    ]


def test_all_that_does_not_hold_together_is_told_at_once() -> None:
    assert problems("""\
        services:
        - {name: a, ports: [{port: 80}], serviceAccounts: [a], endpoints: [{address: 10.0.0.1}]}
        - {name: a, ports: [{port: 81}], serviceAccounts: [a]}
        - {name: b, ports: [{port: 80}]}
        - {name: c, ports: [], serviceAccounts: [c]}
        - name: D
          namespace: x_y
          serviceAccounts: [d]
          ports: [{port: 1}]
        - name: e
          serviceAccounts: ["E/../f"]
          subjectAltNames: ["spiffe://td", "http://td/a"]
          addresses: [e.example, 0.0.0.0, 10.1.1.1, "::ffff:10.1.1.1"]
          ports: [{port: 80, name: x}, {port: 80, name: x}, {port: 82}, {port: 83, name: y, appProtocol: quic}]
          endpoints:
          - {address: 10.0.0.2, mode: direct}
          - {address: 10.0.0.2, port: 90}
          - {address: 10.0.0.3, port: 90, ports: {z: 1}, mode: direct}
        - name: f
          serviceAccounts: [f]
          ports: [{port: 80}]
          endpoints: [{address: 10.0.0.1}, {address: 10.0.0.4}, {address: 10.0.0.4}]
        - name: g
          serviceAccounts: [f]
          ports: [{port: 80}]
          endpoints: [{address: 10.0.0.4, mode: direct, port: 80}]
        """) == [
        "mesh.yaml:3: services[1]: a in namespace default is defined already",
        "mesh.yaml:4: services[2]: nobody may serve it; list service accounts in serviceAccounts",
        "mesh.yaml:5: services[3].ports: there are none; a service has one or more",
        "mesh.yaml:6: services[4].name: 'D' is not a DNS label (a-z, 0-9 and inner hyphens, at most 63)",
        "mesh.yaml:7: services[4].namespace: 'x_y' is not a DNS label (a-z, 0-9 and inner hyphens, at most 63)",
        "mesh.yaml:11: services[5].serviceAccounts[0]: 'E/../f': not a SPIFFE id: its service account is no DNS "
        "subdomain (labels joined by dots, at most 253)",
        "mesh.yaml:12: services[5].subjectAltNames[0]: 'spiffe://td' is a trust domain, and no workload",
        "mesh.yaml:12: services[5].subjectAltNames[1]: 'http://td/a': not a SPIFFE id: it does not start with "
        "spiffe://",
        "mesh.yaml:13: services[5].addresses[0]: 'e.example' is not an IP address; names are not supported yet",
        "mesh.yaml:13: services[5].addresses[1]: 0.0.0.0 is nobody's address",
        "mesh.yaml:13: services[5].addresses[3]: 10.1.1.1 stands here twice",
        "mesh.yaml:14: services[5].ports[1].port: 80 is there already",
        "mesh.yaml:14: services[5].ports[1].name: x is there already",
        "mesh.yaml:14: services[5].ports[2]: name is missing; where there are several ports each has one",
        "mesh.yaml:14: services[5].ports[3].appProtocol: 'quic' is not one of http, http2, grpc, grpc-web, https, "
        "tls, tcp, mongo, mysql, redis",
        "mesh.yaml:16: services[5].endpoints[0]: is direct, and does not say at which port its sidecar listens; add "
        "port",
        "mesh.yaml:17: services[5].endpoints[1].port: is one for several ports of the service; say ports, by their "
        "names",
        "mesh.yaml:18: services[5].endpoints[2].ports.z: is not the name of a port of this service",
        "mesh.yaml:18: services[5].endpoints[2]: has both port and ports; one of them is enough",
        "mesh.yaml:22: services[6].endpoints[2]: 10.0.0.4, port 80, is an endpoint of this service already",
        "mesh.yaml:22: services[6].endpoints[0]: 10.0.0.1, port 80, is a.default.svc.cluster.local:80 as well, which "
        "others may serve",
        "mesh.yaml:26: services[7].endpoints[0]: 10.0.0.4, port 80, is captured elsewhere and direct here",
    ]


def test_services_that_the_same_may_serve_can_share_an_endpoint() -> None:
    at = snapshot("""\
        services:
        - {name: a, ports: [{port: 80}], serviceAccounts: [x], endpoints: [{address: 10.0.0.1}]}
        - {name: b, ports: [{port: 80}], serviceAccounts: [x], endpoints: [{address: 10.0.0.1}]}
        """)
    found = at.by_address("10.0.0.1", 80)
    assert found is not None and found.service == "a"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("schema: '2.0'", ":1: schema: '2.0' is not known; this sidecar reads 1.4"),
        ("schema: 1.0", ":1: schema: 1.0 is not text; put it in quotes"),
        (
            "trustDomain: Upper",
            ":1: trustDomain: 'Upper': not a SPIFFE id: its trust domain has characters other than a-z, 0-9, dot, "
            "hyphen and underscore",
        ),
        ("- 1", ":1: a list is not a mapping"),
        ("services: {}", ":1: services: a mapping is not a list"),
        ("services:", ":1: services: nothing is not a list"),
        ("", ": there is nothing in it"),
        ("# only this\n", ": there is nothing in it"),
        ("services: []\nservices: []\n", ":2: 'services' stands twice in one mapping"),
        ("services: !!python/object/apply:os.system [id]", ":1: the tag 'tag:yaml.org,2002:python/object/apply:"
         "os.system' is not taken"),
        ("schema: !!str 1", ":1: the tag 'tag:yaml.org,2002:str' is not taken"),
        ("schema: '1.0'\n---\nschema: '1.0'\n", ":2: a second document begins here, and only one is read"),
        ("services: *s", ":1: *s stands for nothing that ends before it"),
        ("services: &s [*s]", ":1: *s stands for nothing that ends before it"),
        ("services: &s []\nschema: &s '1.0'", ":2: &s is given twice"),
        ("? [a]\n: 1\n", ":1: a key has to be text or a number; put it in quotes"),
        ("true: 1\n", ":1: a key has to be text or a number; put it in quotes"),
        ("services: " + "[" * 40 + "]" * 40, ":1: it is nested more than 32 deep"),
    ],
)  # fmt: skip
def test_what_can_not_be_read_names_its_line(text: str, problem: str) -> None:
    assert problems(text) == [f"mesh.yaml{problem}"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("services: [1, }", ":1: this is no YAML: "),
        ("a: 1\n b: 2\n", ":2: this is no YAML: "),
        ("schema: \0", ": this is no YAML: "),
    ],
)
def test_what_is_no_yaml_is_told_in_the_parsers_words(text: str, problem: str) -> None:
    (found,) = problems(text)
    assert found.startswith(f"mesh.yaml{problem}") and not found.endswith(": ") and "\n" not in found


def test_bytes_that_are_no_text_and_files_that_are_too_long() -> None:
    found = load_mesh(b"schema: '1.0'\n# \xff\n", "mesh.yaml", Node(), Version())
    assert found.problems == ("mesh.yaml:2: this is no UTF-8",)
    found = load_mesh(b"#" * (load_module.MAX_BYTES + 1), "mesh.yaml", Node(), Version())
    assert found.problems == ("mesh.yaml: is longer than 8 MiB",)


def test_aliases_stand_for_what_they_name_and_can_not_grow_into_a_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    at = snapshot("""\
        services:
        - {name: a, serviceAccounts: &who [x, y], ports: &ports [{port: 80}]}
        - {name: b, serviceAccounts: *who, ports: *ports}
        """)
    assert at.services["default", "a"].identities == at.services["default", "b"].identities
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    assert problems(bomb) == ["mesh.yaml:7: it has more than 1000000 values, each use of an alias counted"]
    monkeypatch.setattr(yaml_reader, "NODES", 10)
    assert problems("services: [1, 2, 3, 4, 5, 6, 7, 8, 9]") == [
        "mesh.yaml:1: it has more than 10 values, each use of an alias counted"
    ]


@pytest.mark.parametrize("python", [False, True], ids=["libyaml", "python"])
def test_words_are_text_and_both_readers_agree(python: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if python:
        import yaml

        monkeypatch.delattr(yaml, "CSafeLoader")
    text = (
        "[on, yes, 0x1f, 010, 1:30, 2001-01-01, 1_000, +1, .5, 1e3, '7', \"true\", =, <<, 7, -7, 0, 0.5, true, null, ~]"
    )
    assert yaml_reader.read(text).root == [
        "on", "yes", "0x1f", "010", "1:30", "2001-01-01", "1_000", "+1", ".5", "1e3", "7", "true", "=", "<<",
        7, -7, 0, 0.5, True, None, None,
    ]  # fmt: skip
    assert yaml_reader.read("a: |\n  7\nb: 7\n").root == {"a": "7\n", "b": 7}


def test_many_problems_are_not_a_flood() -> None:
    found = problems("services:\n" + "- 1\n" * 150)
    assert len(found) == 101
    assert found[-1] == "mesh.yaml: and 50 more problems"


def test_a_long_value_is_cut_and_stays_on_its_line() -> None:
    (found,) = problems(f'schema: "{"x" * 500}\\n"')
    assert len(found) < 150 and "\n" not in found


def test_what_is_odd_is_told_and_taken() -> None:
    found = loaded(SHOP, Node(namespace="shop", service="billing", service_account="other", mtls=Mode.PERMISSIVE))
    assert found.snapshot is not None
    assert found.notes == (
        "mesh.yaml: spiffe://cluster.local/ns/shop/sa/other, as which this sidecar runs, is not among those who may "
        "serve billing",
        "mesh.yaml: mode DISABLE is looser than --mtls permissive, which stays in force",
    )
    assert loaded(SHOP, Node(service="web", service_account="web")).notes == ()
    (note,) = loaded("services: []", Node(service="web")).notes
    assert note == "mesh.yaml: there is no service web in namespace default, which --service names"


def test_yaml_is_not_imported_before_it_is_needed() -> None:
    assert among(loaded_by("import sidecar.feed.mesh_file"), "yaml") == []
