"""Endpoints on a store in memory: whose they are, what is written, and what others see of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import trio

from certs.spiffe import workload
from control.calls import Role
from control.problems import Invalid, Refused
from control.registry import endpoints
from control.registry.registered import ADDRESSES, Heartbeat, Registration
from control.registry.table import ENDPOINT, VIRTUAL, Registry
from control.store.sqlite import open_store
from sidecar.feed import state_dir
from tests.control.plane import BILLING, ORDERS
from tests.control.registering import DOMAIN, KEY, SPEC, Room, registering, until

BOTH = SPEC | {"serviceAccounts": ["billing", "orders"]}
BATCH = workload(DOMAIN, "shop", "batch")


async def test_an_endpoint_is_there_for_everybody_when_the_registration_is_answered() -> None:
    async with registering() as room:
        await room.write()
        await room.register("a", labels={"version": "v2"}, port=8080)
        (found,) = room.registry.endpoints(*KEY)
        assert (found.id, found.identity, found.address, found.ttl) == ("a", str(BILLING), "10.0.0.7", 15.0)
        (spec,) = room.registry.live(*KEY)
        assert (spec.address, spec.port, spec.mode, spec.labels) == ("10.0.0.7", 8080, "captured", {"version": "v2"})


async def test_followers_hear_of_each_change_and_not_of_heartbeats() -> None:
    async with registering() as room:
        await room.write()
        await until(lambda: room.registry.virtual(*KEY))
        told: list[tuple[frozenset[tuple[str, str]], int]] = []
        room.registry.follow(lambda keys, version: told.append((keys, version)))
        await room.register("a")
        await room.beat("a")
        await room.beat("a", healthy=True)
        await room.beat("a", healthy=True, detail="200 in 3 ms")
        await room.assembly.endpoints.deregister(KEY, "a", BILLING)
        assert [keys for keys, _ in told] == [{KEY}] * 3
        versions = [version for _, version in told]
        assert versions == sorted(set(versions))
        assert room.registry.version == versions[-1]


async def test_what_is_registered_again_as_it_stands_is_no_write() -> None:
    async with registering() as room:
        await room.write()
        await room.register("a", port=8080)
        version = room.registry.version
        room.now += 5
        again = await room.register("a", port=8080)
        assert room.registry.version == version
        assert again.registered == room.now - 5
        await room.register("a", port=8081)
        assert room.registry.version > version
        assert room.registry.endpoints(*KEY)[0].port == 8081


async def test_a_change_of_health_is_written_with_its_reason_and_its_time() -> None:
    async with registering() as room:
        await room.write()
        await room.register("a", healthy=True)
        room.now += 60
        await room.beat("a", healthy=False, detail="GET /healthz: 503")
        (found,) = room.registry.endpoints(*KEY)
        assert (found.healthy, found.detail, found.changed, found.registered) == (
            False, "GET /healthz: 503", room.now, room.now - 60
        )  # fmt: skip
        assert room.called() == []
        await room.beat("a", healthy=True)
        assert len(room.registry.live(*KEY)) == 1


async def test_a_restart_finds_what_was_registered_and_takes_all_for_heard() -> None:
    store = open_store("", 1.0)
    async with registering(store) as room:
        await room.write()
        await room.register("a", healthy=False)
        await room.register("b", port=8080)
        await until(lambda: room.registry.virtual(*KEY))
        before, virtual = room.registry.endpoints(*KEY), room.registry.virtual(*KEY)
    async with registering(store, now=5000.0) as again:
        assert again.registry.endpoints(*KEY) == before
        assert again.registry.virtual(*KEY) == virtual
        assert not any(each.stale(5000.0) for each in again.registry.hearings(*KEY).values())
    store.close()


# -- whose it is -----------------------------------------------------------------------------------------------------


async def test_one_identity_neither_takes_the_place_of_another_nor_speaks_for_it() -> None:
    async with registering() as room:
        await room.write(KEY, BOTH)
        await room.register("a")
        before = room.registry.endpoints(*KEY)
        with pytest.raises(Invalid, match="register it again") as caught:
            await room.assembly.endpoints.heartbeat(KEY, "a", ORDERS, Heartbeat(False))
        assert caught.value.status == 404
        await room.assembly.endpoints.deregister(KEY, "a", ORDERS)
        assert room.registry.endpoints(*KEY) == before
        await room.register("a", ORDERS, port=9999)
        assert sorted((each.id, each.identity) for each in room.registry.endpoints(*KEY)) == [
            ("a", str(BILLING)), ("a", str(ORDERS)),
        ]  # fmt: skip
        assert before[0] in room.registry.endpoints(*KEY)


async def test_who_may_not_serve_is_refused_whatever_it_asks() -> None:
    async with registering() as room:
        await room.write(KEY, BOTH)
        await room.register("a")
        for act in (
            lambda: room.register("a", BATCH, port=9999),
            lambda: room.assembly.endpoints.heartbeat(KEY, "a", BATCH, Heartbeat(False)),
            lambda: room.assembly.endpoints.deregister(KEY, "a", BATCH),
        ):
            with pytest.raises(Refused) as caught:
                await act()
            assert caught.value.status == 403
        assert len(room.registry.endpoints(*KEY)) == 1


# -- processes with one id -------------------------------------------------------------------------------------------


async def test_two_processes_with_one_id_are_two_endpoints_and_each_speaks_for_its_own() -> None:
    async with registering() as room:
        await room.write()
        await room.register("web-1", peer="10.0.0.7", process="first")
        await room.register("web-1", peer="10.0.0.8", process="second")
        assert room.ids() == ["web-1", "web-1"]
        assert {each.address for each in room.registry.live(*KEY)} == {"10.0.0.7", "10.0.0.8"}
        await room.beat("web-1", healthy=False, process="second")
        assert room.called() == ["10.0.0.7"]
        with pytest.raises(Invalid, match="register it again"):
            await room.beat("web-1", process="third")
        await room.assembly.endpoints.deregister(KEY, "web-1", BILLING, "third")
        assert room.ids() == ["web-1", "web-1"]
        await room.assembly.endpoints.deregister(KEY, "web-1", BILLING, "first")
        assert [each.address for each in room.registry.endpoints(*KEY)] == ["10.0.0.8"]


@pytest.mark.parametrize("dies", ["first", "second"])
async def test_of_two_with_one_id_the_one_that_died_is_dropped_and_the_other_is_heard(dies: str) -> None:
    lives = {"first": "second", "second": "first"}[dies]
    async with registering() as room:
        await room.write()
        for number, process in enumerate(("first", "second")):
            await room.register("web-1", peer=f"10.0.0.{number}", process=process)
        for _ in range(12):
            await room.pass_time(5)
            for process in ("first", "second"):
                await room.beat("web-1", process=process)
        for _ in range(4):
            await room.pass_time(5)
            await room.beat("web-1", process=lives)
        (left,) = room.registry.endpoints(*KEY)
        assert left.address == {"first": "10.0.0.0", "second": "10.0.0.1"}[lives]
        with pytest.raises(Invalid, match="register it again"):
            await room.beat("web-1", process=dies)


@pytest.mark.parametrize(
    ("again", "kept"),
    [
        ({}, 1),
        ({"identity": ORDERS}, 2),
        ({"peer": "10.0.0.8"}, 2),
        ({"port": 9090}, 2),
        ({"endpoint_id": "web-2"}, 2),
    ],
    ids=["a restart", "another identity", "another address", "another port", "another id"],
)
async def test_only_the_same_identity_at_the_same_address_and_port_takes_the_place(again: Any, kept: int) -> None:
    async with registering() as room:
        await room.write(KEY, BOTH)
        await room.register("web-1", port=8080, process="before")
        told = {"endpoint_id": "web-1", "port": 8080, "process": "after"} | again
        await room.register(told.pop("endpoint_id"), told.pop("identity", BILLING), **told)
        assert len(room.registry.endpoints(*KEY)) == kept
        if kept == 1:
            with pytest.raises(Invalid, match="register it again"):
                await room.beat("web-1", process="before")
            await room.assembly.endpoints.deregister(KEY, "web-1", BILLING, "before")  # at the end of its drain
        await room.assembly.endpoints.deregister(KEY, "web-1", BILLING, "before")
        assert len(room.registry.endpoints(*KEY)) == 1


async def test_a_restart_needs_no_room_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "OF_A_SERVICE", 1)
    monkeypatch.setattr(endpoints, "OF_AN_IDENTITY", 1)
    monkeypatch.setattr(endpoints, "WEIGHT_OF_AN_IDENTITY", 150)
    async with registering() as room:
        await room.write()
        for process in ("one", "two", "three"):
            await room.register("web-1", process=process)
        assert len(room.registry.endpoints(*KEY)) == 1


async def test_an_entry_of_before_there_were_processes_is_read_and_taken_over_by_its_identity() -> None:
    """Its sidecar's heartbeats are answered with 404 once, and it registers again."""
    store = open_store("", 1.0)
    old = {
        "id": "web-1",
        "identity": str(BILLING),
        "address": "10.0.0.7",
        "ttl": 15.0,
        "registered": 1.0,
        "changed": 1.0,
    }
    await store.put(ENDPOINT, "shop/billing/web-1", msgspec.json.encode(old))
    async with registering(store) as room:
        await room.write()
        assert [each.address for each in room.registry.live(*KEY)] == ["10.0.0.7"]
        with pytest.raises(Invalid, match="register it again"):
            await room.beat("web-1")
        await room.register("web-1")
        (found,) = room.registry.endpoints(*KEY)
        assert found.registrant
        await room.beat("web-1")
    store.close()


