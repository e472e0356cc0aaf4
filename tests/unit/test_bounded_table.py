"""A bounded table: what is not used makes room, and what is in use is never refused."""

from __future__ import annotations

import gc
import weakref

from sidecar.addresses import OriginalDst
from sidecar.http.timeouts import Timeouts
from sidecar.net.resolve import Resolver
from sidecar.net.splice_pipes import Pipes
from sidecar.proxy.context import ProxyContext
from sidecar.proxy.inbound import CapturedPort
from sidecar.proxy.policy_enforcement import InboundPolicies
from sidecar.telemetry.memory import MemoryGuard
from sidecar.telemetry.telemetry import Telemetry
from sidecar.upstream.bounded_table import MOST, ROOM, BoundedTable


class Place:
    """As much of a port as the table looks at."""

    def __init__(self) -> None:
        self.at_rest = True
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def table() -> tuple[BoundedTable[int, Place], list[Place]]:
    made: list[Place] = []

    def make(_: int) -> Place:
        made.append(Place())
        return made[-1]

    return BoundedTable(make), made


def _context() -> ProxyContext:
    telemetry = Telemetry("off", "/dev/null")
    timeouts = Timeouts(5.0, 5.0, 5.0, 1, 5.0, 1 << 20)
    overload, resolver, pipes = MemoryGuard(0), Resolver(), Pipes()
    return ProxyContext(timeouts, 5.0, 5.0, 8, 8, (), False, telemetry, overload, resolver, pipes)


def test_each_is_made_once() -> None:
    places, made = table()
    assert places.get(1) is None
    assert places.find(1) is places.find(1) is places.get(1) is made[0]
    assert len(made) == 1


def test_the_oldest_that_nobody_uses_make_room_and_close_their_connections() -> None:
    places, made = table()
    for number in range(MOST):
        places.find(number)
    made[0].at_rest = False
    assert not any(place.closed for place in made)
    places.find(-1)
    assert places.get(0) is made[0] and not made[0].closed
    assert [place.closed for place in made[1 : ROOM + 2]] == [1] * ROOM + [0]
    assert places.get(1) is None and places.get(ROOM + 1) is not None
    assert len(places.values()) == MOST - ROOM + 1


def test_those_in_use_are_never_refused_and_make_room_once_they_are_not() -> None:
    places, made = table()
    for number in range(3 * MOST):
        places.find(number).at_rest = False
    assert len(places.values()) == 3 * MOST
    for place in made:
        place.at_rest = True
    for number in range(3 * MOST, 4 * MOST):
        places.find(number)
    assert len(places.values()) <= MOST
    assert sum(place.closed for place in made) == len(made) - len(places.values())


def test_looking_for_room_in_vain_is_not_done_at_each() -> None:
    places, made = table()
    looked = 0

    class Busy(Place):
        at_rest = property(lambda self: self._look())

        def _look(self) -> bool:
            nonlocal looked
            looked += 1
            return False

    for number in range(MOST + 8 * ROOM):
        del places.find(number).at_rest
        made[number].__class__ = Busy
    assert 0 < looked <= 9 * (MOST + 8 * ROOM)


def test_a_port_that_makes_room_is_freed_without_the_collector() -> None:
    """The collector comes by too seldom for thousands of them."""
    context = _context()
    gc.collect()
    gc.disable()
    try:
        port = weakref.ref(
            CapturedPort(OriginalDst("10.0.0.5", 80), "auto", context, InboundPolicies(context), lambda _: None)
        )
        assert port() is None
    finally:
        gc.enable()
