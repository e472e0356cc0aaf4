"""Which routes and rules for destinations a proxy sees, in which order, and what it is told of them."""

from __future__ import annotations

import msgspec
import pytest

from certs.spiffe import workload
from sidecar.resources.mesh_documents import Mesh
from sidecar.resources.visibility import backend_policy_spec, scope_of, scoped_mesh, virtual_service_spec
from tests.unit.resources.docs import doc, entry, mesh, names, service

TO_WEB = "http: [{route: [{destination: {host: web}}]}]"


def routes(where: str, hosts: str, more: str = "", rules: str = TO_WEB) -> str:
    return doc("VirtualService", where, f"{{hosts: [{hosts}], {rules}, {more}}}")


def rule(where: str, host: str, more: str = "") -> str:
    return doc("DestinationRule", where, f"{{host: {host}, {more}}}")


SAYING = {"DestinationRule": "", "BackendTrafficPolicy": "retryBudget: {retryRatio: 0.1}"}


def backend(where: str, host: str, more: str = "") -> str:
    return doc("BackendTrafficPolicy", where, f"{{host: {host}, {more}}}")


def aged(at: Mesh, kind: str, **ages: float) -> Mesh:
    """With these documents of a kind created then; ``a_x`` is ``a/x``."""
    documents = [at.of(kind)[namespace, name] for namespace, name in (each.split("_") for each in ages)]
    return at.changed(
        msgspec.structs.replace(each, created=age) for each, age in zip(documents, ages.values(), strict=True)
    )


SEEN = (
    service("a/web")
    + service("b/db")
    + service("b/shared", more="exportTo: ['*']")
    + service("c/hidden")
    + entry("b/ext", "ext.example, '*.wild.example'", "exportTo: ['*']")
    + entry("c/own", "own.example")
)
FULL = "{}.svc.cluster.local"


@pytest.mark.parametrize(
    ("hosts", "seen_in"),
    [
        ("web", ""),  # web.x, which is no service
        ("shared.b.svc.cluster.local", "abc"),
        ("db.b.svc.cluster.local", "b"),
        ("hidden.c.svc.cluster.local", "c"),
        ("'*.b.svc.cluster.local'", "abc"),
        ("'*.c.svc.cluster.local'", "c"),
        ("'*.svc.cluster.local'", "abc"),
        ("'*.local'", "abc"),
        ("ext.example", "abc"),
        ("own.example", "c"),
        ("x.y.wild.example", "abc"),
        ("wild.example", ""),
        ("'*.x.wild.example'", "abc"),
        ("'*.example'", "abc"),
        ("elsewhere.example", ""),
        ("own.example, db.b.svc.cluster.local", "bc"),
        ("web.a", ""),  # a name with a dot is taken as it is
    ],
)
def test_without_export_to_those_see_a_virtual_service_that_see_a_host_of_it(hosts: str, seen_in: str) -> None:
    at = mesh(SEEN + routes("x/r", hosts))
    assert "".join(who for who in "abc" if scope_of(at, who, "any").virtual_services) == seen_in
    assert names(scope_of(at, "x", "any").virtual_services) == "x/r", "its own namespace sees it whatever its hosts"


@pytest.mark.parametrize(
    ("exports", "seen_in"),
    [("'*'", "abcx"), (".", "x"), ("b", "b"), ("b, .", "bx")],
)
def test_export_to_says_who_sees_a_virtual_service(exports: str, seen_in: str) -> None:
    for hosts in ("shared.b.svc.cluster.local", "alias.example"):
        at = mesh(SEEN + routes("x/r", hosts, f"exportTo: [{exports}]"))
        assert "".join(who for who in "abcx" if scope_of(at, who, "any").virtual_services) == seen_in


def test_hosts_of_a_sidecar_document_bound_the_virtual_services_of_others() -> None:
    text = (
        SEEN
        + routes("a/own", "nothing.example")
        + "".join(
            routes(f"x/{name}", host, more)
            for name, host, more in (
                ("db", "db.b.svc.cluster.local", ""),
                ("shared", "shared.b.svc.cluster.local", ""),
                ("alias", "alias.example", "exportTo: ['*']"),
                ("public", "db.b.svc.cluster.local", "exportTo: ['*']"),
            )
        )
    )
    assert names(scope_of(mesh(text), "a", "any").virtual_services) == "a/own x/alias x/public x/shared"
    narrow = doc("Sidecar", "a/s", "{egress: [{hosts: ['b/db.b.svc.cluster.local']}]}")
    assert names(scope_of(mesh(text + narrow), "a", "any").virtual_services) == "a/own x/db x/public"


