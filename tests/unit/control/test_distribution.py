"""The pure parts of distribution: whom a change concerns, what is sent, what is remembered of proxies."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.spiffe import workload
from control.distribution.content import PART_BYTES, SCHEMA, Content, Snapshot, rules_of, schema_for
from control.distribution.invalidation import affected
from control.distribution.proxies import GONE_SECONDS, PROBLEM_CHARS, Proxies, Proxy, Seen
from control.distribution.schemas import Status
from control.distribution.subscriptions import Member, Subscriptions
from control.version import Version
from control.watchable import Watchable
from sidecar.resources import snapshot
from sidecar.resources.authorization import Condition, PolicySpec, Rule
from sidecar.resources.destination_rule import (
    BackendTrafficPolicySpec,
    DestinationRuleSpec,
    RetryRatioBudget,
    Subset,
)
from sidecar.resources.documents import Document, Key
from sidecar.resources.kinds import (
    DRY_RUN,
    AuthorizationPolicy,
    BackendTrafficPolicy,
    DestinationRule,
    Egress,
    Metadata,
    OutboundTrafficPolicy,
    PeerAuthentication,
    RateLimitPolicy,
    Selector,
    Service,
    ServiceEntry,
    Sidecar,
    Spec,
    VirtualService,
    WorkloadEntry,
    WorkloadSelector,
)
from sidecar.resources.mesh_documents import Mesh, Place
from sidecar.resources.proxy_config import EntrySpec, ProxyConfig, RegisteredSpec, ResolvedService
from sidecar.resources.rate_limits import LimitMode, LimitPolicySpec, RateLimit, RequestRate
from sidecar.resources.schema import EndpointSpec, MutualTls, PeerAuthenticationSpec, PortSpec
from sidecar.resources.virtual_service import (
    Destination,
    HTTPMatchRequest,
    HTTPRoute,
    HTTPRouteDestination,
    VirtualServiceSpec,
)
from sidecar.resources.visibility import (
    Visibility,
    backend_policy_spec,
    destination_rule_spec,
    entry_spec,
    limit_policy_spec,
    policy_spec,
    scope_of,
    scoped_mesh,
    service_spec,
    virtual_service_spec,
)

RULES = rules_of(Visibility((), (), PeerAuthenticationSpec(), None))

# -- whom a change concerns: nobody who would see something else is left out ------------------------------------------

NAMESPACES = ("a", "b", "sidecar-system")
NAMES = ("x", "y")
WHO = [(namespace, name) for namespace in NAMESPACES for name in NAMES]
LABELS = st.sampled_from([{}, {"tier": "old"}, {"tier": "new"}])
EXPORTS = st.lists(st.sampled_from([".", "*", "a", "b"]), max_size=2, unique=True)
ACCOUNTS = st.lists(st.sampled_from(NAMES), max_size=2, unique=True)
IDS = st.lists(st.sampled_from([str(workload("cluster.local", *who)) for who in WHO]), max_size=1)
ROUTED = ["x", "y", "x.a.svc.cluster.local", "*.a.svc.cluster.local", "*.local", "db.example.com", "*.example.com"]
GATEWAYS: st.SearchStrategy[list[str]] = st.sampled_from([[], [], ["mesh"], ["edge"]])
ROUTES = st.builds(
    lambda gateways, host: [HTTPRoute(
        match=[HTTPMatchRequest(gateways=gateways)] if gateways else [],
        route=[HTTPRouteDestination(Destination(host))],
    )],
    GATEWAYS, st.sampled_from(["x", "y"]),
)  # fmt: skip
HOSTS = st.lists(
    st.sampled_from(["*/*", "./*", "a/*", "~/*", "*/x.a.svc.cluster.local", "*/db.example.com"]), min_size=1, max_size=2
)
SPECS: dict[str, st.SearchStrategy[Spec]] = {
    "Service": st.builds(
        lambda accounts, ids, exports, port: Service([PortSpec(port)], accounts, ids, export_to=exports),
        ACCOUNTS, IDS, EXPORTS, st.sampled_from([80, 81]),
    ),
    "ServiceEntry": st.builds(
        lambda hosts, exports, selector: ServiceEntry(hosts, [], workload_selector=selector, export_to=exports),
        st.sampled_from([["db.example.com"], ["other.example.com"], ["*.example.com"]]), EXPORTS,
        st.sampled_from([None, WorkloadSelector({"tier": "old"})]),
    ),
    "WorkloadEntry": st.builds(lambda labels: WorkloadEntry("10.0.0.1", labels=labels), LABELS),
    "PeerAuthentication": st.builds(
        lambda labels, mode: PeerAuthentication(Selector(labels), MutualTls(mode)),
        LABELS, st.sampled_from(["STRICT", "PERMISSIVE"]),
    ),
    "AuthorizationPolicy": st.builds(
        lambda labels, action, rules: AuthorizationPolicy(Selector(labels), action, rules),
        LABELS, st.sampled_from(["ALLOW", "DENY"]),
        st.sampled_from([[], [Rule()], [Rule(when=[Condition("source.ip", ["10.0.0.1"])])]]),
    ),
    "RateLimitPolicy": st.builds(
        lambda labels, requests: RateLimitPolicy(
            [RateLimit("all", rate=RequestRate(requests, "1s"))], Selector(labels)
        ),
        LABELS, st.integers(1, 3),
    ),
    "VirtualService": st.builds(
        lambda hosts, gateways, http, exports: VirtualService(hosts, gateways, http, export_to=exports),
        st.lists(st.sampled_from(ROUTED), min_size=1, max_size=2, unique=True), GATEWAYS, ROUTES, EXPORTS,
    ),
    "DestinationRule": st.builds(
        lambda host, subset, exports, labels: DestinationRule(
            host, subsets=[Subset(subset)], export_to=exports, workload_selector=Selector(labels) if labels else None
        ),
        st.sampled_from(ROUTED), st.sampled_from(["v1", "v2"]), EXPORTS, LABELS,
    ),
    "BackendTrafficPolicy": st.builds(
        lambda host, ratio, exports: BackendTrafficPolicy(host, RetryRatioBudget(ratio), export_to=exports),
        st.sampled_from(ROUTED), st.sampled_from([0.1, 0.2]), EXPORTS,
    ),
    "Sidecar": st.builds(
        lambda labels, hosts, mode: Sidecar(
            WorkloadSelector(labels) if labels else None, [Egress(hosts)], OutboundTrafficPolicy(mode)
        ),
        LABELS, HOSTS, st.sampled_from(["ALLOW_ANY", "REGISTRY_ONLY"]),
    ),
}  # fmt: skip


@st.composite
def documents(draw: st.DrawFn) -> Document:
    kind = draw(st.sampled_from(sorted(SPECS)))
    metadata = Metadata(draw(st.sampled_from(NAMES)), draw(st.sampled_from(NAMESPACES)), draw(LABELS))
    created = draw(st.sampled_from([1.0, 2.0]))
    return Document("v1", kind, metadata, draw(SPECS[kind]), created)  # type: ignore[arg-type]  # one of its kinds


PIECES: dict[str, Callable[[Mesh, Place], msgspec.Struct]] = {
    "Service": service_spec,
    "ServiceEntry": entry_spec,
    "AuthorizationPolicy": policy_spec,
    "RateLimitPolicy": limit_policy_spec,
    "VirtualService": virtual_service_spec,
    "DestinationRule": destination_rule_spec,
    "BackendTrafficPolicy": backend_policy_spec,
}


def piece(mesh: Mesh, key: Key) -> msgspec.Struct:
    kind, *place = key
    namespace, name = place
    return PIECES[kind](mesh, (namespace, name))


@settings(max_examples=400, deadline=None)
@given(st.lists(documents(), max_size=8), st.lists(documents(), max_size=3), st.lists(st.integers(0, 7), max_size=2))
def test_nobody_whom_a_change_concerns_is_left_out(old: list[Document], new: list[Document], gone: list[int]) -> None:
    before = Mesh(old)
    leaving = {old[index].key for index in gone if index < len(old)} - {each.key for each in new}
    after = before.changed(new, [key for key in leaving if before.get(key)])
    changed = {each.key for each in new} | leaving
    found = affected(changed, before, after)
    for namespace, account in WHO:
        told = (
            found.everybody
            or namespace in found.namespaces
            or (namespace, account) in found.accounts
            or str(workload("cluster.local", namespace, account)) in found.identities
        )
        assert told or scope_of(before, namespace, account) == scope_of(after, namespace, account)
    for kind in PIECES:
        for place in set(before.of(kind)) & set(after.of(kind)):
            key = (kind, *place)
            told = key in found.pieces or (kind == "ServiceEntry" and place[0] in found.selecting)
            assert told or piece(before, key) == piece(after, key)


def test_a_change_of_what_a_service_has_concerns_nobodys_scope() -> None:
    def web(port: int) -> Document:
        return Document(
            "sidecar/v1", "Service", Metadata("web", "a"), Service([PortSpec(port)], ["x"], export_to=["*"])
        )

    found = affected([web(80).key], Mesh([web(80)]), Mesh([web(81)]))
    assert not (found.everybody or found.namespaces or found.accounts or found.identities)
    assert found.pieces == {("Service", "a", "web")}


# -- what is sent ------------------------------------------------------------------------------------------------------


def snapshot_of(mesh: Mesh, namespace: str, account: str) -> tuple[Snapshot, Subscriptions]:
    """As a round makes it."""
    audience = Subscriptions(lambda key: msgspec.json.encode(piece(mesh, key)))
    scope = scope_of(mesh, namespace, account)
    view, steps = audience.view(scope)
    list(steps)
    rules = rules_of(scope)
    identity = str(workload("cluster.local", namespace, account))
    content = msgspec.structs.replace(view.content, rules=rules)
    return Snapshot(identity, "cluster.local", 17.5, content), audience


@settings(max_examples=100, deadline=None)
@given(st.lists(documents(), max_size=12), st.sampled_from(WHO))
def test_the_pieces_together_are_the_whole_mesh(found: list[Document], who: tuple[str, str]) -> None:
    mesh = Mesh(found)
    made, _ = snapshot_of(mesh, *who)
    body = b"".join(made.parts("1.2"))
    whole = scoped_mesh(mesh, workload("cluster.local", *who), version="1.2", issued=17.5)
    assert msgspec.json.decode(body, type=ProxyConfig) == whole
    assert len(body) == made.length("1.2")


def test_no_part_is_long_and_a_service_that_is_stays_whole() -> None:
    pieces = [(digit * 1000,) * 500 for digit in (b"1", b"2", b"3")]
    made = Snapshot("spiffe://a/ns/b/sa/c", "a", 1.0, Content(pieces[0], pieces[1], b'"x":1', pieces[2]))
    parts = list(made.parts("1.2"))
    assert len(parts) > 10 and max(map(len, parts)) < PART_BYTES + 1001
    assert sum(map(len, parts)) == made.length("1.2")


def test_a_schema_is_answered_in_the_older_of_two_minors() -> None:
    assert ".".join(map(str, SCHEMA)) == snapshot.SCHEMA, "control plane and proxy are of one release here"
    assert [schema_for(asked) for asked in ("1.0", "1.1", "1.2", "1.3", "1.12")] == [
        (1, 0),
        (1, 1),
        (1, 2),
        (1, 3),
        (1, 4),
    ]
    for asked in ("2.0", "0.9", "1", "", "1.0.0", "1.-1", "١.0"):
        with pytest.raises(ValueError):
            schema_for(asked)


def test_to_a_proxy_of_1_0_each_address_is_an_endpoint_and_the_unwell_are_none() -> None:
    """It would refuse members that it does not know; and no address is left to be called in plaintext."""
    ports = [PortSpec(80)]
    endpoints = [
        RegisteredSpec("10.0.0.1", labels={"version": "v2"}, since=7.0, also_at=["fd00::1"]),
        RegisteredSpec("10.0.0.2", unwell=True),
        RegisteredSpec("10.0.0.3"),
    ]
    dual = ResolvedService(name="dual", ports=ports, service_accounts=["dual"], endpoints=endpoints)
    plain = ResolvedService(name="plain", ports=ports, service_accounts=["plain"], endpoints=endpoints[2:])
    made = Snapshot(
        "spiffe://a/ns/b/sa/c", "a", 1.0,
        Content(tuple(map(msgspec.json.encode, (dual, plain))), (), RULES),
    )  # fmt: skip
    for schema in ((1, 1), (1, 0)):
        assert len(b"".join(made.parts("1.2", schema))) == made.length("1.2", schema)
    new = msgspec.json.decode(b"".join(made.parts("1.2")), type=ProxyConfig)
    assert list(new.services) == [dual, plain]
    body = b"".join(made.parts("1.2", (1, 0)))
    assert b"alsoAt" not in body and b"unwell" not in body
    old = msgspec.json.decode(body, type=ProxyConfig)
    assert [(each.address, each.labels, each.since) for each in old.services[0].endpoints] == [
        ("10.0.0.1", {"version": "v2"}, 7.0), ("fd00::1", {"version": "v2"}, 7.0), ("10.0.0.3", {}, 0.0),
    ]  # fmt: skip
    assert old.services[1] == plain


LIMITS = LimitPolicySpec("few", "shop", [RateLimit("all", rate=RequestRate(1, "1s"))])


@pytest.mark.parametrize(
    ("member", "field", "policy"),
    [
        ("authorization", "policies", PolicySpec("deny", "shop", "DENY", [Rule()])),
        ("rateLimits", "limits", LIMITS),
        ("virtualServices", "virtual_services", VirtualServiceSpec("web", "shop", ["web"])),
        ("destinationRules", "destination_rules", DestinationRuleSpec("web", "shop", "web")),
        ("backendTrafficPolicies", "backend_policies", BackendTrafficPolicySpec("web", "shop", "web")),
    ],
)
def test_a_proxy_of_an_older_minor_is_told_of_policies_and_refuses_the_whole(
    member: str, field: str, policy: msgspec.Struct
) -> None:
    """If it took the rest, it would let every caller pass, or send requests elsewhere. If none applies, the member is
    not sent."""
    rules = RULES
    for policies in ((), (policy,)):
        pieces = tuple(map(msgspec.json.encode, policies))
        content = msgspec.structs.replace(Content(rules=rules), **{field: pieces})
        made = Snapshot("spiffe://a/ns/b/sa/c", "a", 1.0, content)
        for schema in ((1, 4), (1, 3), (1, 2), (1, 1), (1, 0)):
            body = b"".join(made.parts("1.2", schema))
            assert len(body) == made.length("1.2", schema)
            assert (b'"%b"' % member.encode() in body) is bool(policies)
            told = msgspec.json.decode(body, type=ProxyConfig)
            routes = [*told.virtual_services, *told.destination_rules, *told.backend_traffic_policies]
            assert [*told.authorization, *told.rate_limits, *routes] == list(policies)
            older = msgspec.defstruct(
                "Older",
                [(name, object, None) for name in ProxyConfig.__struct_encode_fields__ if name != member],
                forbid_unknown_fields=True,
            )
            if policies:
                with pytest.raises(msgspec.ValidationError, match=f"unknown field `{member}`"):
                    msgspec.json.decode(body, type=older)
            else:
                assert msgspec.json.decode(body, type=older)


def test_to_a_proxy_before_1_4_no_endpoint_has_a_weight() -> None:
    ports = [PortSpec(80, "http")]
    endpoints = [RegisteredSpec("10.0.0.1", weight=3, also_at=["fd00::1"]), RegisteredSpec("10.0.0.2")]
    service = ResolvedService(name="web", ports=ports, service_accounts=["web"], endpoints=endpoints)
    entry = EntrySpec(
        "out", ["out.example"], ports, resolution="STATIC", endpoints=[EndpointSpec("10.9.0.1", weight=2)]
    )
    content = Content((msgspec.json.encode(service),), (msgspec.json.encode(entry),), RULES)
    made = Snapshot("spiffe://a/ns/b/sa/c", "a", 1.0, content)
    for schema, weights in (((1, 4), [3, 1, 2]), ((1, 3), [1, 1, 1]), ((1, 0), [1, 1, 1, 1])):
        body = b"".join(made.parts("1.2", schema))
        assert len(body) == made.length("1.2", schema)
        assert (b'"weight"' in body) is (schema == (1, 4))
        told = msgspec.json.decode(body, type=ProxyConfig)
        found = [*told.services[0].endpoints, *told.service_entries[0].endpoints]
        assert [each.weight for each in found] == weights


def test_a_change_of_routes_concerns_those_that_see_the_host_and_of_weights_nobodys_scope() -> None:
    def routed(*hosts: str, where: str = "b", exports: list[str] = [], subset: str = "v1") -> Document:  # noqa: B006
        route = [HTTPRoute(route=[HTTPRouteDestination(Destination("x", subset))])]
        return Document(
            "v1", "VirtualService", Metadata("r", where), VirtualService(list(hosts), http=route, export_to=exports)
        )

    def served(namespace: str, exports: list[str]) -> Document:
        return Document("v1", "Service", Metadata("x", namespace), Service([PortSpec(80)], ["x"], export_to=exports))

    mesh = Mesh([served("a", ["c"]), served("b", []), served("d", [])])
    for document, namespaces, everybody in (
        (routed("x"), {"b"}, False),
        (routed("x.a.svc.cluster.local"), {"a", "b", "c"}, False),
        (routed("*.a.svc.cluster.local"), {"a", "b", "c"}, False),
        (routed("no.a.svc.cluster.local"), {"b"}, False),
        (routed("x.a.svc.cluster.local", exports=["e", "."]), {"b", "e"}, False),
        (routed("x", exports=["*"]), {"b"}, True),
        (routed("*"), {"b"}, True),
    ):
        for before, after in ((mesh, mesh.with_(document)), (mesh.with_(document), mesh)):
            found = affected([document.key], before, after)
            assert (found.namespaces, found.everybody, found.pieces) == (namespaces, everybody, {document.key})
    before = mesh.with_(routed("x"))
    found = affected([("VirtualService", "b", "r")], before, before.with_(routed("x", subset="v2")))
    assert not (found.everybody or found.namespaces or found.accounts or found.identities)
    assert found.pieces == {("VirtualService", "b", "r")}


def test_a_change_of_a_limit_makes_its_piece_anew() -> None:
    def limits(mode: LimitMode) -> Document:
        return Document("v1", "RateLimitPolicy", Metadata("few", "a"), RateLimitPolicy(LIMITS.limits, mode=mode))

    before = Mesh([limits("ENFORCE")])
    after = before.with_(limits("SHADOW"))
    key = ("RateLimitPolicy", "a", "few")
    found = affected([key], before, after)
    assert (found.everybody, found.namespaces, found.pieces) == (False, {"a"}, {key})
    made, audience = snapshot_of(before, "a", "x")
    assert [msgspec.json.decode(each, type=LimitPolicySpec).mode for each in made.content.limits] == ["ENFORCE"]
    assert audience.seen(found.pieces) == [key]
    changed, _ = snapshot_of(after, "a", "x")
    assert [msgspec.json.decode(each, type=LimitPolicySpec).mode for each in changed.content.limits] == ["SHADOW"]


def test_a_change_of_a_policy_makes_its_piece_anew_for_who_it_applies_to() -> None:
    def policy(name: str, labels: dict[str, str], namespace: str = "a", dry: str = "false") -> Document:
        metadata = Metadata(name, namespace, annotations={DRY_RUN: dry})
        return Document("v1", "AuthorizationPolicy", metadata, AuthorizationPolicy(Selector(labels)))

    before = Mesh([policy("all", {}), policy("old", {"tier": "old"})])
    after = before.with_(policy("all", {}, dry="true"))
    found = affected([("AuthorizationPolicy", "a", "all")], before, after)
    assert (found.everybody, found.namespaces, found.pieces) == (False, {"a"}, {("AuthorizationPolicy", "a", "all")})
    root = policy("all", {}, "sidecar-system")
    assert affected([root.key], Mesh(), Mesh([root])).everybody
    made, audience = snapshot_of(before, "a", "x")
    (kept,) = made.content.policies
    assert msgspec.json.decode(kept, type=PolicySpec) == PolicySpec("all", "a")
    assert audience.seen(found.pieces) == [("AuthorizationPolicy", "a", "all")]
    changed, _ = snapshot_of(after, "a", "x")
    assert changed.content != made.content


def test_members_are_in_the_order_of_the_struct() -> None:
    scope = Visibility((), (), PeerAuthenticationSpec(), None, virtual_services=(("a", "x"),), labels=({"app": "x"},))
    content = Content((), (), rules_of(scope), *((b"{}",) for _ in range(5)))
    made = Snapshot("spiffe://a/ns/b/sa/c", "a", 1.0, content)
    members = list(msgspec.json.decode(b"".join(made.parts("1.2"))))
    assert members == list(ProxyConfig.__struct_encode_fields__)


# -- who sees what -----------------------------------------------------------------------------------------------------


def member(audience: Subscriptions, name: str, scope: Visibility) -> Member:
    view, steps = audience.view(scope)
    list(steps)
    published = Watchable(Snapshot(name, "a", 1.0, Content()), Version(1, 1))
    found = Member(name, "a", name, view, b"", published, 0.0)
    audience.add(found)
    return found


def seeing(*names: str) -> Visibility:
    return Visibility(tuple(("a", name) for name in names), (), PeerAuthenticationSpec(), None)


def test_pieces_live_as_long_as_a_view_that_has_them() -> None:
    texts = {("Service", "a", name): name.encode() for name in "xyz"}
    audience = Subscriptions(texts.__getitem__)
    one, two = member(audience, "one", seeing("x", "y")), member(audience, "two", seeing("x", "y"))
    three = member(audience, "three", seeing("y", "z"))
    assert one.view is two.view and audience.pieces == 3 and audience.bytes == 3
    texts["Service", "a", "y"] = b"changed"
    assert audience.renew(("Service", "a", "y")) == {one.view, three.view}
    assert audience.renew(("Service", "a", "y")) == set(), "the same bytes are no change"
    audience.move(three, one.view)
    assert audience.pieces == 2 and audience.seen([("Service", "a", "z")]) == []
    for each in (one, two, three):
        audience.remove(each)
    assert audience.pieces == 0 and not audience.members


def test_a_view_that_was_not_filled_leaves_nothing_behind() -> None:
    audience = Subscriptions(lambda key: b"x")
    view, steps = audience.view(seeing("x", "y"))
    next(steps)
    audience.abandon(view)
    assert audience.pieces == 0


# -- what is remembered of proxies ------------------------------------------------------------------------------------

V1, V2 = Version(1, 1), Version(1, 2)


def heard(proxies: Proxies, identity: str = "a", instance: str = "", now: float = 0.0) -> Proxy:
    return proxies.heard(identity, "shop", instance, Seen("127.0.0.1", 0.0), now)


def test_a_refused_version_is_withheld_until_another_is_taken_or_the_proxy_begins_anew() -> None:
    proxies = Proxies()
    proxy = proxies.said(heard(proxies), V2, V1, Status("1.2", False, ["no"]), 5.0)
    assert proxy.withheld == V2 and proxy.state(V2) == "refused" and proxy.refusal is not None
    assert proxies.polled(proxy, V1).withheld == V2
    assert proxies.polled(proxy, None).withheld is None
    taken = proxies.said(proxy, V2, V2, Status("1.2", True, held="1.2"), 6.0)
    assert taken.withheld is None and taken.state(V2) == "in sync" and taken.refusal == proxy.refusal


def test_who_has_not_said_what_it_made_of_the_newest_is_not_called_behind() -> None:
    """As after a restart of the control plane: a poll says what was judged last, and not how."""
    proxies = Proxies()
    assert heard(proxies).state(V2) == "behind" and proxies.polled(heard(proxies), V1).state(V2) == "behind"
    judged = proxies.polled(heard(proxies), V2)
    assert judged.state(V2) == "unknown" and judged.state(Version(1, 3)) == "behind"
    assert proxies.said(judged, V2, V2, Status("1.2", True, held="1.2"), 6.0).state(V2) == "in sync"
    assert proxies.said(judged, V2, V1, Status("1.2", False, ["no"]), 6.0).state(V2) == "refused"


def test_what_a_proxy_says_is_cut_and_can_not_be_taken_for_anything_else() -> None:
    proxies = Proxies()
    problems = ["x" * 10_000, "\x1b[2J\n"]
    proxy = proxies.said(heard(proxies), V1, None, Status("1.1", False, problems, software="\x07"), 5.0)
    assert proxy.refusal is not None
    assert [len(each) for each in proxy.refusal.problems] == [PROBLEM_CHARS, len("\\x1b[2J\\n")]
    assert proxy.software == "\\x07"


def test_the_silent_go_first_of_an_identity_and_of_all_and_after_an_hour() -> None:
    proxies = Proxies(most=4, of_one_identity=2)
    for number, (identity, instance) in enumerate([("a", "1"), ("a", "2"), ("b", "1"), ("a", "1"), ("a", "3")]):
        heard(proxies, identity, instance, number)
    assert [each.name for each in proxies] == ["b 1", "a 1", "a 3"]
    heard(proxies, "c", "1", 6.0)
    gone = heard(proxies, "d", "1", 7.0)
    assert [each.name for each in proxies] == ["a 1", "a 3", "c 1", "d 1"]
    proxies.forget_gone(4.0 + GONE_SECONDS)
    assert [each.name for each in proxies] == ["c 1", "d 1"]
    proxies.forget_gone(7.0 + GONE_SECONDS)
    proxies.said(gone, V1, V1, Status("1.1", True), 9.0)
    assert len(proxies) == 0, "who had to go came back by what was said of it"
