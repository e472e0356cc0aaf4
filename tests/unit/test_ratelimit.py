"""Limits of requests: what they are about, whom they count together, and that all of them are charged or none."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from sidecar.policy.authorize import Asked
from sidecar.policy.ratelimit import Charged, Limits, compile_limits
from sidecar.policy.ratelimit_connections import ConnectionLimits, compile_connection_limits
from sidecar.policy.rbac_request import Memo, View, read_peer
from sidecar.resources.rate_limits import LimitPolicySpec

WEB = "spiffe://cluster.local/ns/shop/sa/web"
CRON = "spiffe://cluster.local/ns/shop/sa/cron"
RATE = {"requests": 1, "per": "10s"}


def policy(*limits: dict[str, Any], name: str = "limits", **more: Any) -> LimitPolicySpec:
    named = [{"name": f"limit-{number}", **limit} for number, limit in enumerate(limits)]
    return msgspec.convert({"name": name, "namespace": "shop", "limits": named, **more}, LimitPolicySpec)


def limits(*policies: LimitPolicySpec, before: Limits | None = None, trust_domain: str = "cluster.local") -> Limits:
    return compile_limits(policies, "INBOUND", trust_domain, before or Limits())


def view(peer: str = WEB, client: str = "192.0.2.1", path: bytes = b"/", **more: Any) -> View:
    asked = Asked("inbound", peer, client, "", "HTTP", more.pop("method", b"GET"), path, b"web", remote=client)
    if more:
        asked = msgspec.structs.replace(asked, **more)
    return View(asked, read_peer(peer), Memo())


def charge(of: Limits, seen: View, now: float = 0.0) -> Charged:
    return of.charge(seen, now)


def admitted(of: Limits, *views: View, now: float = 0.0) -> list[bool]:
    return [charge(of, each, now).refused is None for each in views]


@pytest.mark.parametrize(
    ("key", "together", "apart"),
    [
        ([], {"peer": CRON, "client": "198.51.100.1"}, None),
        (["source.principal"], {"client": "198.51.100.1"}, {"peer": CRON}),
        (["source.namespace"], {"peer": CRON}, {"peer": "spiffe://cluster.local/ns/bank/sa/web"}),
        (["source.ip"], {"peer": CRON}, {"client": "192.0.2.2"}),
        (["source.ip"], {"client": "::ffff:192.0.2.1"}, {"client": "2001:db8::1"}),
        (["remote.ip"], {"client": "198.51.100.1", "remote": "192.0.2.1"}, {"remote": "192.0.2.2"}),
        (["request.method"], {"peer": CRON}, {"method": b"POST"}),
        (["request.path"], {"path": b"/?x=1"}, {"path": b"/other"}),
        (["request.path"], {"path": b"/;a=1"}, {"path": b"/a;b"}),
        (["request.headers[x-tenant]"], {"fields": ((b"X-Other", b"b"),)}, {"fields": ((b"X-Tenant", b"b"),)}),
        (["source.principal", "request.method"], {"client": "192.0.2.9"}, {"method": b"PUT"}),
        (["source.principal", "request.method", "source.ip"], {"path": b"/x"}, {"client": "192.0.2.9"}),
    ],
)
def test_a_key_counts_together_what_has_the_same_values(
    key: list[str], together: dict[str, Any], apart: dict[str, Any] | None
) -> None:
    found = limits(policy({"key": key, "rate": RATE}))
    assert admitted(found, view(), view(**together)) == [True, False]
    if apart is not None:
        assert admitted(found, view(**apart)) == [True]


def test_an_ipv6_source_is_its_network() -> None:
    found = limits(policy({"key": ["source.ip"], "rate": RATE}))
    addresses = ["2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:3::1"]
    assert admitted(found, *[view(client=each) for each in addresses]) == [True, False, True]
    wider = limits(policy({"key": ["source.ip"], "rate": RATE, "prefixLength": 48}))
    assert admitted(wider, *[view(client=each) for each in addresses]) == [True, False, False]


def test_a_part_that_is_missing_is_one_shared_value() -> None:
    found = limits(policy({"key": ["source.principal"], "rate": RATE}))
    assert admitted(found, view(peer="", client="192.0.2.1"), view(peer="", client="192.0.2.2")) == [True, False]


def test_a_long_value_is_counted_by_its_hash() -> None:
    found = limits(policy({"key": ["request.headers[x-key]"], "rate": RATE}))
    long = b"x" * 30_000
    views = [view(fields=((b"x-key", value),)) for value in (long, long, long + b"y")]
    assert admitted(found, *views) == [True, False, True]
    (limit,) = found
    assert all(len(each.key) < 40 for each in limit.limited(0.0))


def test_no_page_shows_a_secret() -> None:
    found = limits(policy({"key": ["request.headers[authorization]"], "rate": RATE}))
    assert admitted(found, *[view(fields=((b"Authorization", b"Bearer abc"),))] * 2) == [True, False]
    (limit,) = found
    assert [each.key.partition(":")[0] for each in limit.limited(0.0)] == ["hash"]


@pytest.mark.parametrize(
    ("match", "about", "not_about"),
    [
        ({"methods": ["POST", "PU*"]}, {"method": b"PUT"}, {"method": b"GET"}),
        ({"paths": ["/orders/*"]}, {"path": b"/orders/1"}, {"path": b"/other"}),
        ({"paths": ["/orders/{*}/x"]}, {"path": b"/orders/1/x"}, {"path": b"/orders/1/2/x"}),
        ({"paths": ["/admin"]}, {"path": b"/%61dmin"}, {"path": b"/Admin"}),
        ({"paths": ["/admin"]}, {"path": b"/admin;a=b"}, {"path": b"/"}),
        ({"hosts": ["web"]}, {"authority": b"WEB:8080"}, {"authority": b"other"}),
        (
            {"headers": {"x-tier": ["free"]}},
            {"fields": ((b"X-Tier", b"gold, free"),)},
            {"fields": ((b"x-tier", b"gold"),)},
        ),
        ({"headers": {"x-tier": ["*"]}}, {"fields": ((b"x_tier", b"a"),)}, {"fields": ()}),
        ({"sources": ["web"]}, {}, {"peer": CRON}),
        ({"sources": ["shop/web"]}, {}, {"peer": "spiffe://cluster.local/ns/bank/sa/web"}),
        ({"sources": ["cluster.local/ns/shop/sa/web"]}, {}, {"peer": ""}),
        ({"sources": ["192.0.2.0/24"]}, {"peer": ""}, {"client": "198.51.100.1"}),
        ({"sources": ["2001:db8::/32"]}, {"client": "2001:db8:9::1"}, {"client": "2001:db9::1"}),
        ({"methods": ["GET"], "paths": ["/a"]}, {"path": b"/a"}, {"path": b"/a", "method": b"PUT"}),
    ],
)
def test_a_limit_is_about_what_it_matches(
    match: dict[str, Any], about: dict[str, Any], not_about: dict[str, Any]
) -> None:
    found = limits(policy({"match": match, "rate": RATE}))
    assert admitted(found, view(**not_about), view(**not_about)) == [True, True]
    assert admitted(found, view(**about), view(**about)) == [True, False]


def test_an_override_has_a_rate_and_buckets_of_its_own() -> None:
    overrides = [
        {"source": "web", "requests": 3},
        {"source": "192.0.2.0/24", "requests": 2},
        {"source": "192.0.2.7", "requests": 4, "per": "1s", "burst": 1},
    ]
    found = limits(policy({"key": ["source.ip"], "rate": RATE, "overrides": overrides}))
    other = "spiffe://cluster.local/ns/shop/sa/other"
    assert admitted(found, *[view()] * 4) == [True, True, True, False]  # by its identity, before its network
    assert admitted(found, *[view(peer=other)] * 3) == [True, True, False]
    assert admitted(found, *[view(peer=other, client="192.0.2.7")] * 2) == [True, False]  # the narrower network
    assert admitted(found, view(peer=other, client="192.0.2.7"), now=0.26) == [True]
    assert admitted(found, *[view(peer=other, client="198.51.100.1")] * 2) == [True, False]


def test_cluster_local_is_the_mesh_s_own_trust_domain() -> None:
    override = {"source": "cluster.local/ns/shop/sa/web", "requests": 2}
    found = limits(policy({"rate": RATE, "overrides": [override]}), trust_domain="example.org")
    own = view(peer="spiffe://example.org/ns/shop/sa/web")
    assert admitted(found, own, own, own) == [True, True, False]


def test_all_limits_that_match_are_charged_or_none() -> None:
    many = {"key": ["source.principal"], "rate": {"requests": 5, "per": "1h"}}
    few = {"rate": {"requests": 2, "per": "1h"}}
    found = limits(policy(many, few))
    assert admitted(found, *[view()] * 4) == [True, True, False, False]
    first, second = found
    assert (first.admitted, second.admitted, first.exceeded, second.exceeded) == (2, 2, 0, 2)
    left = {each.name[1]: used.left for each, used in found.charge(view(), 0.0, really=False).used}
    assert left == {"limit-0": pytest.approx(3.0), "limit-1": pytest.approx(0.0)}


def test_a_look_charges_and_counts_nothing() -> None:
    found = limits(policy({"rate": RATE}))
    for _ in range(5):
        assert found.charge(view(), 0.0, really=False).refused is None
    assert admitted(found, view(), view()) == [True, False]
    (limit,) = found
    assert (limit.admitted, limit.exceeded) == (1, 1)


def test_the_longest_wait_is_told() -> None:
    found = limits(policy({"rate": RATE}, {"rate": {"requests": 1, "per": "1h"}}))
    charge(found, view())
    charged = charge(found, view())
    assert charged.refused is not None
    assert charged.refused.name == ("shop/limits", "limit-1")
    assert charged.wait == pytest.approx(3600.0)


def test_a_limit_in_shadow_counts_and_refuses_nothing() -> None:
    found = limits(policy({"rate": RATE}, name="shadow", mode="SHADOW"), policy({"rate": {"requests": 2, "per": "1h"}}))
    shadowed = [charge(found, view()).exceeded for _ in range(2)]
    assert shadowed == [(), (("shop/shadow", "limit-0"),)]
    assert charge(found, view()).refused is not None
    shadow, _ = found
    assert (shadow.admitted, shadow.exceeded) == (1, 2)


def test_a_total_is_over_all_keys() -> None:
    found = limits(
        policy({"key": ["source.ip"], "rate": {"requests": 3, "per": "1h"}, "total": {"requests": 4, "per": "1h"}})
    )
    one, other = view(client="192.0.2.1"), view(client="192.0.2.2")
    assert admitted(found, one, one, one, one, other, other) == [True, True, True, False, True, False]
    (limit,) = found
    assert "(total)" in [each.key for each in limit.limited(0.0)]


def test_a_fair_share_is_not_taken_by_a_noisy_source() -> None:
    total = {"requests": 100, "per": "1s"}
    found = limits(policy({"key": ["source.ip"], "total": total, "fairShare": True}))
    noisy, quiet, got = view(client="192.0.2.1"), view(client="192.0.2.2"), []
    for tick in range(1000):
        now = tick / 100
        for _ in range(20):
            charge(found, noisy, now)
        if not tick % 10:
            got.append(charge(found, quiet, now).refused is None)
        found.sweep(now)
    assert all(got)
    (limit,) = found
    assert [each.key for each in limit.limited(9.99)] == ["192.0.2.1"]


def test_what_is_listed_is_bounded_and_ends_with_the_wait() -> None:
    found = limits(policy({"key": ["source.ip"], "rate": RATE}))
    (limit,) = found
    for number in range(1200):
        one = view(client=f"10.0.{number // 250}.{number % 250}")
        charge(found, one, 5.0)
        charge(found, one, 6.0)
    listed = list(limit.limited(7.0))
    assert (len(listed), listed[0].key, listed[0].ago) == (1000, "10.0.0.0", 1.0)
    assert listed[0].wait == pytest.approx(8.0)
    found.sweep(16.0)
    assert list(limit.limited(16.0)) == []


def test_what_has_not_changed_keeps_its_buckets() -> None:
    kept, changed = {"rate": {"requests": 1, "per": "1h"}}, {"rate": {"requests": 2, "per": "1h"}}
    before = limits(policy(kept, changed))
    assert admitted(before, view(), view()) == [True, False]
    after = limits(policy(kept, {"rate": {"requests": 3, "per": "1h"}}), before=before)
    assert next(iter(after)) is next(iter(before))
    assert charge(after, view()).refused is next(iter(before))
    renamed = limits(policy({**kept, "name": "other"}), before=after)
    assert admitted(renamed, view(), view()) == [True, False]  # a new name is a new limit
    moved = limits(policy({**kept, "name": "other"}, mode="SHADOW"), before=renamed)
    assert charge(moved, view()).exceeded == (("shop/limits", "other"),)


def test_limits_of_the_other_direction_are_not_charged() -> None:
    outbound = policy({"rate": RATE}, direction="OUTBOUND")
    assert not limits(outbound)
    assert compile_limits([outbound], "OUTBOUND", "cluster.local", Limits())


def test_a_rate_holds_beside_shares_whose_table_is_full() -> None:
    spec = {
        "key": ["source.ip"], "rate": {"requests": 100, "per": "1s", "burst": 2}, "fairShare": True, "maxKeys": 100,
        "total": {"requests": 100_000, "per": "100s", "burst": 5000},
    }  # fmt: skip
    found = limits(policy(spec))
    for number in range(100):
        for _ in range(2):
            charge(found, view(client=f"10.0.0.{number}"), 0.0)
    newcomer = view(client="192.0.2.9")
    assert sum(admitted(found, *[newcomer] * 1000, now=0.03)) <= 3


@pytest.mark.parametrize(
    ("pattern", "path"),
    [("/a:b", b"/a%3Ab"), ("/x@y", b"/x%40y"), ("/caf%C3%A9", b"/caf%c3%a9"), ("/s", b"/a%2f%2f..%2fs")],
)
def test_no_spelling_of_a_path_escapes_a_limit_or_has_a_bucket_of_its_own(pattern: str, path: bytes) -> None:
    of_path = limits(policy({"match": {"paths": [pattern]}, "rate": RATE}))
    assert admitted(of_path, view(path=path), view(path=path)) == [True, False]
    by_path = limits(policy({"key": ["request.path"], "rate": RATE}))
    assert admitted(by_path, view(path=pattern.encode()), view(path=path)) == [True, False]


def test_a_header_is_counted_with_its_underscore_twin() -> None:
    found = limits(policy({"key": ["request.headers[x-tenant]"], "rate": RATE}))
    views = [view(fields=((name, b"a"),)) for name in (b"x-tenant", b"X_Tenant")]
    assert admitted(found, *views) == [True, False]


def test_connect_has_no_path() -> None:
    found = limits(policy({"match": {"paths": ["/few"]}, "rate": RATE}))
    assert admitted(found, *[view(method=b"CONNECT", path=b"")] * 3) == [True] * 3


def test_connections_in_shadow_are_counted_as_if_the_limit_were_in_force() -> None:
    def connections(mode: str, before: ConnectionLimits) -> ConnectionLimits:
        made = policy({"connections": {"perSecond": 50, "max": 100}}, mode=mode)
        return compile_connection_limits([made], "INBOUND", "cluster.local", before)

    shadow = connections("SHADOW", ConnectionLimits())
    for number in range(6000):
        admission = shadow.admit("192.0.2.1", number / 1000, early=True)
        assert admission is not None
        assert admission.refused is None
        admission.release()
    (limit,) = shadow.limits
    assert limit.admitted + limit.exceeded == 6000
    assert 300 <= limit.admitted <= 360
    enforced = connections("ENFORCE", shadow)
    admission = enforced.admit("192.0.2.1", 7.1, early=True)
    assert admission is not None
    assert admission.refused is None  # no debt of the time before