def test_the_older_virtual_service_counts_and_of_one_age_the_first_by_namespace_and_name() -> None:
    host = "shared.b.svc.cluster.local"
    at = mesh(SEEN + "".join(routes(where, host) for where in ("b/x", "b/a", "a/z", "c/m")))
    assert names(scope_of(at, "a", "any").virtual_services) == "a/z b/a b/x c/m"
    older = aged(at, "VirtualService", b_x=3.0, b_a=4.0, a_z=5.0, c_m=3.5)
    assert names(scope_of(older, "a", "any").virtual_services) == "b/x c/m b/a a/z"


def test_gateways_stand_in_place_of_what_a_match_says_of_the_caller() -> None:
    caller = "sourceLabels: {app: else}, sourceNamespace: else"
    rule = f"{{match: [{{gateways: [mesh], {caller}}}, {{{caller}}}], route: [{{destination: {{host: one}}}}]}}"
    (told,) = virtual_service_spec(mesh(routes("a/r", "web", rules=f"http: [{rule}]")), ("a", "r")).http
    assert [(each.source_labels, each.source_namespace) for each in told.match] == [({}, ""), ({"app": "else"}, "else")]


def test_what_is_for_gateways_alone_is_not_sent() -> None:
    """Neither a match, nor a rule that would take everything without its matches, nor all of the document."""

    def to(host: str, *matches: str) -> str:
        return f"{{match: [{', '.join(matches)}], route: [{{destination: {{host: {host}}}}}]}}"

    both, edge = "{port: 80, gateways: [edge, mesh]}", "{port: 81, gateways: [edge]}"
    rules = f"http: [{to('one', both, edge, '{port: 82}')}, {to('two', edge)}], tcp: [{to('three', edge)}]"
    at = mesh(
        routes("a/r", "web", "gateways: [mesh, edge]", rules)
        + routes("a/only", "web", rules=f"http: [{to('x', edge)}]")
    )
    assert names(scope_of(at, "a", "any").virtual_services) == "a/r"
    told = virtual_service_spec(at, ("a", "r"))
    assert [[(each.port, each.gateways) for each in every.match] for every in told.http] == [[(80, []), (82, [])]]
    assert told.tcp == [] and [each.destination.host for each in told.http[0].route] == ["one.a.svc.cluster.local"]


def test_names_are_full_where_a_proxy_is_told_them() -> None:
    rules = """
        http: [{route: [{destination: {host: Web}, weight: 1}, {destination: {host: api.b}, weight: 1}],
                mirrors: [{destination: {host: n, subset: v1}}]},
               {route: [{destination: {host: web}}], mirror: {host: m}}],
        tcp: [{route: [{destination: {host: t}}]}],
        tls: [{match: [{sniHosts: [web]}], route: [{destination: {host: s, port: {number: 443}}}]}]"""
    at = mesh(
        routes("a/r", "Web, web.b, '*.example', out.test", rules=rules)
        + rule("a/d", "web", "subsets: [{name: v1, labels: {version: v1}}]")
        + backend("a/p", "web", "retry: {nonIdempotentRoutes: [pay]}")
    )
    told = virtual_service_spec(at, ("a", "r"))
    assert told.hosts == [FULL.format("web.a"), "web.b", "*.example", "out.test"]
    route, second = told.http
    assert [each.destination.host for each in route.route] == [FULL.format("web.a"), "api.b"]
    assert second.mirror is not None and second.mirror.host == FULL.format("m.a")
    assert [(each.destination.host, each.destination.subset) for each in route.mirrors] == [(FULL.format("n.a"), "v1")]
    assert [each.destination.host for each in told.tcp[0].route] == [FULL.format("t.a")]
    assert [each.destination.host for each in told.tls[0].route] == [FULL.format("s.a")]
    assert told.tls[0].match[0].sni_hosts == ["web"], "a server name is what the app sends"
    whole = scoped_mesh(at, workload("cluster.local", "a", "any"), version="0.1", issued=0.0)
    assert [(each.title, each.host) for each in whole.destination_rules] == [("a/d", FULL.format("web.a"))]
    assert whole.destination_rules[0].subsets[0].labels == {"version": "v1"}
    assert whole.backend_traffic_policies == [backend_policy_spec(at, ("a", "p"))]
    assert whole.backend_traffic_policies[0].host == FULL.format("web.a")
    assert whole.backend_traffic_policies[0].retry.non_idempotent_routes == ["pay"]
    assert [each.title for each in whole.virtual_services] == ["a/r"]


