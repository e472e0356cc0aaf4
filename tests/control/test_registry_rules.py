"""Endpoints on a store in memory: whose they are, what is written, and what others see of it."""

from __future__ import annotations

import msgspec
import pytest
import trio

from certs.spiffe import workload
from control.problems import Invalid, Refused
from control.registry import endpoints
from control.registry.endpoint_table import ENDPOINT, VIRTUAL, Registry
from control.registry.registration import Heartbeat
from control.store.sqlite import open_store
from sidecar.feed import state_dir
from tests.control.plane import BILLING, ORDERS
from tests.control.registering import DOMAIN, KEY, SPEC, registering, until

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
