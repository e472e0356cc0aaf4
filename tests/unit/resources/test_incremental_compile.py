"""A mesh as one proxy sees it: in slices it is what it is as a whole, no bytes raise anything, and a service in
it is never an entry."""

from __future__ import annotations

import itertools
import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.addresses import Address
from sidecar.resources.authorization import Operation, PolicySpec, Rule, To
from sidecar.resources.compile import compile_mesh
from sidecar.resources.dump import dump
from sidecar.resources.incremental_compile import Compiled, compile_slices
from sidecar.resources.raw_parts import LARGE
from sidecar.resources.schema import MeshFile
from sidecar.resources.snapshot import Mode, Node, ServicePort, Snapshot, Version
from sidecar.resources.virtual_service import VirtualServiceSpec

ME = Node(namespace="shop", service="web", service_account="web", mtls=Mode.PERMISSIVE)


def written(*services: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "schema": "1.0", "version": "3.7", "proxy": "spiffe://cluster.local/ns/shop/sa/web", "issued": 12.5,
        "trustDomain": "cluster.local", "services": list(services), **more,
    }  # fmt: skip


def service(name: str = "web", *endpoints: dict[str, Any], **more: Any) -> dict[str, Any]:
    ports = [{"port": 80, "name": "http", "targetPort": 8080}]
    return {
        "name": name,
        "namespace": "shop",
        "ports": ports,
        "serviceAccounts": [name],
        "endpoints": list(endpoints),
    } | more


def entry(name: str, *hosts: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "namespace": "shop", "hosts": list(hosts), "ports": [{"port": 443, "name": "tls"}]} | more


def compiled(document: object, me: Node = ME) -> tuple[Compiled, int]:
    """What comes out, and after how many steps."""
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    steps, count = compile_slices(content, me, "control"), 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: Compiled = end.value
            return found, count
        count += 1


def snapshot(document: object) -> Snapshot:
    found, _ = compiled(document)
    assert found.problems == ()
    assert found.snapshot is not None
    return found.snapshot


def problems(document: object) -> list[str]:
    found, _ = compiled(document)
    assert found.snapshot is None
    return list(found.problems)


def test_it_is_what_the_same_mesh_is_as_a_whole() -> None:
    mesh = written(
        service("web", {"address": "10.0.0.1", "labels": {"version": "v2"}}, addresses=["240.240.0.1", "2001:2::0:1"]),
        service("billing", {"address": "10.0.0.2", "port": 9, "mode": "direct"}, {"address": "2001:DB8::1"}),
        peerAuthentication={"mtls": {"mode": "DISABLE"}, "portLevelMtls": {"9090": {"mode": "STRICT"}}},
    )
    at = snapshot(mesh)
    whole, _ = compile_mesh(
        msgspec.convert(
            {key: mesh[key] for key in ("schema", "services", "peerAuthentication")}, MeshFile, str_keys=True
        ),
        ME, version=Version(3, 7), source="control",
    )  # fmt: skip
    assert at == whole
    assert (at.source, str(at.version), at.mode_for(1), at.mode_for(9090)) == (
        "control", "3.7", Mode.PERMISSIVE, Mode.STRICT,
    )  # fmt: skip


def test_a_large_service_takes_many_steps_and_is_the_same() -> None:
    endpoints = [{"address": f"10.1.{number // 250}.{number % 250}"} for number in range(2000)]
    large = service("web", *endpoints)
    assert len(json.dumps(large)) > LARGE
    found, steps = compiled(written(large, *(service(f"s{number}") for number in range(50))))
    assert found.snapshot is not None
    assert [each.address for each in found.snapshot.services["shop", "web"].ports[80].endpoints] == [
        each["address"] for each in endpoints
    ]
    assert steps >= 50 + 2000 / 64
    large["endpoints"][1500]["port"] = 70000
    large["endpoints"][1501]["weight"] = 0
    assert [each[:32] for each in problems(written(large))] == [
        "services[0].endpoints[1500]: it ", "services[0].endpoints[1501]: it ",
    ]  # fmt: skip


