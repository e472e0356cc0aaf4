"""From a change to the proxies that it concerns: batched, scoped, by versions that only rise."""

from __future__ import annotations

import time

import pytest
import trio
from trio.testing import MockClock

from control.distribution.cooperative_steps import STEP_SECONDS, CooperativeSteps
from control.distribution.push import LARGE
from control.problems import Refused
from control.store import StoreFailed
from sidecar.resources.schema import MutualTls
from tests.control.distributing import Behind, distributing, endpoints, read, services
from tests.unit.resources.docs import doc, entry, service


async def test_a_proxy_is_told_of_its_own_namespace_and_of_what_is_exported_to_it(autojump_clock: MockClock) -> None:
    async with distributing() as it:
        await it.write(
            service("shop/web"), service("shop/cart"), service("pay/card", more="exportTo: ['*'],"), service("pay/own")
        )
        await it.settled()
        mesh = await it.mesh("shop/web")
        assert services(mesh) == ["pay/card", "shop/cart", "shop/web"]
        assert (mesh.schema, mesh.proxy, mesh.trust_domain) == (
            "1.4", "spiffe://cluster.local/ns/shop/sa/web", "cluster.local",
        )  # fmt: skip


async def test_an_endpoint_reaches_who_sees_it_and_wakes_nobody_else(autojump_clock: MockClock) -> None:
    async with distributing() as it, trio.open_nursery() as nursery:
        await it.write(service("shop/web"), service("pay/card"))
        await it.settled()
        nursery.start_soon(it.follow, "shop/other")
        nursery.start_soon(it.follow, "pay/other")
        await it.settled()
        await it.register("shop/web", "one", "10.0.0.7")
        await it.settled()
        assert [endpoints(each, "shop/web") for each in it.told["shop/other"]] == [[], ["10.0.0.7"]]
        assert len(it.told["pay/other"]) == 1
        await it.register("shop/web", "one", "10.0.0.7", healthy=False)
        await it.settled()
        assert endpoints(it.told["shop/other"][-1], "shop/web") == []
        await it.register("shop/web", "one", "10.0.0.7", healthy=False)
        await it.settled()
        assert len(it.told["shop/other"]) == 3, "the same bytes were published again"
        (unwell,) = it.told["shop/other"][-1].services[0].endpoints
        assert (unwell.address, unwell.unwell) == ("10.0.0.7", True), "its address is the service's all the same"
        await it.store.delete("endpoint", "shop/web/one")
        await it.settled()
        assert [len(each.services[0].endpoints) for each in it.told["shop/other"]] == [0, 1, 1, 0]
        nursery.cancel_scope.cancel()


async def test_a_burst_is_one_snapshot_and_a_stream_one_per_batch(autojump_clock: MockClock) -> None:
    async with distributing() as it, trio.open_nursery() as nursery:
        await it.write(service("shop/web"))
        await it.settled()
        nursery.start_soon(it.follow, "shop/other")
        await it.settled()
        for number in range(50):
            await it.register("shop/web", f"e{number}", f"10.0.0.{number}")
        await it.settled()
        assert [len(endpoints(each, "shop/web")) for each in it.told["shop/other"]] == [0, 50]

        began = trio.current_time()
        for number in range(100):
            await it.register("shop/web", f"f{number}", f"10.0.1.{number}")
            await trio.sleep(0.01)
        took = trio.current_time() - began
        await it.settled()
        assert 5 <= len(it.told["shop/other"]) - 2 <= took / 0.1 + 2
        versions = [int(each.version.partition(".")[2]) for each in it.told["shop/other"]]
        assert versions == sorted(set(versions))
        nursery.cancel_scope.cancel()


async def test_documents_decide_what_a_proxy_obeys_and_a_label_moves_it(autojump_clock: MockClock) -> None:
    async with distributing() as it, trio.open_nursery() as nursery:
        await it.write(
            service("shop/web"), service("shop/cart"),
            doc("PeerAuthentication", "shop/lax", "{selector: {matchLabels: {tier: old}}, mtls: {mode: PERMISSIVE}}"),
        )  # fmt: skip
        await it.settled()
        for who in ("shop/web", "shop/cart"):
            nursery.start_soon(it.follow, who)
        await it.settled()
        await it.write(service("shop/web", labels="{tier: old}"))
        await it.settled()
        modes = {who: told[-1].peer_authentication.mtls for who, told in it.told.items()}
        assert modes == {"shop/web": MutualTls("PERMISSIVE"), "shop/cart": MutualTls("UNSET")}
        assert len(it.told["shop/cart"]) == 1

        await it.write(doc("Sidecar", "sidecar-system/all", "{outboundTrafficPolicy: {mode: REGISTRY_ONLY}}"))
        await it.settled()
        assert [told[-1].outbound_policy for told in it.told.values()] == ["REGISTRY_ONLY", "REGISTRY_ONLY"]
        await it.write(doc("Sidecar", "shop/narrow", "{egress: [{hosts: ['./web.shop.svc.cluster.local']}]}"))
        await it.settled()
        assert services(it.told["shop/web"][-1]) == ["shop/web"]
        assert services(it.told["shop/cart"][-1]) == ["shop/cart", "shop/web"]
        await it.write(gone=["Sidecar/shop/narrow", "Service/shop/cart"])
        await it.settled()
        assert services(it.told["shop/web"][-1]) == ["shop/web"]
        nursery.cancel_scope.cancel()