# -- rules for destinations -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["DestinationRule", "BackendTrafficPolicy"])
@pytest.mark.parametrize(
    ("where", "host", "seen_in"),
    [
        ("b/r", "shared", "abc"),
        ("b/r", "db", "b"),
        ("b/r", "'*.b.svc.cluster.local'", "abc"),
        ("b/r", "'*.svc.cluster.local'", "abc"),
        ("b/r", "hidden.c.svc.cluster.local", "b"),  # of another namespace than the service's: for its own callers
        ("c/r", "shared.b.svc.cluster.local", "c"),
        ("c/r", "'*.svc.cluster.local'", "c"),  # for services of c, of which others see none
        ("b/r", "ext.example", "abc"),
        ("b/r", "'*.example'", "abc"),
        ("c/r", "ext.example", "c"),
        ("b/r", "nothing.example", "b"),
        ("sidecar-system/r", "shared.b.svc.cluster.local", "abc"),
        ("sidecar-system/r", "hidden.c.svc.cluster.local", "c"),
        ("sidecar-system/r", "'*.local'", "abc"),
        ("sidecar-system/r", "own.example", "c"),
        ("sidecar-system/r", "nothing.example", ""),
    ],
)
def test_who_sees_a_rule_for_a_destination(kind: str, where: str, host: str, seen_in: str) -> None:
    at = mesh(SEEN + doc(kind, where, f"{{host: {host}, {SAYING[kind]}}}"))

    def seen(at: Mesh, who: str) -> bool:
        scope = scope_of(at, who, "any")
        return bool(scope.destination_rules if kind == "DestinationRule" else scope.backend_policies)

    assert "".join(who for who in "abc" if seen(at, who)) == seen_in
    for exports, left in (("'*'", seen_in), ("a", "a" if "a" in seen_in else "")):
        bounded = mesh(SEEN + doc(kind, where, f"{{host: {host}, exportTo: [{exports}], {SAYING[kind]}}}"))
        assert "".join(who for who in "abc" if seen(bounded, who)) == left
    own = mesh(SEEN + doc(kind, where, f"{{host: {host}, exportTo: [.], {SAYING[kind]}}}"))
    assert "".join(who for who in "abc" if seen(own, who)) == "".join(who for who in "abc" if where == f"{who}/r")


@pytest.mark.parametrize("kind", ["DestinationRule", "BackendTrafficPolicy"])
def test_the_callers_namespace_comes_first_then_the_services_then_the_root(kind: str) -> None:
    host = "shared.b.svc.cluster.local"
    at = mesh(SEEN + "".join(doc(kind, where, f"{{host: {host}, {SAYING[kind]}}}") for where in (
        "sidecar-system/a", "b/y", "b/x", "a/q", "a/p",
    )))  # fmt: skip
    at = aged(at, kind, **{"sidecar-system_a": 1.0, "b_y": 2.0, "b_x": 3.0, "a_q": 5.0, "a_p": 4.0})

    def seen(who: str) -> str:
        scope = scope_of(at, who, "any")
        return names(scope.destination_rules if kind == "DestinationRule" else scope.backend_policies)

    assert seen("a") == "a/p a/q b/y b/x sidecar-system/a"
    assert seen("c") == "b/y b/x sidecar-system/a"
    assert seen("b") == "b/y b/x sidecar-system/a"


def test_a_rule_with_a_workload_selector_stands_in_place_of_those_of_its_host_for_these_workloads() -> None:
    def selecting(where: str, labels: str, host: str = "web") -> str:
        return rule(where, host, f"workloadSelector: {{matchLabels: {labels}}}")

    at = mesh(
        service("a/web", labels="{app: web, tier: front}") + service("a/cart", labels="{app: cart}")
        + service("b/shared", more="exportTo: ['*']")
        + rule("a/all", "web") + rule("a/other", "cart")
        + selecting("a/some", "{app: web}") + selecting("a/more", "{app: web}") + selecting("a/tier", "{tier: front}")
        + selecting("b/far", "{app: web}", "shared")
        + selecting("sidecar-system/root", "{app: web}", "web.a.svc.cluster.local")
    )  # fmt: skip
    at = aged(at, "DestinationRule", a_all=1.0, a_some=2.0, a_tier=3.0, a_more=4.0, a_other=5.0)
    assert names(scope_of(at, "a", "web").destination_rules) == "a/some a/more a/other"
    assert names(scope_of(at, "a", "cart").destination_rules) == "a/all a/other"
    assert names(scope_of(at, "a", "cart", [{"tier": "front"}]).destination_rules) == "a/tier a/other"


# -- what it costs ----------------------------------------------------------------------------------------------------


def test_a_change_of_routes_makes_no_table_of_services_anew_and_one_of_entries_makes_that_of_routes() -> None:
    at = mesh(SEEN + routes("b/r", "late.example"))
    services, routed = at.services, at.virtual_services
    changed = at.with_(mesh(routes("b/s", "web")).of("VirtualService")["b", "s"])
    assert changed.services is services and changed.virtual_services is not routed
    assert at.with_(mesh(service("q/q")).of("Service")["q", "q"]).virtual_services is routed
    assert names(scope_of(at, "a", "any").virtual_services) == ""
    late = at.with_(mesh(entry("c/late", "late.example", "exportTo: ['*']")).of("ServiceEntry")["c", "late"])
    assert names(scope_of(late, "a", "any").virtual_services) == "b/r"