def test_everything_that_is_wrong_is_told_and_not_without_end() -> None:
    assert problems(
        written(
            service("Web", serviceAccounts=[]), service("a", ports=[]), service("a", extra=1),
            serviceEntries=[entry("x"), entry("y", "10.0.0.1", "*", "a b"), entry("z", "a.example", endpoints=[
                {"address": "10.0.0.1"}])],
            schema="1.9", version="7", trustDomain="cluster.local",
        )
    ) == [
        "version: is not EPOCH.N, two whole numbers",
        "services[0].name: 'Web' is not a DNS label (a-z, 0-9 and inner hyphens, at most 63)",
        "services[1].ports: there are none; a service has one or more",
        "services[2]: it can't be read: Object contains unknown field `extra`",
        "serviceEntries[0].hosts: there are none; an entry has one or more",
        "serviceEntries[1].hosts[0]: '10.0.0.1' is an address; write it in addresses, and a name here",
        "serviceEntries[1].hosts[1]: '*' is not a DNS name, with or without *. in front",
        "serviceEntries[1].hosts[2]: 'a b' is not a DNS name, with or without *. in front",
        "serviceEntries[2].endpoints: are dialed with resolution STATIC or DNS alone, and this is NONE",
    ]  # fmt: skip
    assert problems(written(service("a"), schema="2.0")) == ["schema: '2.0' is not known; this sidecar reads 1.4"]
    many = problems(written(*(service(f"X{number}") for number in range(150))))
    assert (len(many), many[-1]) == (101, "and 50 more problems")


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"\xff", b"{", b"[" * 100_000, b'{"schema":"1.0"}', b'{"schema":"\\ud800"}', b"null"]
)
def test_bytes_that_are_no_mesh(content: bytes) -> None:
    (problem,) = problems(content)
    assert problem.startswith("it can't be read: ") and "\n" not in problem and len(problem) < 230


def test_endpoints_that_registered_themselves_and_contradict_each_other_refuse_nothing() -> None:
    """An address that has just changed hands, one that came back under another id, one of before a port was added."""
    at = snapshot(
        written(
            service("a", {"address": "10.0.0.1"}, {"address": "10.0.0.1"}, {"address": "10.0.0.9", "mode": "direct"}),
            service("b", {"address": "10.0.0.1"}, {"address": "10.0.0.1", "mode": "direct", "port": 8080}),
        )
    )
    assert [each.address for each in at.services["shop", "a"].ports[80].endpoints] == ["10.0.0.1"]
    found = at.by_address("10.0.0.1", 8080)
    assert found is not None and found.service == "a"


def _holder(*services: dict[str, Any]) -> str:
    """Who is called at 10.0.0.1, port 8080, by a proxy that sees these services."""
    at = snapshot(written(*sorted(services, key=lambda each: each["name"])))
    found = at.by_address("10.0.0.1", 8080)
    assert found is not None
    return found.service


def _came(name: str, since: float, **more: Any) -> dict[str, Any]:
    return service(name, {"address": "10.0.0.1", "since": since}, **more)


def test_an_address_that_changed_hands_is_the_latest_ones_whatever_the_names() -> None:
    for times in itertools.permutations((100.0, 200.5, 300.25)):
        by_name = dict(zip("abc", times, strict=True))
        latest = max(by_name, key=by_name.__getitem__)
        assert _holder(*(_came(name, since) for name, since in by_name.items())) == latest
    assert _holder(_came("a", 100.0), _came("b", 100.0)) == "a"


