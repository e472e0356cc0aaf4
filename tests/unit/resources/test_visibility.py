"""What a proxy sees of a mesh follows from who it is, by rules that a table can hold."""

from __future__ import annotations

import pytest

from certs.spiffe import parse, workload
from sidecar.resources.authorization import From, PolicySpec, Rule, Source
from sidecar.resources.documents import Document
from sidecar.resources.kinds import Metadata, Service
from sidecar.resources.mesh_documents import Mesh
from sidecar.resources.proxy_config import RegisteredSpec
from sidecar.resources.schema import EndpointSpec, PortSpec
from sidecar.resources.visibility import entry_spec, scope_of, scoped_mesh, service_spec
from tests.unit.resources.docs import doc, entry, mesh, names, service

FIVE = (
    service("a/web")
    + service("a/api", more="exportTo: ['*']")
    + service("b/db")
    + service("b/shared", more="exportTo: ['*']")
    + service("b/given", more="exportTo: [a, .]")
    + service("c/hidden", more="exportTo: ['.']")
    + service("c/nobody", more="exportTo: ['~']")
    + entry("a/out", "out.example", "exportTo: ['.']")
    + entry("b/ext", "ext.example, '*.wild.example'")
    + entry("b/all", "all.example", "exportTo: ['*']")
)


def sidecar(where: str, hosts: str, more: str = "") -> str:
    return doc("Sidecar", where, f"{{egress: [{{hosts: [{hosts}]}}], {more}}}")


@pytest.mark.parametrize(
    ("who", "services", "entries"),
    [
        ("a/web", "a/api a/web b/given b/shared", "a/out b/all"),
        ("b/db", "a/api b/db b/given b/shared", "b/all b/ext"),
        ("c/x", "a/api b/shared c/hidden", "b/all"),
        ("c/nobody", "a/api b/shared c/hidden c/nobody", "b/all"),  # its own, whoever else sees it
        ("d/x", "a/api b/shared", "b/all"),
    ],
)
def test_without_a_sidecar_document(who: str, services: str, entries: str) -> None:
    namespace, _, account = who.partition("/")
    found = scope_of(mesh(FIVE), namespace, account)
    assert (names(found.services), names(found.entries)) == (services, entries)
    assert found.outbound_policy is None
    assert found.peer_authentication.mtls.mode == "UNSET"


@pytest.mark.parametrize(
    ("hosts", "services", "entries"),
    [
        ("./*", "a/api a/web", "a/out"),
        ("b/*", "a/web b/db b/given b/shared", "b/all b/ext"),
        ("c/*", "a/web", ""),  # what is exported bounds what is asked
        ("'*/*'", "a/api a/web b/db b/given b/shared", "a/out b/all b/ext"),
        ("~/*", "a/web", ""),
        ("b/db.b.svc.cluster.local", "a/web b/db", ""),
        ("a/db.b.svc.cluster.local", "a/web", ""),
        ("'*/db.b.svc.cluster.local'", "a/web b/db", ""),
        ("'*/*.b.svc.cluster.local'", "a/web b/db b/given b/shared", ""),
        ("'*/*.example'", "a/web", "a/out b/all b/ext"),
        ("b/ext.example", "a/web", "b/ext"),
        ("b/x.wild.example", "a/web", "b/ext"),
        ("b/wild.example", "a/web", ""),
        ("'b/*.x.wild.example'", "a/web", "b/ext"),
        ("./out.example, b/db.b.svc.cluster.local", "a/web b/db", "a/out"),
    ],
)
def test_a_sidecar_document_says_what_is_seen(hosts: str, services: str, entries: str) -> None:
    for where in ("a/x", "sidecar-system/x"):
        found = scope_of(mesh(FIVE + sidecar(where, hosts)), "a", "web")
        assert (names(found.services), names(found.entries)) == (services, entries)


def test_the_entries_of_the_own_namespace_come_first() -> None:
    both = entry("a/z", "z.example", "exportTo: ['*']") + entry("b/a", "z.example", "exportTo: ['*']")
    assert names(scope_of(mesh(both), "b", "x").entries) == "b/a a/z"
    assert names(scope_of(mesh(both), "c", "x").entries) == "a/z b/a"


