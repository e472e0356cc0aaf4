"""Documents, where nothing waits: entries and what stands for those that can't be read, bodies, pages, conditions."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from control import pagination
from control.documents import parse, placeholders, preconditions, stored_document
from control.documents.stored_document import Held
from control.problems import Invalid
from control.store import Entry
from sidecar.resources.authorization import Rule
from sidecar.resources.mesh_documents import Mesh
from sidecar.resources.visibility import scope_of, service_spec


def document(kind: str, name: str, spec: object, namespace: str = "shop", **labels: str) -> dict[str, Any]:
    version = {
        "Service": "sidecar/v1",
        "PeerAuthentication": "security.istio.io/v1",
        "AuthorizationPolicy": "security.istio.io/v1",
    }.get(kind, "networking.istio.io/v1")
    metadata: dict[str, object] = {"name": name, "namespace": namespace}
    return {
        "apiVersion": version, "kind": kind, "metadata": metadata | ({"labels": labels} if labels else {}), "spec": spec
    }  # fmt: skip


WEB = {"ports": [{"port": 80}], "serviceAccounts": ["web"]}


def held(value: dict[str, Any], version: int = 1) -> Held:
    """As the table holds what was stored."""
    key = value["kind"], value["metadata"]["namespace"], value["metadata"]["name"]
    raw = msgspec.json.encode(value)
    return stored_document.held(
        Entry(stored_document.name_of(key), stored_document.encode(raw, 1, "token:x", 1.0), version)
    )


# -- entries ----------------------------------------------------------------------------------------------------------


def test_an_entry_is_what_was_written() -> None:
    found = held(document("Service", "web", WEB, app="web"), version=7)
    assert found.document is not None and found.why == ""
    assert (found.key, found.version, found.generation) == (("Service", "shop", "web"), 7, 1)
    assert found.labels == {"app": "web"}


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("Service/shop/web", b"not json", "not stored as this version does"),
        ("Service/shop/web", b'{"document": 3}', "not stored as this version does"),
        ("Service/shop/web", stored_document.encode(b"[]", 3, "x", 1.0), "a list is not a document"),
        ("Service/shop/web", stored_document.encode(b"null", 3, "x", 1.0), "nothing is not a document"),
        (
            "Lantern/shop/web",
            stored_document.encode(msgspec.json.encode(document("Lantern", "web", {})), 3, "x", 1.0),
            "kind",
        ),
        (
            "Service/shop/web",
            stored_document.encode(msgspec.json.encode(document("Service", "other", WEB)), 3, "x", 1.0),
            "it says that it is Service shop/other",
        ),
        ("odd", stored_document.encode(b"{}", 3, "x", 1.0), "apiVersion"),
    ],
)
def test_an_entry_that_a_newer_version_wrote_says_why_it_can_not_be_read(name: str, value: bytes, why: str) -> None:
    found = stored_document.held(Entry(name, value, 1))
    assert found.document is None and why in found.why
    assert stored_document.name_of(found.key).endswith(name.rpartition("/")[2])


def test_names_of_generations_are_in_their_order() -> None:
    key = "Service", "shop", "web"
    names = [stored_document.history_name(key, number) for number in (1, 2, 10, 999, 1_000_000)]
    assert names == sorted(names)
    assert [stored_document.generation_of(name) for name in names] == [1, 2, 10, 999, 1_000_000]
    assert stored_document.generation_of("Service/shop/web/x") == 0


# -- what stands for what can't be read -------------------------------------------------------------------------------


def mesh_of(*values: dict[str, Any]) -> Mesh:
    return Mesh(placeholders.effective(map(held, values)).values())


def test_a_peer_authentication_that_can_not_be_read_is_strict_for_its_namespace() -> None:
    loose = document("PeerAuthentication", "loose", {"mtls": {"mode": "PERMISSIVE"}})
    mesh_wide = document("PeerAuthentication", "all", {"mtls": {"mode": "DISABLE"}}, "sidecar-system")
    newer = document("PeerAuthentication", "newer", {"mtls": {"mode": "QUANTUM"}})
    assert scope_of(mesh_of(loose, mesh_wide), "shop", "web").peer_authentication.mtls.mode == "PERMISSIVE"
    mesh = mesh_of(loose, mesh_wide, newer)
    assert scope_of(mesh, "shop", "web").peer_authentication.mtls.mode == "STRICT"
    assert scope_of(mesh, "elsewhere", "web").peer_authentication.mtls.mode == "DISABLE"
    for_all = document("PeerAuthentication", "newer", {"mtls": {"mode": "QUANTUM"}}, "sidecar-system")
    assert scope_of(mesh_of(mesh_wide, for_all), "elsewhere", "web").peer_authentication.mtls.mode == "STRICT"


def test_a_sidecar_that_can_not_be_read_lets_call_only_what_is_known() -> None:
    open_one = document("Sidecar", "open", {"outboundTrafficPolicy": {"mode": "ALLOW_ANY"}})
    newer = document("Sidecar", "newer", {"outboundTrafficPolicy": {"mode": "ASK_A_FRIEND"}})
    assert scope_of(mesh_of(open_one), "shop", "web").outbound_policy == "ALLOW_ANY"
    assert scope_of(mesh_of(open_one, newer), "shop", "web").outbound_policy == "REGISTRY_ONLY"


DENY_ALL = ("DENY", [Rule()])


def refused_in(mesh: Mesh, namespace: str, account: str = "web") -> list[str]:
    """The policies that refuse everything at this workload."""
    policies = scope_of(mesh, namespace, account).authorization
    return [each.title for each in policies if (each.action, each.rules) == DENY_ALL and not each.dry_run]


UNREADABLE_RULE = {"rules": [{"moonPhase": "full"}]}
BY_LABEL = {"selector": {"matchLabels": {"app": "web"}}}


@pytest.mark.parametrize(
    ("spec", "namespace", "denied"),
    [
        (UNREADABLE_RULE | BY_LABEL, "shop", "shop/web"),
        (UNREADABLE_RULE, "shop", "shop/api shop/web"),
        (UNREADABLE_RULE | {"selector": {}}, "shop", "shop/api shop/web"),
        (UNREADABLE_RULE | {"selector": {"matchLabels": {}}}, "shop", "shop/api shop/web"),
        (UNREADABLE_RULE | {"selector": {"matchLabels": {"app": 7}}}, "shop", "shop/api shop/web"),
        (
            UNREADABLE_RULE | {"selector": {"matchLabels": {"app": "web"}, "byMoon": "full"}},
            "shop",
            "shop/api shop/web",
        ),
        (UNREADABLE_RULE | {"selector": ["web"]}, "shop", "shop/api shop/web"),
        (BY_LABEL | {"targetRefs": [{"kind": "Gateway", "name": "x"}]}, "shop", "shop/api shop/web"),
        ("rules", "shop", "shop/api shop/web"),
        (UNREADABLE_RULE | BY_LABEL, "sidecar-system", "shop/web bank/web"),
        (UNREADABLE_RULE, "sidecar-system", "shop/api shop/web bank/web"),
        (UNREADABLE_RULE, "elsewhere", ""),
    ],
)
def test_an_authorization_policy_that_can_not_be_read_denies_what_it_covers(
    spec: object, namespace: str, denied: str
) -> None:
    newer = document("AuthorizationPolicy", "newer", spec, namespace)
    open_one = document("AuthorizationPolicy", "open", {"rules": [{}]})
    services = (
        document("Service", "web", WEB, app="web"),
        document("Service", "api", WEB | {"serviceAccounts": ["api"]}, app="api"),
        document("Service", "web", WEB, "bank", app="web"),
    )
    mesh = mesh_of(*services, open_one, newer)
    found = {(place, account): refused_in(mesh, place, account) for place, account in WORKLOADS}
    assert " ".join(f"{place}/{account}" for (place, account), by in found.items() if by) == denied
    assert all(by in ([], [f"{namespace}/newer"]) for by in found.values())


WORKLOADS = [("shop", "api"), ("shop", "web"), ("bank", "web")]


def test_a_policy_whose_name_can_not_be_read_either_denies_all_the_same() -> None:
    odd = document("AuthorizationPolicy", "_", UNREADABLE_RULE | BY_LABEL)
    assert refused_in(mesh_of(odd), "shop") == ["shop/stands-for-what-can-not-be-read"]


def test_a_service_that_can_not_be_read_is_denied_where_policies_go_by_its_labels() -> None:
    newer = document("Service", "web", WEB | {"moonPhase": "full"}, app="web")
    selecting = document("AuthorizationPolicy", "some", BY_LABEL)
    for policies, denied in (
        ((), False),
        ((document("AuthorizationPolicy", "all", {"rules": [{}]}),), False),
        ((selecting,), True),
        ((document("AuthorizationPolicy", "some", BY_LABEL, "sidecar-system"),), True),
        ((document("AuthorizationPolicy", "some", BY_LABEL, "bank"),), False),
    ):
        mesh = mesh_of(newer, *policies)
        assert bool(refused_in(mesh, "shop")) is denied
        assert not refused_in(mesh, "elsewhere")


def test_a_service_that_can_not_be_read_stays_known_and_nobody_serves_it() -> None:
    newer = document("Service", "web", WEB | {"addresses": ["10.0.0.1"], "moonPhase": "full"})
    selected = document("PeerAuthentication", "by-label", {"mtls": {"mode": "PERMISSIVE"}})
    mesh = mesh_of(newer, selected)
    spec = service_spec(mesh, ("shop", "web"))
    assert [port.port for port in spec.ports] == [80] and spec.addresses == ["10.0.0.1"]
    assert spec.service_accounts == [] and all("cluster.local" not in each for each in spec.subject_alt_names)
    assert ("shop", "web") in scope_of(mesh, "elsewhere", "x").services
    assert scope_of(mesh, "shop", "web").peer_authentication.mtls.mode == "STRICT"
    assert scope_of(mesh, "shop", "web").outbound_policy == "REGISTRY_ONLY"


@pytest.mark.parametrize(
    "spec", [None, [], {"ports": "x"}, {"ports": [{"port": "80"}]}, {"ports": [3], "addresses": 3}]
)
def test_a_service_of_which_nothing_can_be_read_is_left_out(spec: object) -> None:
    assert list(placeholders.effective([held(document("Service", "web", spec))])) == [
        ("PeerAuthentication", "shop", "stands-for-what-can-not-be-read"),
        ("Sidecar", "shop", "stands-for-what-can-not-be-read"),
    ]


@pytest.mark.parametrize("kind", ["ServiceEntry", "WorkloadEntry", "Lantern"])
def test_what_only_opens_is_left_out(kind: str) -> None:
    assert placeholders.effective([held(document(kind, "x", {"new": 1}))]) == {}


# -- bodies -----------------------------------------------------------------------------------------------------------

GOOD = b"""\
apiVersion: sidecar/v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  ports:
  - port: 80
  serviceAccounts: [web]