def test_of_services_that_the_same_may_serve_the_first_stands_whenever_each_registered() -> None:
    both = {"serviceAccounts": ["one"]}
    assert _holder(_came("a", 100.0, **both), _came("b", 200.0, **both)) == "a"
    assert _holder(_came("a", 300.0, **both), _came("b", 100.0, **both), _came("c", 200.0)) == "a"
    assert _holder(_came("a", 100.0, **both), _came("b", 300.0, **both), _came("c", 200.0)) == "a"


def test_what_a_document_has_is_taken_from_it_by_no_registration() -> None:
    at_rest = service("m", {"address": "10.0.0.1"})
    for name in "az":
        assert _holder(at_rest, _came(name, 2e9)) == "m"


@pytest.mark.parametrize("name", ["a", "z"])
def test_no_endpoint_takes_an_address_from_the_service_whose_document_names_it(name: str) -> None:
    """Whoever may register at addresses of a network has a token for it, and other services' addresses in it."""
    taker = service(name, {"address": "10.96.0.7", "ports": {"http": 80}}, addresses=[])
    at = snapshot(written(*sorted((taker, service("m", addresses=["10.96.0.7"])), key=lambda each: each["name"])))
    found = at.by_address("10.96.0.7", 80)
    assert found is not None and found.service == "m"


# -- endpoints with several addresses --------------------------------------------------------------------------------


def _dual(first: str, *others: str, **more: Any) -> dict[str, Any]:
    return {"address": first, "alsoAt": list(others), "since": 100.0, **more}


@pytest.mark.parametrize("mode", ["captured", "direct"])
@pytest.mark.parametrize(("first", "other"), [("10.0.0.1", "fd00::1"), ("fd00::1", "10.0.0.1")])
def test_an_endpoint_is_one_and_is_found_by_each_of_its_addresses(mode: str, first: str, other: str) -> None:
    at = snapshot(written(service("a", _dual(first, other, mode=mode, port=8080))))
    port = at.services["shop", "a"].ports[80]
    (endpoint,) = port.endpoints
    assert endpoint.addresses == (first, other)
    for address in (first, other):
        assert at.of_mesh(address, 8080) is port
        assert at.by_address(address, 8080) is (port if mode == "captured" else None)
    assert at.addresses_of("a") == ((first, other) if mode == "captured" else ())


def test_addresses_are_told_apart_by_what_they_are_and_not_by_how_they_are_written() -> None:
    at = snapshot(written(service("a", _dual("10.0.0.1", "FD00:0::1"), _dual("::ffff:10.0.0.1", "fd00::1"))))
    assert [each.addresses for each in at.services["shop", "a"].ports[80].endpoints] == [("10.0.0.1", "fd00::1")]


def test_an_address_that_two_endpoints_of_a_service_have_is_the_first_ones() -> None:
    at = snapshot(written(service("a", _dual("10.0.0.1", "fd00::1"), _dual("fd00::1", "fd00::2"), _dual("10.0.0.1"))))
    assert [each.addresses for each in at.services["shop", "a"].ports[80].endpoints] == [
        ("10.0.0.1", "fd00::1"), ("fd00::2",),
    ]  # fmt: skip


def test_each_address_that_changed_hands_is_the_latest_ones() -> None:
    was, came = _dual("10.0.0.1", "fd00::1"), {"address": "fd00::1", "since": 200.0}
    for names in ("ab", "ba"):
        services = {names[0]: was, names[1]: came}
        at = snapshot(written(*(service(name, services[name]) for name in "ab")))
        four, six = at.of_mesh("10.0.0.1", 8080), at.of_mesh("fd00::1", 8080)
        assert four is not None and six is not None
        assert (four.service, six.service) == (names[0], names[1])


def test_an_endpoint_that_is_unwell_is_not_called_and_is_of_the_mesh_all_the_same() -> None:
    at = snapshot(written(service("a", _dual("10.0.0.1", "fd00::1", unwell=True), {"address": "10.0.0.2"})))
    port = at.services["shop", "a"].ports[80]
    assert [each.address for each in port.endpoints] == ["10.0.0.2"]
    for address in ("10.0.0.1", "fd00::1", "10.0.0.2"):
        assert at.by_address(address, 8080) is port
    assert at.addresses_of("a") == ("10.0.0.2",)


