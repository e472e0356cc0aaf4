"""What keeps the registry true, on a store in memory: who goes with time and with documents, and virtual addresses."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from control.problems import Invalid
from control.registry.endpoint_table import ENDPOINT
from control.store.sqlite import open_store
from tests.control.plane import ORDERS
from tests.control.registering import KEY, SPEC, Room, registering, until

BOTH = SPEC | {"serviceAccounts": ["billing", "orders"]}


# -- ageing ----------------------------------------------------------------------------------------------------------


async def three(room: Room) -> None:
    await room.write()
    for number, endpoint_id in enumerate("abc"):
        await room.register(endpoint_id, peer=f"10.0.0.{number + 1}")


async def test_one_dead_of_three_is_dropped_and_told_so_when_it_comes_back() -> None:
    async with registering() as room:
        await three(room)
        await room.pass_time(60, "a", "b", "c")
        await room.pass_time(14, "a", "b")
        assert room.ids() == ["a", "b", "c"]
        await room.pass_time(3, "a", "b")
        assert room.ids() == ["a", "b"]
        with pytest.raises(Invalid, match="register it again"):
            await room.beat("c")
        await room.register("c", peer="10.0.0.3")
        assert room.ids() == ["a", "b", "c"]


async def test_when_all_are_silent_all_stay_and_are_shown_stale() -> None:
    async with registering() as room:
        await three(room)
        await room.pass_time(60, "a", "b", "c")
        await room.pass_time(3000)
        assert room.ids() == ["a", "b", "c"]
        assert len(room.registry.live(*KEY)) == 3
        assert all(each.stale(room.now) for each in room.registry.hearings(*KEY).values())
        assert b'sidecar_control_endpoints{state="stale"} 3.0' in room.figures.render()
        for endpoint_id in "abc":
            await room.beat(endpoint_id)
        await room.pass_time(120, "a", "b", "c")
        assert room.ids() == ["a", "b", "c"]


async def test_after_an_absence_of_ours_it_takes_a_witness_to_drop_anybody() -> None:
    async with registering() as room:
        await three(room)
        await room.pass_time(60, "a", "b", "c")
        room.now += 3000
        room.registry.begin_anew()
        await room.assembly.ageing.round(room.now)
        assert room.ids() == ["a", "b", "c"]
        await room.pass_time(30, "a", "b")
        assert room.ids() == ["a", "b", "c"]
        await room.pass_time(10, "a", "b")
        assert room.ids() == ["a", "b"]


async def test_who_registers_while_it_is_being_dropped_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where its registration says only what stands there already, and so would else be no write."""
    async with registering() as room:
        await three(room)
        await room.pass_time(60, "a", "b", "c")
        real, judged = room.store.write, trio.Event()

        async def slow(changes: Any) -> int:
            if any(change.kind == ENDPOINT and change.value is None for change in changes) and not judged.is_set():
                judged.set()
                with pytest.raises(Invalid, match="register it again"):
                    await room.beat("c")
                await room.register("c", peer="10.0.0.3")
            return await real(changes)

        monkeypatch.setattr(room.store, "write", slow)
        await room.pass_time(17, "a", "b")
        assert judged.is_set()
        assert room.ids() == ["a", "b", "c"]
        await room.beat("c")


async def test_one_that_came_back_does_not_save_the_others_of_the_round(monkeypatch: pytest.MonkeyPatch) -> None:
    async with registering() as room:
        await three(room)
        await room.pass_time(60, "a", "b", "c")
        real, judged = room.store.write, trio.Event()

        async def slow(changes: Any) -> int:
            if any(change.kind == ENDPOINT and change.value is None for change in changes) and not judged.is_set():
                judged.set()
                await room.register("c", peer="10.0.0.3")
            return await real(changes)

        monkeypatch.setattr(room.store, "write", slow)
        await room.pass_time(17, "a")
        assert room.ids() == ["a", "c"]