async def test_an_identity_of_another_service_registers_nothing() -> None:
    async with registering() as room:
        await room.write()
        with pytest.raises(Refused):
            await room.register("a", ORDERS)
        assert room.ids() == []


async def test_a_service_that_is_not_there_is_told_so() -> None:
    async with registering() as room:
        for act in (
            lambda: room.register("a"),
            lambda: room.beat("a"),
            lambda: room.assembly.endpoints.deregister(KEY, "a", BILLING),
        ):
            with pytest.raises(Invalid, match="there is no service 'billing' in namespace 'shop'") as caught:
                await act()
            assert caught.value.status == 404


async def test_who_is_not_registered_is_told_to_register() -> None:
    async with registering() as room:
        await room.write()
        with pytest.raises(Invalid, match="register it again") as caught:
            await room.beat("a")
        assert (caught.value.status, caught.value.kind) == (404, "not-registered")
        await room.assembly.endpoints.deregister(KEY, "a", BILLING)  # it is gone, as was wanted


async def test_two_identities_that_register_under_one_id_at_once_are_both_there() -> None:
    async with registering() as room:
        await room.write(KEY, BOTH)
        for number in range(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(room.register, f"e{number}", BILLING)
                nursery.start_soon(room.register, f"e{number}", ORDERS)
        found = [(each.id, each.identity) for each in room.registry.endpoints(*KEY)]
        assert sorted(found) == sorted((f"e{n}", str(who)) for n in range(20) for who in (BILLING, ORDERS))


async def test_a_service_and_an_identity_have_so_many_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "OF_A_SERVICE", 3)
    monkeypatch.setattr(endpoints, "OF_AN_IDENTITY", 4)
    other = ("shop", "ledger")
    async with registering() as room:
        await room.write(KEY, BOTH)
        await room.write(other, BOTH)
        for endpoint_id in "abc":
            await room.register(endpoint_id)
        with pytest.raises(Invalid, match="this service has 3 endpoints already") as caught:
            await room.register("d")
        assert caught.value.status == 409
        await room.register("a", port=8080)  # what is there may still be changed
        await room.register("d", key=other)
        with pytest.raises(Invalid, match="this identity has 4 endpoints already"):
            await room.register("e", key=other)
        await room.register("e", ORDERS, key=other)
        await room.assembly.endpoints.deregister(KEY, "c", BILLING)
        await room.register("f", key=other)