def test_a_further_address_that_is_none_is_told_with_its_place() -> None:
    (told,) = problems(written(service("a", _dual("10.0.0.1", "fd00::1", "nowhere"))))
    assert told.startswith("services[0].endpoints[0].alsoAt[1]: 'nowhere' is not an IP address")


# -- entries ---------------------------------------------------------------------------------------------------------


def test_an_entry_is_found_by_its_names_and_its_addresses() -> None:
    at = snapshot(
        written(
            serviceEntries=[
                entry("wide", "*.example.com", "API.Example.org.", addresses=["198.51.100.7"], resolution="DNS"),
                entry("exact", "a.example.com", resolution="STATIC", endpoints=[{"address": "10.0.0.1", "port": 8443}]),
                entry("other", "a.example.com", ports=[{"port": 80}]),
            ]
        )
    )

    def host(name: str, port: int = 443) -> str | None:
        found = at.entry_by_authority(name, port)
        return None if found is None else found.host

    assert [host("b.example.com"), host("x.y.EXAMPLE.com."), host("api.example.org")] == [
        "*.example.com", "*.example.com", "api.example.org",
    ]  # fmt: skip
    assert [host("a.example.com"), host("a.example.com", 80)] == ["a.example.com", "a.example.com"]
    assert [host("example.com"), host("example.org"), host("b.example.com", 80), host("")] == [None] * 4
    assert [host("198.51.100.7"), host("::ffff:198.51.100.7"), host("198.51.100.7", 80)] == [
        "*.example.com", "*.example.com", None,
    ]  # fmt: skip
    found = at.entry_by_authority("a.example.com", 443)
    assert found is not None and found.places == (Address("10.0.0.1", 8443),)
    assert at.entry_by_address("198.51.100.7", 443) is not None and at.by_address("198.51.100.7", 443) is None
    assert at.outbound_policy is None
    assert snapshot(written(outboundPolicy="REGISTRY_ONLY")).outbound_policy == "REGISTRY_ONLY"


def test_entries_and_the_policy_can_be_shown() -> None:
    place = {"address": "10.0.0.1", "port": 8443}
    shown = dump(
        snapshot(
            written(
                serviceEntries=[entry("e", "a.example", resolution="STATIC", endpoints=[place], addresses=["::1"])],
                outboundPolicy="REGISTRY_ONLY",
            )
        )
    )
    assert shown["outboundTrafficPolicy"] == {"mode": "REGISTRY_ONLY"}
    port = {"host": "a.example", "port": 443, "name": "tls", "protocol": "tcp", "resolution": "STATIC"}
    assert shown["serviceEntries"] == [
        {
            "name": "e", "namespace": "shop",
            "ports": [port | {"addresses": ["::1"], "endpoints": ["10.0.0.1:8443"]}],
        }
    ]  # fmt: skip


def test_names_of_endpoints_are_for_entries_that_are_looked_up() -> None:
    named = {"address": "db.internal", "ports": {"tls": 8443}}
    at = snapshot(written(serviceEntries=[entry("e", "a.example", resolution="DNS", endpoints=[named])]))
    found = at.entry_by_authority("a.example", 443)
    assert found is not None and found.places == (Address("db.internal", 8443),)
    (problem,) = problems(written(serviceEntries=[entry("e", "a.example", resolution="STATIC", endpoints=[named])]))
    assert problem.startswith("serviceEntries[0].endpoints[0].address: 'db.internal' is not an IP address")


