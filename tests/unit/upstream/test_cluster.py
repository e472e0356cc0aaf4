"""A cluster: which of its endpoints is next, what an endpoint that is gone or can't be reached means, and permits."""

from __future__ import annotations

import contextlib
import gc
import socket
import weakref
from collections import Counter

import pytest
import trio

from sidecar.errors import ProxyError, Reason
from sidecar.net.connection import Connection
from sidecar.net.connection_pool import Lease, Limits
from sidecar.policy.authorize import Asked, Permit, allow_all, authorize_inbound, authorize_outbound
from sidecar.policy.balance import Balancing
from sidecar.policy.retry_budget import ConcurrencyBudget, RatioBudget
from sidecar.telemetry.metrics import Counters
from sidecar.upstream.bounded_table import MOST, ROOM
from sidecar.upstream.cluster import ATTEMPT_SECONDS, MOST_TRIED, Cluster, Terms
from sidecar.upstream.endpoint import Endpoint

LIMITS = Limits(8, 8, 1.0, 60.0)
NEXT = frozenset({Reason.CONNECT_FAILED})


class Bed:
    """A cluster whose endpoints are names, and how each was dialed. Those in ``down`` can't be reached."""

    def __init__(self, *places: str, limits: Limits = LIMITS) -> None:
        self.dialed: list[tuple[str, float]] = []
        self.down: set[str] = set()
        self.ends: list[socket.socket] = []
        self.connections: set[Connection] = set()
        terms = Terms("outbound|80||web", "web:80", limits, 3.0, NEXT)
        self.cluster: Cluster[str] = Cluster(terms, self._dial, Counters(), places=places)
        self.permit = permit(self.cluster.name)

    async def _dial(self, place: str, seconds: float) -> Connection:
        self.dialed.append((place, seconds))
        if place in self.down:
            raise ProxyError(Reason.CONNECT_FAILED, f"{place} is down")
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self.ends.append(theirs)
        return Connection(ours, place, self.connections)

    async def ask(self) -> str:
        """One request after the other: the endpoint that had it."""
        lease = await self.cluster.lease(self.permit)
        place = lease.connection.peer
        lease.release(reusable=True)
        return place

    def __enter__(self) -> Bed:
        return self

    def __exit__(self, *_: object) -> None:
        self.cluster.close()
        for connection in list(self.connections):
            connection.close()
        for end in self.ends:
            end.close()


def permit(cluster: str, at: object = None) -> Permit:
    asked = Asked("outbound", "", "127.0.0.1", cluster, "HTTP")
    return authorize_outbound(allow_all, asked, at, destination_is_own=False)


async def test_requests_one_after_the_other_spread_over_all_endpoints() -> None:
    with Bed("a", "b", "c", "d") as bed:
        taken = Counter([await bed.ask() for _ in range(4000)])
        assert all(abs(count - 1000) < 160 for count in taken.values())
        assert len(bed.dialed) == 4  # and each keeps its connection


async def test_the_busy_endpoint_is_passed_over() -> None:
    with Bed("a", "b") as bed:
        held: list[Lease] = []
        while not any(lease.connection.peer == "a" for lease in held):
            held.append(await bed.cluster.lease(bed.permit))
        for lease in held:
            if lease.connection.peer != "a":
                lease.release(reusable=True)
        assert {await bed.ask() for _ in range(50)} == {"b"}
        for lease in held:
            if lease.connection.peer == "a":
                lease.release(reusable=True)


async def test_an_endpoint_that_is_down_costs_one_attempt_and_is_asked_last() -> None:
    with Bed("a", "b", "c") as bed:
        bed.down = {"a"}
        assert "a" not in {await bed.ask() for _ in range(100)}
        assert bed.dialed.count(("a", ATTEMPT_SECONDS)) == 1
        bed.down = {"b", "c"}
        bed.cluster.renew()
        assert await bed.ask() == "a"  # when no other is left