"""


def test_yaml_and_json_say_the_same() -> None:
    by_yaml = parse.read(GOOD, "application/yaml")
    by_json = parse.read(msgspec.json.encode(document("Service", "web", WEB)), "application/json")
    assert by_yaml.problems == by_json.problems == ()
    assert by_yaml.wanted[0].document == by_json.wanted[0].document
    assert by_yaml.wanted[0].raw == by_json.wanted[0].raw
    assert (by_yaml.wanted[0].line, by_json.wanted[0].line) == (1, 0)


def test_all_problems_are_told_with_document_line_and_path() -> None:
    body = GOOD.replace(b"80", b"0") + b"---\n" + GOOD.replace(b"name: web", b"name: Web") + b"---\nkind: Lantern\n"
    found = parse.read(body, "application/yaml")
    assert found.wanted == () and not found.broken
    assert [(each.document, each.line, each.path) for each in found.problems] == [
        ("Service shop/web", 6, "spec.ports[0].port"),
        ("Service shop/Web", 11, "metadata.name"),
        ("#3", 17, ""),
        ("#3", 17, "kind"),
        ("#3", 17, ""),
    ]


@pytest.mark.parametrize(
    ("body", "content_type", "why"),
    [
        (b"{", "application/json", "no JSON"),
        (b"[" * 100_000, "application/json", "no JSON"),
        (b"[" * 40, "application/yaml", "nested"),
        (b"[" * 100_000, "application/yaml", ""),  # PyYAML may refuse it before its depth is counted
        (b"a: [", "application/yaml", "no YAML"),
        (b"\xff", "application/yaml", "no UTF-8"),
        (b"\xff", "application/json", "no JSON"),
        (b'"\\ud800"', "application/json", "no JSON"),
        (b"", "application/json", "no JSON"),
        (b"", "application/yaml", "nothing"),
        (b"[]", "application/json", "no document"),
    ],
)
def test_what_is_no_text_is_told_as_that(body: bytes, content_type: str, why: str) -> None:
    found = parse.read(body, content_type)
    assert found.wanted == () and len(found.problems) == 1 and why in found.problems[0].why
    assert found.broken == ("no document" not in why)


def test_a_document_is_there_once_and_no_longer_than_it_may_be() -> None:
    twice = parse.read(GOOD + b"---\n" + GOOD, "application/yaml")
    assert [(each.why, each.line) for each in twice.problems] == [("it is there twice", 9)]
    long = document("Service", "web", WEB | {"serviceAccounts": [f"a{n}" for n in range(9000)]})
    found = parse.read(msgspec.json.encode(long), "application/json")
    assert [each.why for each in found.problems] == ["it is longer than 64 KiB as JSON"]


def test_no_more_problems_are_told_than_anyone_reads() -> None:
    found = parse.read(msgspec.json.encode([3] * 500), "application/json")
    assert len(found.problems) == parse.MAX_PROBLEMS + 1 and found.problems[-1].why == "and 400 more problems"


def test_a_namespace_that_is_not_said_is_that_of_the_path() -> None:
    body = (
        b"apiVersion: sidecar/v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 1}], serviceAccounts: [a]}"
    )
    assert parse.read(body, "application/yaml").wanted[0].document.metadata.namespace == "default"
    assert parse.read(body, "application/yaml", "shop").wanted[0].document.metadata.namespace == "shop"


# -- conditions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("match", "none_match", "tag", "holds"),
    [
        ([], [], "", True),
        (['"3"'], [], "3", True),
        (['"3"'], [], "4", False),
        (['"3"'], [], "", False),
        (['"1", "3"'], [], "3", True),
        (['"1"', '"3"'], [], "3", True),
        (['W/"3"'], [], "3", False),  # RFC 9110, 13.1.1: compared strongly
        (["*"], [], "3", True),
        (["*"], [], "", False),
        ([], ["*"], "", True),
        ([], ["*"], "3", False),
        ([], ['"3"'], "3", False),
        ([], ['W/"3"'], "3", False),
        ([], ['"2"'], "3", True),
    ],
)
def test_conditions_are_those_of_http(match: list[str], none_match: list[str], tag: str, holds: bool) -> None:
    found = preconditions.read(match, none_match)
    if holds:
        found.check(tag)
        return
    with pytest.raises(Invalid) as raised:
        found.check(tag)
    assert raised.value.status == 412


@pytest.mark.parametrize("field", ["", " ", "3", '"3', "W/3", '"3" "4"', 'w/"3"'])
def test_a_condition_that_can_not_be_read_is_an_error_and_not_none(field: str) -> None:
    with pytest.raises(Invalid) as raised:
        preconditions.read([field], [])
    assert raised.value.status == 400 and "if-match" in raised.value.detail


# -- pages ------------------------------------------------------------------------------------------------------------


def test_pages_have_each_item_once_whatever_comes_and_goes_meanwhile() -> None:
    items, seen = [f"n{number:02d}" for number in range(10)], []
    wanted = pagination.Wanted(limit=3)
    for turn in range(10):
        found, after = pagination.page(items, str, wanted)
        seen += found
        if not after:
            break
        wanted = pagination.Wanted(3, pagination.Mark.parse(str(pagination.Mark(after))))
        if turn == 0:
            items = [item for item in items if item not in ("n00", "n02", "n05")] + ["m99", "n99"]
    assert seen == ["n00", "n01", "n02", "n03", "n04", "n06", "n07", "n08", "n09", "n99"]


def test_a_last_page_says_that_it_is_the_last() -> None:
    assert pagination.page("abc", str, pagination.Wanted(3)) == (["a", "b", "c"], "")
    assert pagination.page("", str, pagination.Wanted(3)) == ([], "")


@pytest.mark.parametrize("limit", ["0", "-1", "x", "", "1.5", "٣"])
def test_a_limit_is_a_number(limit: str) -> None:
    with pytest.raises(Invalid, match="limit"):
        pagination.Wanted.read({"limit": limit})


@pytest.mark.parametrize("mark", ["!", "e30", "WzFd", "a", "\N{SNOWMAN}", "WyJhIiwxLDJd"])
def test_a_mark_is_one_of_ours(mark: str) -> None:
    with pytest.raises(Invalid, match="continue"):
        pagination.Wanted.read({"continue": mark})


def test_a_limit_that_is_too_large_is_taken_for_the_largest() -> None:
    assert pagination.Wanted.read({"limit": "999999"}).limit == pagination.MOST