def test_what_a_look_up_is_answered_with() -> None:
    at = snapshot(
        written(
            service("web", {"address": "10.0.0.1"}, addresses=["240.240.0.1", "2001:2::1"]),
            service("bare", {"address": "10.0.0.2"}, {"address": "10.0.0.3", "mode": "direct", "port": 1}),
            service("many", *({"address": f"10.0.1.{number}"} for number in range(50))),
            service("direct", {"address": "127.0.0.1", "mode": "direct", "port": 15006}),
            serviceEntries=[
                entry("a", "a.example", addresses=["198.51.100.7"]), entry("b", "b.example"),
                entry("c", "*.c.example", addresses=["198.51.100.8"]),
            ],
        )
    )  # fmt: skip
    for name in ("web", "web.shop", "web.shop.svc", "web.shop.svc.cluster.local"):
        assert at.addresses_of(name) == ("240.240.0.1", "2001:2::1")
    assert at.addresses_of("bare") == ("10.0.0.2",)
    assert len(at.addresses_of("many") or ()) == 8
    assert at.addresses_of("direct") == (), "ours, and there is nothing to connect to"
    assert at.addresses_of("a.example") == ("198.51.100.7",)
    assert at.addresses_of("x.c.example") == ("198.51.100.8",)
    assert [at.addresses_of(name) for name in ("b.example", "c.example", "web.other", "example", "")] == [None] * 5


def test_no_service_port_can_be_made_that_anybody_may_serve() -> None:
    with pytest.raises(ValueError, match="anybody may serve"):
        ServicePort("web", "shop", 80, "", "http", (), frozenset(), "cluster.local")
    assert problems(written(service("web", serviceAccounts=[])))
    at = snapshot(
        written(service("web", {"address": "10.0.0.1"}, {"address": "10.0.0.2", "mode": "direct", "port": 9}))
    )
    assert at.of_mesh("10.0.0.1", 8080) is at.of_mesh("10.0.0.2", 9) is at.services["shop", "web"].ports[80]


# -- policies ---------------------------------------------------------------------------------------------------------

DENY = {"name": "deny", "namespace": "shop", "action": "DENY", "rules": [{"to": [{"operation": {"ports": ["80"]}}]}]}
EMPTY = {"name": "no-caller", "namespace": "shop"}


def test_policies_come_in_their_order_a_step_each() -> None:
    found, steps = compiled(written(service("web"), authorization=[DENY, EMPTY]))
    assert found.snapshot is not None and found.problems == ()
    assert found.snapshot.policies == (
        PolicySpec("deny", "shop", "DENY", [Rule(to=[To(Operation(ports=["80"]))])]), PolicySpec("no-caller", "shop"),
    )  # fmt: skip
    assert steps == compiled(written(service("web")))[1] + 2
    assert snapshot(written(service("web"))).policies == ()


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"extra": 1}, ": it can't be read: Object contains unknown field `extra`"),
        ({"action": "CUSTOM"}, ": it can't be read: Invalid enum value 'CUSTOM' - at `$.action`"),
        ({"rules": [{"when": [{"key": "moon.phase", "values": ["full"]}]}]},
         ".rules[0].when[0].key: 'moon.phase' is not a key; there are request.headers[NAME], source.ip, remote.ip, "
         "source.namespace, source.principal, source.serviceAccount, destination.ip, destination.port, connection.sni"),
        ({"rules": [{"to": [{"operation": {"paths": ["/{x}"]}}]}]},
         ".rules[0].to[0].operation.paths[0]: '/{x}' has braces that are not a whole segment {*} or {**}"),
    ],
)  # fmt: skip
def test_a_policy_that_can_not_be_judged_by_refuses_the_whole(more: dict[str, Any], why: str) -> None:
    assert problems(written(service("web"), authorization=[EMPTY, DENY | more])) == [f"authorization[1]{why}"]


def test_policies_are_shown_in_the_words_of_documents() -> None:
    shown = dump(snapshot(written(authorization=[DENY, EMPTY | {"dryRun": True}])))
    assert shown["authorization"] == [
        {**DENY, "dryRun": False},
        {"name": "no-caller", "namespace": "shop", "action": "ALLOW", "dryRun": True, "rules": []},
    ]


