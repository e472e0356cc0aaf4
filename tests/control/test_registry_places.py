"""Endpoints on a store in memory: which process has which, and at which addresses."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from control.problems import Invalid
from control.registry import endpoints
from control.registry.endpoint_table import ENDPOINT
from control.registry.registration import ADDRESSES, Registration
from control.routes import Role
from control.store.sqlite import open_store
from tests.control.plane import BILLING, ORDERS
from tests.control.registering import KEY, SPEC, Room, registering

BOTH = SPEC | {"serviceAccounts": ["billing", "orders"]}

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