async def test_a_policy_reaches_whom_it_applies_to_and_each_change_is_another_version(
    autojump_clock: MockClock,
) -> None:
    def policies(who: str) -> list[list[str]]:
        return [[each.title for each in told.authorization] for told in it.told[who]]

    def policy(where: str, spec: str) -> str:
        return doc("AuthorizationPolicy", where, spec)

    async with distributing() as it, trio.open_nursery() as nursery:
        await it.write(service("shop/web", labels="{app: web}"), service("shop/cart"), service("bank/api"))
        await it.settled()
        for who in ("shop/web", "shop/cart", "bank/api"):
            nursery.start_soon(it.follow, who)
        await it.settled()
        await it.write(policy("shop/some", "{selector: {matchLabels: {app: web}}}"))
        await it.settled()
        await it.write(policy("shop/some", "{selector: {matchLabels: {app: web}}, rules: [{}]}"))
        await it.settled()
        assert policies("shop/web") == [[], ["shop/some"], ["shop/some"]]
        assert [len(told.authorization[0].rules) for told in it.told["shop/web"][1:]] == [0, 1]
        assert policies("shop/cart") == policies("bank/api") == [[]]
        await it.write(policy("sidecar-system/all", "{action: DENY, rules: [{}]}"))
        await it.settled()
        assert policies("shop/web")[-1] == ["sidecar-system/all", "shop/some"]
        assert policies("bank/api")[-1] == policies("shop/cart")[-1] == ["sidecar-system/all"]
        await it.write(service("shop/cart", labels="{app: web}"), gone=["AuthorizationPolicy/sidecar-system/all"])
        await it.settled()
        assert policies("shop/web")[-1] == policies("shop/cart")[-1] == ["shop/some"]
        assert policies("bank/api")[-1] == []
        await it.write(gone=["AuthorizationPolicy/shop/some"])
        await it.settled()
        assert policies("shop/web")[-1] == policies("shop/cart")[-1] == []
        nursery.cancel_scope.cancel()


async def test_routes_reach_those_that_see_their_host_and_each_change_is_another_version(
    autojump_clock: MockClock,
) -> None:
    def routed(where: str, host: str, to: str) -> str:
        return doc(
            "VirtualService", where, f"{{hosts: [{host}], http: [{{route: [{{destination: {{host: {to}}}}}]}}]}}"
        )

    def routes(who: str) -> list[list[str]]:
        return [[each.title for each in told.virtual_services] for told in it.told[who]]

    card = "card.pay.svc.cluster.local"
    async with distributing() as it, trio.open_nursery() as nursery:
        await it.write(service("shop/web"), service("pay/card", more="exportTo: [shop]"), service("far/away"))
        await it.settled()
        for who in ("shop/web", "pay/card", "far/away"):
            nursery.start_soon(it.follow, who)
        await it.settled()
        await it.write(routed("pay/card", "card", "card"), doc("DestinationRule", "pay/card", "{host: card}"))
        await it.settled()
        await it.write(routed("pay/card", "card", "other"))
        await it.settled()
        assert routes("shop/web") == [[], ["pay/card"], ["pay/card"]]
        hosts = [told.virtual_services[0].http[0].route[0].destination.host for told in it.told["shop/web"][1:]]
        assert hosts == [card, "other.pay.svc.cluster.local"]
        assert [[each.host for each in told.destination_rules] for told in it.told["shop/web"]] == [[], [card], [card]]
        assert routes("far/away") == [[]], "a proxy that sees no host of it was told something"

        await it.write(doc("BackendTrafficPolicy", "sidecar-system/p", f"{{host: {card}, retryBudget: {{}}}}"))
        await it.settled()
        assert [each.title for each in it.told["shop/web"][-1].backend_traffic_policies] == ["sidecar-system/p"]
        assert routes("far/away") == [[]]

        await it.write(routed("shop/a", card, "web"), aged=0.5)
        await it.settled()
        assert routes("shop/web")[-1] == routes("pay/card")[-1] == ["shop/a", "pay/card"]
        await it.write(routed("shop/a", card, "web"), aged=2.0)
        await it.settled()
        assert routes("shop/web")[-1] == routes("pay/card")[-1] == ["pay/card", "shop/a"], "it is the younger now"
        await it.write(service("pay/card"), gone=["VirtualService/shop/a"])
        await it.settled()
        assert (routes("shop/web")[-1], routes("pay/card")[-1]) == ([], ["pay/card"])
        assert it.told["shop/web"][-1].destination_rules == []
        nursery.cancel_scope.cancel()