# -- routes -----------------------------------------------------------------------------------------------------------


def to(host: str, **more: Any) -> dict[str, Any]:
    return {"route": [{"destination": {"host": host}}], **more}


def routes(name: str, *http: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "namespace": "shop", "hosts": ["web.shop.svc.cluster.local"], "http": list(http), **more}


RULE = {"name": "d", "namespace": "shop", "host": "web", "subsets": [{"name": "v1", "labels": {"version": "v1"}}]}
BACKEND = {"name": "p", "namespace": "shop", "host": "web", "retryBudget": {"retryRatio": 0.1}}


def test_routes_come_in_their_order_a_step_each() -> None:
    found, steps = compiled(
        written(
            service("web"), virtualServices=[routes("z", to("z")), routes("a", to("a"))], destinationRules=[RULE],
            backendTrafficPolicies=[BACKEND],
        )
    )  # fmt: skip
    at = found.snapshot
    assert at is not None and found.problems == ()
    assert [each.title for each in at.virtual_services] == ["shop/z", "shop/a"]
    assert at.virtual_services[0].http[0].route[0].destination.host == "z"
    assert [(each.title, each.subsets[0].name) for each in at.destination_rules] == [("shop/d", "v1")]
    assert [each.title for each in at.backend_policies] == ["shop/p"]
    assert steps == compiled(written(service("web")))[1] + 4
    shown = dump(at)
    assert shown["destinationRules"] == [RULE] and shown["backendTrafficPolicies"] == [BACKEND]
    assert shown["virtualServices"] == [routes("z", to("z")), routes("a", to("a"))]


def test_a_large_virtual_service_takes_many_steps_and_is_the_same() -> None:
    header = {"x-a": {"exact": "b"}}
    matches = [{"uri": {"prefix": f"/{number}/{'x' * 20}"}, "headers": header} for number in range(1000)]
    large = routes(
        "large", *(to("web", name=f"r{number}", match=[match]) for number, match in enumerate(matches)),
        to("api", name="wide", match=matches, timeout="3s"), to("last"),
        tcp=[to("t", match=[{"port": 80}])] * 400,
        tls=[to("s", match=[{"sniHosts": ["a.example"]}])] * 400,
    )  # fmt: skip
    size = len(json.dumps(large, separators=(",", ":")))
    found, steps = compiled(json.dumps(written(virtualServices=[large]), separators=(",", ":")).encode())
    assert found.problems == () and found.snapshot is not None
    assert found.snapshot.virtual_services == (msgspec.convert(large, VirtualServiceSpec),)
    assert steps >= size / LARGE, "no step has more than some of it"
    large["http"][700]["timeout"] = 3
    large["http"][1000]["match"] = [*matches[:500], {"uri": {"suffix": "/x"}}, *matches[501:]]
    large["tls"][0] = {"route": []}
    assert [each.partition(": ")[0] for each in problems(written(virtualServices=[routes("a", to("a")), large]))] == [
        "virtualServices[1].http[700]", "virtualServices[1].http[1000].match[500]", "virtualServices[1].tls[0]",
    ]  # fmt: skip
    assert problems(written(virtualServices=[large | {"delegate": 1}]))[0].startswith("virtualServices[0]: it can't be")


@pytest.mark.parametrize("member", ["virtualServices", "destinationRules", "backendTrafficPolicies"])
def test_what_routes_say_that_is_not_known_refuses_the_whole(member: str) -> None:
    known = {"virtualServices": routes("r", to("a")), "destinationRules": RULE, "backendTrafficPolicies": BACKEND}[
        member
    ]
    assert problems(written(service("web"), **{member: [known, known | {"extra": 1}]})) == [
        f"{member}[1]: it can't be read: Object contains unknown field `extra`"
    ]