async def test_when_all_are_down_each_is_tried_once() -> None:
    with Bed("a", "b") as bed:
        bed.down = {"a", "b"}
        with pytest.raises(ProxyError) as failed:
            await bed.ask()
        assert failed.value.reason is Reason.CONNECT_FAILED
        assert sorted(place for place, _ in bed.dialed) == ["a", "b"]
        assert bed.dialed[-1][1] == 3.0  # the last has all the time that there is


async def test_of_many_that_are_down_some_are_tried_and_the_last_has_the_rest_of_the_time() -> None:
    places = [str(number) for number in range(50)]
    with Bed(*places) as bed:
        bed.down = set(places)
        for _ in range(2):
            bed.dialed.clear()
            with pytest.raises(ProxyError) as failed:
                await bed.ask()
            assert failed.value.reason is Reason.CONNECT_FAILED
            assert len({place for place, _ in bed.dialed}) == len(bed.dialed) == MOST_TRIED
            assert bed.dialed[-1][1] == 3.0


async def test_those_that_cool_down_are_passed_over_however_they_are_drawn() -> None:
    places = [str(number) for number in range(MOST_TRIED + 4)]
    with Bed(*places) as bed:
        bed.down = set(places[1:])
        for _ in range(50):  # each down is found out once
            with contextlib.suppress(ProxyError):
                await bed.ask()
        bed.dialed.clear()
        assert {await bed.ask() for _ in range(200)} == {"0"}
        assert not [place for place, _ in bed.dialed if place != "0"]


async def test_what_is_not_a_matter_of_the_endpoint_is_not_tried_again() -> None:
    with Bed("a", "b", limits=Limits(0, 0, 1.0, 1.0)) as bed:
        with pytest.raises(ProxyError) as failed:
            await bed.ask()
        assert failed.value.reason is Reason.POOL_FULL and not bed.dialed


async def test_without_endpoints_there_is_no_attempt() -> None:
    with Bed() as bed:
        with pytest.raises(ProxyError) as failed:
            await bed.ask()
        assert failed.value.reason is Reason.NO_ENDPOINT


async def test_an_endpoint_that_is_gone_ends_what_it_carries_and_is_not_asked_again() -> None:
    with Bed("a", "b") as bed:
        held = [await bed.cluster.lease(bed.permit) for _ in range(6)]
        bed.cluster.take(("b",))
        assert {await bed.ask() for _ in range(20)} == {"b"}
        assert bed.cluster.shown().open >= 6
        on_a = [lease for lease in held if lease.connection.peer == "a"]
        assert on_a and not any(lease.connection.closed for lease in on_a)
        for lease in held:
            lease.release(reusable=True)
        assert all(lease.connection.closed for lease in on_a)
        bed.cluster.sweep(0.0)
        assert [each.name for each in bed.cluster.endpoints] == ["b"]
        bed.cluster.take(("a", "b"))
        assert "a" in {await bed.ask() for _ in range(50)}


async def test_a_request_that_waits_for_an_endpoint_that_goes_has_the_next_one() -> None:
    with Bed("a", limits=Limits(1, 8, 60.0, 60.0)) as bed, trio.fail_after(5):
        held = await bed.cluster.lease(bed.permit)
        got: list[str] = []

        async def wait() -> None:
            got.append(await bed.ask())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await trio.testing.wait_all_tasks_blocked()
            bed.cluster.take(("b", "c"))
        assert got and got[0] in ("b", "c")
        held.release(reusable=True)