async def test_a_service_of_many_ports_has_fewer_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each port of each endpoint is a row in the table of every caller."""
    monkeypatch.setattr(endpoints, "PLACES_OF_A_SERVICE", 9)
    ports = [{"port": number, "name": f"p{number}"} for number in (80, 81, 82, 83)]
    async with registering() as room:
        await room.write(KEY, BOTH | {"ports": ports})
        await room.register("a")
        await room.register("b")
        with pytest.raises(Invalid, match="2 endpoints already, as many as one with 4 ports may have"):
            await room.register("c")


async def test_nobodys_labels_alone_make_a_snapshot_too_long_for_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy takes 16 MiB, and nothing new at all where there is more."""
    assert 3 * endpoints.WEIGHT_OF_AN_IDENTITY < state_dir.MOST
    monkeypatch.setattr(endpoints, "WEIGHT_OF_AN_IDENTITY", 9000)
    long = {f"l{number}": "x" * 63 for number in range(32)}
    async with registering() as room:
        await room.write(KEY, BOTH)
        for endpoint_id in "abc":
            await room.register(endpoint_id, labels=long)
        assert sum(len(msgspec.json.encode(each)) for each in room.registry.live(*KEY)) < 9000
        with pytest.raises(Invalid, match="would be too long in all") as caught:
            await room.register("d", labels=long)
        assert caught.value.status == 409
        await room.register("d")
        with pytest.raises(Invalid, match="would be too long in all"):
            await room.register("d", labels=long)
        await room.register("e", ORDERS, labels=long)
        await room.register("a")
        await room.register("d", labels=long)