def test_a_service_is_somebodys_own_by_its_whole_id_as_well() -> None:
    text = service("b/db", more="exportTo: ['~'], subjectAltNames: ['spiffe://cluster.local/ns/a/sa/web']")
    assert names(scope_of(mesh(text), "a", "web").services) == "b/db"
    other = text.replace("cluster.local", "other.example")
    assert names(scope_of(mesh(other), "a", "web").services) == ""


def peer(where: str, mode: str, labels: str = "", ports: str = "") -> str:
    selector = f"selector: {{matchLabels: {labels}}}," if labels else ""
    return doc("PeerAuthentication", where, f"{{{selector} mtls: {{mode: {mode}}}, portLevelMtls: {{{ports}}}}}")


LABELED = service("a/web", labels="{app: web, v: '1'}") + service("a/both", "web", labels="{app: both}")


@pytest.mark.parametrize(
    ("documents", "mode", "ports"),
    [
        ("", "UNSET", {}),
        (peer("sidecar-system/m", "DISABLE"), "DISABLE", {}),
        (peer("sidecar-system/m", "DISABLE") + peer("a/n", "PERMISSIVE"), "PERMISSIVE", {}),
        (peer("a/n", "PERMISSIVE") + peer("a/w", "STRICT", "{app: web}", "80: {mode: DISABLE}"), "STRICT",
         {80: "DISABLE"}),
        (peer("a/n", "PERMISSIVE") + peer("a/w", "UNSET", "{app: web}", "80: {}, 81: {mode: STRICT}"), "PERMISSIVE",
         {81: "STRICT"}),
        (peer("sidecar-system/m", "DISABLE") + peer("a/n", "UNSET"), "DISABLE", {}),
        (peer("a/w", "DISABLE", "{app: other}"), "UNSET", {}),
        (peer("a/w", "DISABLE", "{app: both, v: '1'}"), "UNSET", {}),  # of two services, and of neither
        (peer("a/w", "DISABLE", "{app: both}"), "DISABLE", {}),
        (peer("b/w", "DISABLE", "{app: web}") + peer("b/n", "DISABLE"), "UNSET", {}),
        (peer("sidecar-system/w", "DISABLE", "{app: web}"), "UNSET", {}),  # of that namespace's workloads alone
        (peer("a/z", "DISABLE") + peer("a/b", "PERMISSIVE"), "PERMISSIVE", {}),
        (peer("a/z", "DISABLE", "{app: web}") + peer("a/b", "PERMISSIVE", "{v: '1'}"), "PERMISSIVE", {}),
    ],
)  # fmt: skip
def test_the_nearest_mode_counts(documents: str, mode: str, ports: dict[int, str]) -> None:
    found = scope_of(mesh(LABELED + documents), "a", "web").peer_authentication
    assert (found.mtls.mode, {port: each.mode for port, each in found.port_level_mtls.items()}) == (mode, ports)


def authz(where: str, labels: str = "", more: str = "") -> str:
    selector = f"selector: {{matchLabels: {labels}}}," if labels else ""
    return doc("AuthorizationPolicy", where, f"{{{selector} {more}}}")


@pytest.mark.parametrize(
    ("documents", "policies"),
    [
        ("", ""),
        (authz("a/n") + authz("a/m") + authz("a/w", "{app: web}"), "a/m a/n a/w"),
        (authz("a/n") + authz("sidecar-system/z") + authz("sidecar-system/y"), "sidecar-system/y sidecar-system/z a/n"),
        (authz("sidecar-system/w", "{app: web}") + authz("sidecar-system/o", "{app: other}"), "sidecar-system/w"),
        (authz("a/w", "{app: web, v: '1'}") + authz("a/x", "{app: both}") + authz("a/o", "{app: web, v: '2'}"),
         "a/w a/x"),
        (authz("a/w", "{app: both, v: '1'}"), ""),  # of two services, and of neither
        (authz("b/n") + authz("b/w", "{app: web}"), ""),
    ],
)  # fmt: skip
def test_all_policies_that_apply_hold_together(documents: str, policies: str) -> None:
    """Unlike PeerAuthentication, of which the nearest counts."""
    found = scope_of(mesh(LABELED + documents), "a", "web").authorization
    assert " ".join(each.title for each in found) == policies


def test_a_policy_of_the_root_namespace_is_there_once_for_its_own_workloads() -> None:
    found = scope_of(mesh(authz("sidecar-system/x")), "sidecar-system", "any").authorization
    assert [each.title for each in found] == ["sidecar-system/x"]