# -- documents -------------------------------------------------------------------------------------------------------


async def test_endpoints_go_with_the_service_and_with_the_permission() -> None:
    async with registering() as room:
        await room.write(KEY, BOTH)
        await room.register("a")
        await room.register("b", ORDERS)
        await room.write(KEY, SPEC)
        await until(lambda: room.ids() == ["a"])
        await room.write(KEY, None)
        await until(lambda: room.ids() == [])
        assert (await room.store.list(ENDPOINT)).entries == ()


async def test_what_was_changed_while_we_were_not_there_is_seen_at_the_start() -> None:
    store = open_store("", 1.0)
    async with registering(store) as room:
        await room.write(KEY, BOTH)
        await room.write(("shop", "gone"), SPEC)
        await room.register("a")
        await room.register("b", ORDERS)
        await room.register("x", key=("shop", "gone"))
        await until(lambda: room.registry.virtual("shop", "gone"))
        for key, spec in ((("shop", "gone"), None), (KEY, SPEC)):
            room.documents.follow(lambda keys, version: None)
            room.assembly.following.settle = nothing  # type: ignore[method-assign]
            await room.write(key, spec)
    async with registering(store) as again:
        await until(lambda: again.ids() == ["a"] and not again.ids(("shop", "gone")))
        await until(lambda: not again.registry.virtual("shop", "gone"))
    store.close()


async def nothing(keys: Any) -> None:
    pass


async def test_a_document_that_can_not_be_read_drops_nobody() -> None:
    async with registering() as room:
        await room.write()
        await room.register("a")
        await until(lambda: room.registry.virtual(*KEY))
        virtual = room.registry.virtual(*KEY)
        await room.write(KEY, SPEC | {"fromTheFuture": True})
        await room.write(("shop", "other"), SPEC)
        await until(lambda: room.registry.virtual("shop", "other"))
        assert room.ids() == ["a"]
        assert room.registry.virtual(*KEY) == virtual


async def test_every_service_without_addresses_has_its_own_for_as_long_as_it_exists() -> None:
    keys = [("shop", f"s{number}") for number in range(30)]
    async with registering() as room:
        for key in keys:
            await room.write(key)
        await room.write(("shop", "named"), SPEC | {"addresses": ["10.9.9.9"]})
        await until(lambda: all(room.registry.virtual(*key) for key in keys))
        found = {key: room.registry.virtual(*key) for key in keys}
        assert len({address for pair in found.values() for address in pair}) == 60
        assert room.registry.virtual("shop", "named") == ()
        await room.write(keys[0], None)
        await until(lambda: not room.registry.virtual(*keys[0]))
        await room.write(keys[1], SPEC | {"addresses": ["10.9.9.8"]})
        await until(lambda: not room.registry.virtual(*keys[1]))
        await room.write(keys[0])
        await until(lambda: room.registry.virtual(*keys[0]))
        assert {key: room.registry.virtual(*key) for key in keys if key != keys[1]} == {
            key: each for key, each in found.items() if key != keys[1]
        }


async def test_where_no_number_is_left_the_service_goes_without_and_gets_one_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("control.registry.virtual_address_allocator.LAST", 2)
    async with registering() as room:
        for name in ("a", "b"):
            await room.write(("shop", name))
        await until(lambda: room.registry.virtual("shop", "a") and room.registry.virtual("shop", "b"))
        await room.write(("shop", "c"))
        await until(lambda: b"sidecar_control_virtual_addresses_lacking 1.0" in room.figures.render())
        assert "get no virtual address" in caplog.text
        await room.write(("shop", "a"), None)
        await until(lambda: not room.registry.virtual("shop", "a"))
        assert room.registry.virtual("shop", "c") == ()  # callers may still hold what was a's
        room.now += 3601
        await room.write(("shop", "b"), SPEC | {"ports": [{"port": 81}]})
        await until(lambda: room.registry.virtual("shop", "c"))