# -- addresses -------------------------------------------------------------------------------------------------------


async def make_token(room: Room, networks: tuple[str, ...], account: str = "billing", **more: Any) -> str:
    token, _ = await room.tokens.create(
        Role.WORKLOAD,
        (b"\x01" * 32,),
        "token:x",
        room.now,
        60.0,
        bound_to=("shop", account),
        addresses=networks,
        **more,
    )
    return token.id


async def test_another_address_needs_a_token_of_the_same_workload_that_is_good() -> None:
    async with registering() as room:
        await room.write()
        await make_token(room, ("10.1.0.0/16",), "orders")
        with pytest.raises(Invalid, match=r"no token of this workload allows it") as caught:
            await room.register("a", address="10.1.2.3")
        assert caught.value.status == 403
        token = await make_token(room, ("10.1.0.0/16",))
        assert (await room.register("a", address="10.1.2.3")).address == "10.1.2.3"
        with pytest.raises(Invalid, match="no token"):
            await room.register("b", address="10.2.2.3")
        await room.tokens.void(token)
        with pytest.raises(Invalid, match="no token"):
            await room.register("b", address="10.1.2.4")
        await make_token(room, ("10.1.0.0/16",))
        room.now += 61
        with pytest.raises(Invalid, match="no token"):
            await room.register("b", address="10.1.2.4")


async def test_a_token_that_was_spent_for_a_certificate_still_says_where_its_workload_is() -> None:
    async with registering() as room:
        await room.write()
        _, text = await room.tokens.create(
            Role.WORKLOAD, (b"\x01" * 32,), "token:x", room.now, 60.0, bound_to=("shop", "billing"),
            single_use=True, addresses=("10.1.0.0/16",),
        )  # fmt: skip
        await room.tokens.spend(await room.tokens.check(text, room.now))
        assert (await room.register("a", address="10.1.2.3")).address == "10.1.2.3"


async def test_a_token_of_before_there_were_addresses_is_read_and_allows_none() -> None:
    async with registering() as room:
        await room.write()
        token_id = await make_token(room, ())
        entry = await room.store.get("token", token_id)
        assert entry is not None
        old = msgspec.json.decode(entry.value)
        del old["addresses"]
        await room.store.put("token", token_id, msgspec.json.encode(old))
        assert (await room.tokens.live(room.now))[0].addresses == ()
        with pytest.raises(Invalid, match="no token"):
            await room.register("a", address="10.1.2.3")


async def test_of_several_at_one_place_the_last_one_counts_and_whether_it_is_well() -> None:
    async with registering() as room:
        await room.write()
        await room.register("old", healthy=True)
        room.now += 1
        await room.register("new", healthy=False)
        assert room.called() == []  # the old one is what ran there before
        await room.beat("new", healthy=True)
        assert room.called() == ["10.0.0.7"]
        await room.register("elsewhere", peer="10.0.0.8")
        assert [each.address for each in room.registry.live(*KEY)] == ["10.0.0.8", "10.0.0.7"]


# -- several addresses -----------------------------------------------------------------------------------------------

BOTH_FAMILIES = ["10.0.0.7", "fd00::7"]