def test_a_policy_is_told_as_it_is_written() -> None:
    rules = "rules: [{from: [{source: {namespaces: [b]}}]}, {}]"
    text = authz("a/dry", more=f"action: DENY, {rules}").replace(
        "labels: {}", "annotations: {istio.io/dry-run: 'true'}"
    )
    text += authz("a/wet").replace("labels: {}", "annotations: {istio.io/dry-run: 'false'}")
    at = mesh(text)
    dry, wet = scope_of(at, "a", "x").authorization
    assert dry == PolicySpec("dry", "a", "DENY", [Rule([From(Source(namespaces=["b"]))]), Rule()], True)
    assert wet == PolicySpec("wet", "a")
    assert scoped_mesh(at, workload("cluster.local", "a", "x"), version="0.1", issued=0.0).authorization == [dry, wet]


def test_labels_of_another_origin_count_beside_those_of_services() -> None:
    at = mesh(LABELED + authz("a/w", "{app: web}") + authz("a/x", "{tier: old}"))
    assert [each.name for each in scope_of(at, "a", "web", [{"tier": "old"}]).authorization] == ["w", "x"]
    assert [each.name for each in scope_of(at, "a", "unknown", [{"tier": "old"}]).authorization] == ["x"]


def policy(where: str, mode: str, more: str = "") -> str:
    return doc("Sidecar", where, f"{{outboundTrafficPolicy: {{mode: {mode}}}, {more}}}")


def test_each_part_of_a_sidecar_document_is_the_nearest_that_says_it() -> None:
    root = policy("sidecar-system/r", "REGISTRY_ONLY", "egress: [{hosts: ['~/*']}]")
    here = sidecar("a/n", "./*")
    mine = policy("a/w", "ALLOW_ANY", "workloadSelector: {labels: {app: web}}")
    for documents, mode, seen in (
        (root, "REGISTRY_ONLY", "a/both a/web"),
        (root + here, "REGISTRY_ONLY", "a/both a/other a/web"),
        (root + here + mine, "ALLOW_ANY", "a/both a/other a/web"),
    ):
        found = scope_of(mesh(LABELED + service("a/other") + documents), "a", "web")
        assert (found.outbound_policy, names(found.services)) == (mode, seen)
    found = scope_of(mesh(LABELED + root + here + mine), "a", "somebody")
    assert found.outbound_policy == "REGISTRY_ONLY"


def test_a_service_with_what_was_registered() -> None:
    at = mesh(service("a/web", more="endpoints: [{address: 10.0.0.1}], ", ports="{port: 80, targetPort: 8080}"))
    same, other = EndpointSpec("10.0.0.1", port=8080), EndpointSpec("::ffff:10.0.0.2")
    found = service_spec(at, ("a", "web"), [same, other, EndpointSpec("10.0.0.2", labels={"x": "y"})], ("240.240.0.1",))
    assert [each.address for each in found.endpoints] == ["10.0.0.1", "::ffff:10.0.0.2"]
    assert found.addresses == ["240.240.0.1"]
    assert (found.name, found.namespace, found.service_accounts) == ("web", "a", ["web"])
    named = mesh(service("a/web", more="addresses: [10.9.9.9]"))
    assert service_spec(named, ("a", "web"), (), ("240.240.0.1",)).addresses == ["10.9.9.9"]
    with pytest.raises(KeyError):
        service_spec(at, ("a", "unknown"))


def test_of_a_registered_endpoint_those_addresses_are_told_that_the_document_has_not() -> None:
    at = mesh(service("a/web", more="endpoints: [{address: 10.0.0.1}], ", ports="{port: 80, targetPort: 8080}"))
    for found, told in (
        (RegisteredSpec("10.0.0.1", also_at=["fd00::1", "10.0.0.3"]), ["fd00::1", "10.0.0.3"]),
        (RegisteredSpec("fd00::1", also_at=["10.0.0.1"]), ["fd00::1"]),
        (RegisteredSpec("10.0.0.1"), None),
    ):
        endpoints = service_spec(at, ("a", "web"), [found]).endpoints[1:]
        assert [each.addresses for each in endpoints] == ([] if told is None else [told])


def vm(name: str, address: str, labels: str, ports: str = "") -> str:
    return doc("WorkloadEntry", name, f"{{address: {address}, labels: {labels}, ports: {{{ports}}}}}")