async def test_an_entry_has_the_machines_that_it_selects(autojump_clock: MockClock) -> None:
    async with distributing() as it, trio.open_nursery() as nursery:
        await it.write(entry("shop/db", "db.example.com", "resolution: STATIC, workloadSelector: {labels: {a: db}},"))
        await it.settled()
        nursery.start_soon(it.follow, "shop/web")
        await it.settled()
        await it.write(doc("WorkloadEntry", "shop/db1", "{address: 10.9.0.1, labels: {a: db}}"))
        await it.settled()
        (found,) = it.told["shop/web"][-1].service_entries
        assert [each.address for each in found.endpoints] == ["10.9.0.1"]
        nursery.cancel_scope.cancel()


async def test_a_content_that_is_another_one_never_has_the_version_of_the_one_before(
    autojump_clock: MockClock,
) -> None:
    """Documents and endpoints come by two watches: where one is behind, the store's version may not have risen."""
    registry = Behind()
    async with distributing(endpoints=registry) as it:
        await it.write(service("shop/web"))
        await it.settled()
        member = await it.member("shop/web")
        first = member.published.version
        assert first.n == it.documents.version
        registry.comes("shop", "web", "10.0.0.9")
        await it.settled()
        assert endpoints(await it.mesh("shop/web"), "shop/web") == ["10.0.0.9"]
        assert member.published.version > first
        # Whoever comes now, or comes back, gets no lower one.
        assert (await it.member("shop/new")).published.version >= member.published.version


async def test_a_store_that_fails_delays_a_version_and_loses_no_change(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Behind()
    async with distributing(endpoints=registry) as it:
        await it.write(service("shop/web"))
        await it.settled()
        await it.member("shop/web")

        async def full(*_: object) -> int:
            raise StoreFailed("the disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(it.store, "put", full)
            registry.comes("shop", "web", "10.0.0.9")
            await it.settled()
            assert endpoints(await it.mesh("shop/web"), "shop/web") == []
        await trio.sleep(3)
        assert endpoints(await it.mesh("shop/web"), "shop/web") == ["10.0.0.9"]


async def test_who_is_silent_is_forgotten_with_its_pieces_and_who_waits_is_not(autojump_clock: MockClock) -> None:
    async with distributing() as it, trio.open_nursery() as nursery:
        await it.write(service("shop/web"), service("pay/card"))
        await it.settled()
        before = (await it.mesh("pay/card")).version
        nursery.start_soon(it.follow, "shop/web")
        await trio.sleep(400)
        assert set(it.rounds.audience.members) == {"spiffe://cluster.local/ns/shop/sa/web"}
        assert it.rounds.audience.pieces == 1
        assert services(await it.mesh("pay/card")) == ["pay/card"]
        assert (await it.mesh("pay/card")).version >= before
        nursery.cancel_scope.cancel()


async def test_identities_are_bounded_and_the_silent_go_first(autojump_clock: MockClock) -> None:
    async with distributing(most=2) as it:
        first = await it.member("shop/a")
        await trio.sleep(1)
        with it.rounds.waiting(first):
            await it.member("shop/b")
            await it.member("shop/c")
            assert {each.account for each in it.rounds.audience.members.values()} == {"a", "c"}
            second = await it.member("shop/c")
            with it.rounds.waiting(second), pytest.raises(Refused):
                await it.member("shop/d")


async def test_what_is_shared_is_held_once(autojump_clock: MockClock) -> None:
    async with distributing() as it:
        await it.write(*(service(f"shop/s{number}") for number in range(20)))
        await it.settled()
        members = [await it.member(f"shop/p{number}") for number in range(20)]
        contents = {id(each.published.value.content.services) for each in members}
        assert len(contents) == 1 and it.rounds.audience.pieces == 20
        await it.register("shop/s3", "one")
        await it.settled()
        assert len({id(each.published.value.content.services) for each in members} - contents) == 1


async def test_a_large_mesh_is_told_as_a_small_one() -> None:
    """Its tables are made in a thread, which a clock that jumps would not wait for."""
    async with distributing() as it:
        await it.write(*(service(f"shop/s{number}") for number in range(LARGE)))
        member = await it.member("shop/web")
        with trio.fail_after(30):
            while len(read(member).services) < LARGE:
                await member.published.changed.wait()
            await it.write(doc("Sidecar", "shop/two", "{egress: [{hosts: ['./s7.shop.svc.cluster.local', 'a/*']}]}"))
            await member.published.changed.wait()
        assert services(read(member)) == ["shop/s7"]


async def test_long_work_lets_others_go_first() -> None:
    turns, went = CooperativeSteps(), []

    async def other() -> None:
        went.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        for _ in range(2):  # of two that are due at once either may be the first
            began = time.thread_time()
            while time.thread_time() - began < STEP_SECONDS:
                pass
            await turns.look()
        assert went
    turns.stop()
    assert turns.spent >= turns.longest >= STEP_SECONDS