async def test_a_permit_is_good_for_its_own_cluster_and_place_alone() -> None:
    with Bed("a") as bed:
        for wrong in (
            permit("outbound|80||other"),
            permit(bed.cluster.name, "b"),
            authorize_inbound(allow_all, Asked("inbound", "", "", "inbound|80||", "HTTP")),
            "a permit",
        ):
            with pytest.raises(TypeError, match="a Permit for this very destination"):
                await bed.cluster.lease(wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            await bed.cluster.lease(bed.permit, "b")
        assert not bed.dialed
        lease = await bed.cluster.lease(permit(bed.cluster.name, "b"), "b")
        assert lease.connection.peer == "b"
        lease.release(reusable=False)


async def test_of_places_that_requests_name_the_unused_make_room() -> None:
    with Bed() as bed:
        busy = bed.cluster.at("busy")
        busy.users += 1
        for number in range(MOST + 5):
            bed.cluster.at(str(number))
        there = {each.name for each in bed.cluster.endpoints}
        assert len(there) <= MOST + 1 and "busy" in there and "0" not in there
        assert str(MOST + 4) in there and str(ROOM + 10) in there


async def test_an_endpoint_that_made_room_is_freed_without_the_collector() -> None:
    with Bed() as bed:
        gc.collect()
        gc.disable()
        try:
            gone = weakref.ref(bed.cluster.at("first").pool)
            for number in range(MOST + 1):
                bed.cluster.at(str(number))
            assert gone() is None
        finally:
            gc.enable()


async def test_a_cluster_that_is_closed_dials_nothing_more() -> None:
    """What holds on to it was judged by an older Snapshot, which may have had others to serve it."""
    with Bed("a", "b") as bed:
        bed.cluster.close()
        for _ in range(3):
            with pytest.raises(ProxyError) as refused:
                await bed.ask()
            assert refused.value.reason is Reason.NO_ENDPOINT
        with pytest.raises(ProxyError):
            await bed.cluster.lease(permit(bed.cluster.name, "c"), "c")
        assert not bed.dialed


async def test_an_attempt_that_fails_amid_the_end_of_its_cluster_makes_no_other_endpoint() -> None:
    """An endpoint that was made then would be swept by nothing."""
    with Bed("a", "b") as bed, trio.fail_after(5):
        going = trio.Event()

        async def fail_late(place: str, seconds: float) -> Connection:
            bed.dialed.append((place, seconds))
            await going.wait()
            raise ProxyError(Reason.CONNECT_FAILED, f"{place} is down")

        bed.cluster._connect = fail_late

        async def ask() -> None:
            with pytest.raises(ProxyError):
                await bed.ask()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await trio.testing.wait_all_tasks_blocked()
            bed.cluster.close()
            going.set()
        assert len(bed.dialed) == 1


# -- requests: one endpoint for each attempt -------------------------------------------------------------------------


async def test_a_request_dials_the_endpoint_that_was_picked_and_no_other() -> None:
    with Bed("a", "b") as bed:
        bed.down = {"a", "b"}
        picked = bed.cluster.pick(bed.permit)
        with pytest.raises(ProxyError) as failed:
            await bed.cluster.reach(picked, fresh=False, seconds=2.5, hasty=False)
        assert failed.value.reason is Reason.CONNECT_FAILED
        assert bed.dialed == [(picked.name, 2.5)]


async def test_while_others_are_left_an_attempt_is_short() -> None:
    with Bed("a", "b") as bed:
        for hasty, given, seconds in ((True, 2.5, ATTEMPT_SECONDS), (True, 0.5, 0.5), (False, 2.5, 2.5)):
            lease = await bed.cluster.reach(bed.cluster.pick(bed.permit), fresh=True, seconds=given, hasty=hasty)
            lease.release(reusable=False)
            assert bed.dialed[-1][1] == seconds
        assert bed.cluster.has_others(1) and not bed.cluster.has_others(2)


async def test_the_next_attempt_is_for_another_endpoint_while_there_is_one() -> None:
    with Bed("a", "b", "c") as bed:
        for _ in range(50):
            tried = [bed.cluster.pick(bed.permit)]
            while len(tried) < 3:
                tried.append(bed.cluster.pick(bed.permit, tried))
            assert {each.name for each in tried} == {"a", "b", "c"}
            assert bed.cluster.pick(bed.permit, tried).name in {"a", "b", "c"}


async def test_an_endpoint_that_was_not_reached_is_picked_behind_the_others_but_before_those_tried() -> None:
    with Bed("a", "b", "c") as bed:
        bed.down = {"a"}
        by_name: dict[str, Endpoint] = {}
        while len(by_name) < 3:
            endpoint = bed.cluster.pick(bed.permit)
            by_name[endpoint.name] = endpoint
        with pytest.raises(ProxyError):
            await bed.cluster.reach(by_name["a"], fresh=False, seconds=1.0, hasty=True)
        assert {bed.cluster.pick(bed.permit).name for _ in range(100)} == {"b", "c"}
        assert bed.cluster.pick(bed.permit, [by_name["b"], by_name["c"]]) is by_name["a"]


async def test_a_cluster_with_one_endpoint_picks_it_again() -> None:
    with Bed("a") as bed:
        only = bed.cluster.pick(bed.permit)
        assert bed.cluster.pick(bed.permit, [only]) is only
    with Bed() as bed, pytest.raises(ProxyError) as refused:
        bed.cluster.pick(bed.permit, [only])
    assert refused.value.reason is Reason.NO_ENDPOINT


# -- ways of balancing, and weights ----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["LEAST_REQUEST", "RANDOM", "ROUND_ROBIN"])
async def test_each_endpoint_has_its_share_by_weight(way: Balancing) -> None:
    with Bed("a", "b", "c") as bed:
        bed.cluster.set_balancing(way)
        assert all(abs(count - 1000) < 160 for count in Counter([await bed.ask() for _ in range(3000)]).values())
        bed.cluster.take(("a", "b", "c"), (1, 2, 7))
        taken = Counter([await bed.ask() for _ in range(3000)])
        assert all(abs(taken[place] - share) < 160 for place, share in (("a", 300), ("b", 600), ("c", 2100)))
        bed.cluster.take(("c", "d"), (3, 1))
        taken = Counter([await bed.ask() for _ in range(2000)])
        assert set(taken) == {"c", "d"} and abs(taken["c"] - 1500) < 160


@pytest.mark.parametrize("way", ["RANDOM", "ROUND_ROBIN"])
async def test_the_busy_endpoint_has_its_turn_as_well(way: Balancing) -> None:
    with Bed("a", "b") as bed:
        bed.cluster.set_balancing(way)
        held = [await bed.cluster.lease(bed.permit) for _ in range(4)]
        assert {await bed.ask() for _ in range(50)} == {"a", "b"}
        for lease in held:
            lease.release(reusable=True)


@pytest.mark.parametrize("way", ["LEAST_REQUEST", "RANDOM", "ROUND_ROBIN"])
async def test_an_endpoint_that_is_down_is_passed_over_in_every_way(way: Balancing) -> None:
    with Bed("a", "b", "c") as bed:
        bed.cluster.set_balancing(way)
        bed.cluster.take(("a", "b", "c"), (10, 1, 1))
        bed.down = {"a"}
        assert {await bed.ask() for _ in range(200)} == {"b", "c"}
        assert bed.dialed.count(("a", ATTEMPT_SECONDS)) == 1


async def test_an_equal_budget_goes_on_with_what_it_has_counted() -> None:
    with Bed("a") as bed:
        assert bed.cluster.load.budget == ConcurrencyBudget()
        bed.cluster.set_budget(RatioBudget(0.0, 1, 1.0))
        assert bed.cluster.load.begin_retry(1.0) and not bed.cluster.load.begin_retry(1.0)
        bed.cluster.set_budget(RatioBudget(0.0, 1, 1.0))
        assert not bed.cluster.load.begin_retry(1.0)
        bed.cluster.set_budget(None)
        assert bed.cluster.load.begin_retry(1.0)