def test_an_entry_with_the_workloads_that_it_selects() -> None:
    machines = (
        vm("a/v2", "10.0.0.2", "{app: vm}", "tls: 8443, other: 1")
        + vm("a/v1", "10.0.0.1", "{app: vm, x: y}")
        + vm("a/again", "10.0.0.1", "{app: vm}")
        + vm("a/no", "10.0.0.3", "{app: other}")
        + vm("a/named", "vm.example", "{app: vm}")
        + vm("b/far", "10.0.0.4", "{app: vm}")
    )
    chosen = "resolution: {}, workloadSelector: {{labels: {{app: vm}}}}"
    at = mesh(entry("a/out", "out.example", chosen.format("STATIC")) + machines)
    found = entry_spec(at, ("a", "out"), ("240.240.0.9",))
    assert [(each.address, each.ports) for each in found.endpoints] == [("10.0.0.1", {}), ("10.0.0.2", {"tls": 8443})]
    assert (found.resolution, found.addresses, found.ports[0].app_protocol) == ("STATIC", ["240.240.0.9"], "tls")
    at = mesh(entry("a/out", "out.example", chosen.format("DNS")) + machines)
    assert [each.address for each in entry_spec(at, ("a", "out")).endpoints] == ["10.0.0.1", "vm.example", "10.0.0.2"]


def test_all_that_a_proxy_obeys() -> None:
    at = mesh(FIVE + peer("a/n", "PERMISSIVE") + policy("a/s", "REGISTRY_ONLY"))
    found = scoped_mesh(
        at,
        workload("cluster.local", "a", "web"),
        lambda place: [EndpointSpec(f"10.0.0.{len(place[1])}")],
        lambda place: ("240.240.0.1",) if place == ("a", "web") else (),
        version="3.7",
        issued=12.5,
    )
    assert (found.schema, found.version, found.proxy, found.issued) == (
        "1.4",
        "3.7",
        "spiffe://cluster.local/ns/a/sa/web",
        12.5,
    )
    assert [f"{each.namespace}/{each.name}" for each in found.services] == ["a/api", "a/web", "b/given", "b/shared"]
    assert [each.endpoints[0].address for each in found.services] == ["10.0.0.3", "10.0.0.3", "10.0.0.5", "10.0.0.6"]
    assert [each.addresses for each in found.services] == [[], ["240.240.0.1"], [], []]
    assert [each.name for each in found.service_entries] == ["out", "all"]
    assert (found.peer_authentication.mtls.mode, found.outbound_policy) == ("PERMISSIVE", "REGISTRY_ONLY")
    with pytest.raises(ValueError, match="is no workload"):
        scoped_mesh(at, parse("spiffe://cluster.local/x"), version="0.1", issued=0.0)


def plain_service(namespace: str, name: str, account: str, exported: bool = False) -> Document:
    spec = Service([PortSpec(80)], [account], export_to=["*"] if exported else [])
    return Document("sidecar/v1", "Service", Metadata(name, namespace), spec)


def test_a_mesh_is_changed_and_stays_as_it_was() -> None:
    before = Mesh([plain_service("a", "web", "x")])
    assert names(scope_of(before, "a", "x").services) == "a/web"
    after = before.with_(plain_service("a", "api", "x")).with_(plain_service("b", "db", "y", exported=True))
    assert (len(before), len(after)) == (1, 3)
    assert names(scope_of(after, "a", "x").services) == "a/api a/web b/db"
    assert names(scope_of(before, "a", "x").services) == "a/web"
    gone = after.without(("Service", "a", "web")).without(("Service", "a", "unknown")).without(("Nothing", "a", "b"))
    assert names(scope_of(gone, "a", "x").services) == "a/api b/db"
    assert gone.get(("Service", "a", "web")) is None and after.get(("Service", "a", "web")) is not None
    assert sorted(each.title for each in gone.documents()) == ["Service a/api", "Service b/db"]


def test_a_change_makes_no_tables_anew_but_those_of_its_kind() -> None:
    at = Mesh([plain_service("a", "web", "x")])
    services, entries = at.services, at.entries
    assert at.services is services
    changed = at.with_(plain_service("a", "api", "x"))
    assert changed.entries is entries
    assert changed.services is not services