def test_endpoints_have_their_labels_and_weights() -> None:
    heavy = {"address": "10.0.0.1", "labels": {"version": "v2"}, "weight": 5}
    far = {"address": "192.0.2.1", "labels": {"version": "v2", "app": "out"}, "weight": 2}
    at = snapshot(
        written(
            service("web", heavy, {"address": "10.0.0.2"}),
            serviceEntries=[
                entry("both", "a.example", "b.example", resolution="STATIC", endpoints=[far, {"address": "192.0.2.2"}]),
                entry("plain", "c.example", resolution="STATIC", endpoints=[{"address": "192.0.2.3"}]),
            ],
        )
    )
    first, second = at.services["shop", "web"].ports[80].endpoints
    assert (first.labels, first.weight, second.labels, second.weight) == ((("version", "v2"),), 5, (), 1)
    for host in ("a.example", "b.example"):
        port = at.entry_by_authority(host, 443)
        assert port is not None
        assert [str(each) for each in port.places] == ["192.0.2.1:443", "192.0.2.2:443"]
        assert port.place_labels == ((("app", "out"), ("version", "v2")), ()) and port.place_weights == (2, 1)
    plain = at.entry_by_authority("c.example", 443)
    assert plain is not None and (plain.place_labels, plain.place_weights) == ((), ())


# -- whatever comes --------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
ODD = st.sampled_from(
    ["", "web", "Web", "shop", "10.0.0.1", "0.0.0.0", "::1", "fe80::1%lo", "*.a.b", "\ud7ff", "1.1", "x" * 300]
)
FIELDS = [
    "name", "namespace", "ports", "hosts", "addresses", "resolution", "endpoints", "serviceAccounts", "subjectAltNames",
    "address", "port", "mode", "labels", "schema", "version", "proxy", "issued", "trustDomain", "services",
    "serviceEntries", "peerAuthentication", "outboundPolicy", "authorization", "rules", "from", "when", "action",
    "virtualServices", "destinationRules", "http", "tls", "match", "route", "host", "subsets", "weight", "retryBudget",
]  # fmt: skip


@given(st.binary(max_size=200))
def test_no_bytes_raise(content: bytes) -> None:
    assert compiled(content)[0].snapshot is None


@given(
    st.lists(st.dictionaries(st.sampled_from(FIELDS), JSON | ODD | st.integers(0, 70000), max_size=6), max_size=3),
    st.dictionaries(st.sampled_from(FIELDS), JSON | ODD, max_size=3),
)
def test_nothing_that_is_nearly_a_mesh_raises(parts: list[dict[str, Any]], more: dict[str, Any]) -> None:
    sound = service("web", {"address": "10.0.0.1"})
    for document in (
        written(*parts, sound), written(*({**sound, **part} for part in parts)), written(serviceEntries=parts),
        written(serviceEntries=[{**entry("e", "a.example"), **part} for part in parts]), {**written(sound), **more},
        written(authorization=parts), written(authorization=[{**DENY, **part} for part in parts]),
        written(virtualServices=parts), written(virtualServices=[{**routes("r", to("a")), **part} for part in parts]),
        written(destinationRules=parts), written(destinationRules=[{**RULE, **part} for part in parts]),
        written(backendTrafficPolicies=[{**BACKEND, **part} for part in parts]),
        written(service("web", *parts)), written(service("web", *({"address": "10.0.0.1", **part} for part in parts))),
    ):  # fmt: skip
        found, _ = compiled(document)
        assert (found.snapshot is None) == bool(found.problems)
        assert all("\n" not in each for each in found.problems)


@given(st.data())
def test_the_order_of_services_makes_no_other_mesh(data: st.DataObject) -> None:
    services = [service(name, {"address": f"10.0.0.{number}"}) for number, name in enumerate(["a", "b", "c"], 1)]
    shuffled = data.draw(st.permutations(services))
    assert snapshot(written(*shuffled)) == snapshot(written(*services))