@pytest.mark.parametrize("first", [0, 1], ids=["IPv4 first", "IPv6 first"])
async def test_an_endpoint_has_each_address_once_it_has_called_from_there(first: int) -> None:
    peers = BOTH_FAMILIES if first == 0 else BOTH_FAMILIES[::-1]
    async with registering() as room:
        await room.write()
        told: dict[str, Any] = {"addresses": BOTH_FAMILIES, "process": "p1"}
        one, refused = await room.place("a", peer=peers[0], **told)
        assert (one.addresses, [each.address for each in refused]) == ((peers[0],), [peers[1]])
        assert "neither a token's addresses nor --workload-networks" in refused[0].why
        both, refused = await room.place("a", peer=peers[1], **told)
        assert (list(both.addresses), refused) == (BOTH_FAMILIES, ())
        version = room.registry.version
        await room.place("a", peer=peers[0], **told)
        assert room.registry.version == version, "what stands is not written again"
        (spec,) = room.registry.live(*KEY)
        assert spec.addresses == BOTH_FAMILIES
        fewer, _ = await room.place("a", peer=peers[0], addresses=[peers[0]], process="p1")
        assert fewer.addresses == (peers[0],)


async def test_another_process_has_not_proven_what_one_has() -> None:
    async with registering() as room:
        await room.write()
        for peer in BOTH_FAMILIES:
            await room.place("a", peer=peer, addresses=BOTH_FAMILIES, process="p1")
        other, refused = await room.place("b", peer="10.0.0.8", addresses=["10.0.0.8", "fd00::7"], process="p2")
        assert (other.addresses, [each.address for each in refused]) == (("10.0.0.8",), ["fd00::7"])


async def test_workload_networks_and_tokens_allow_addresses_that_are_not_proven() -> None:
    async with registering(networks=("fd00::/64",)) as room:
        await room.write()
        both, refused = await room.place("a", addresses=BOTH_FAMILIES)
        assert (list(both.addresses), refused) == (BOTH_FAMILIES, ())
        assert (await room.register("b", address="fd00::8")).address == "fd00::8"
        _, refused = await room.place("c", peer="10.0.0.9", addresses=["10.0.0.9", "fd01::9"])
        assert [each.address for each in refused] == ["fd01::9"]
        await make_token(room, ("fd01::/64",))
        assert (await room.register("c", peer="10.0.0.9", addresses=["10.0.0.9", "fd01::9"])).others == ("fd01::9",)


async def test_a_restart_at_one_of_its_addresses_takes_the_place() -> None:
    async with registering(networks=("fd00::/64",)) as room:
        await room.write()
        await room.register("a", addresses=BOTH_FAMILIES, process="before")
        await room.register("a", peer="fd00::7", process="after")
        assert [each.addresses for each in room.registry.endpoints(*KEY)] == [("fd00::7",)]


async def test_of_several_at_one_address_the_last_one_has_it_and_the_others_what_is_left() -> None:
    async with registering(networks=("fd00::/64",)) as room:
        await room.write()
        await room.register("a", addresses=BOTH_FAMILIES)
        room.now += 1
        await room.register("b", peer="fd00::7")
        assert [each.addresses for each in room.registry.live(*KEY)] == [["10.0.0.7"], ["fd00::7"]]
        room.now += 1
        await room.register("c", peer="10.0.0.7")
        assert [each.addresses for each in room.registry.live(*KEY)] == [["fd00::7"], ["10.0.0.7"]]


async def test_an_endpoint_names_only_so_many_addresses() -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"addresses": [f"10.0.0.{n}" for n in range(ADDRESSES + 1)]}, Registration)


# -- the view --------------------------------------------------------------------------------------------------------


async def test_an_entry_that_can_not_be_read_is_left_out_and_the_others_are_there(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with registering() as room:
        await room.write()
        await room.register("a")
        await room.store.put(ENDPOINT, "shop/billing/broken", b'{"id": 3}')
        await room.store.put(VIRTUAL, "shop/other", b"[]")
        await room.register("b")
        assert room.ids() == ["a", "b"]
        assert "endpoint shop/billing/broken can't be read" in caplog.text


async def test_a_view_that_fell_behind_lists_again_and_misses_nothing() -> None:
    store = open_store("", 1.0)
    async with registering(store) as room:
        await room.write()
        await room.register("a")
        await room.register("b")
        view = Registry(store, lambda: 0.0)
        await view.open()
        told: list[frozenset[tuple[str, str]]] = []
        view.follow(lambda keys, version: told.append(keys))
        await room.assembly.endpoints.deregister(KEY, "a", BILLING)
        await room.register("c")
        await view.open()
        assert [each.id for each in view.endpoints(*KEY)] == ["b", "c"]
        assert told == [{KEY}]
        assert view.owned(str(BILLING)) == 2
        assert view.version == room.registry.version
    store.close()
