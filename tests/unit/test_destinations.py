"""The table of destinations: the idle ones are bounded in number, and those in use are never refused."""

from __future__ import annotations

import gc
import weakref

from sidecar.addresses import OriginalDst
from sidecar.net.pipes import Pipes
from sidecar.net.resolve import Resolver
from sidecar.policy.egress import OPEN
from sidecar.proxy.callee import Callee
from sidecar.proxy.client import Timeouts
from sidecar.proxy.destination import MAX_DESTINATIONS, ROOM, Destinations
from sidecar.proxy.forwarding import Forwarder
from sidecar.proxy.inbound import CapturedPort
from sidecar.proxy.leave import Leave
from sidecar.proxy.shared import Shared
from sidecar.telemetry.memory import MemoryGuard
from sidecar.telemetry.telemetry import Telemetry


class Place:
    """As much of a destination as the table looks at."""

    def __init__(self) -> None:
        self.at_rest = True
        self.closed = 0
        self.swept: list[float] = []

    @property
    def destination(self) -> Place:
        return self

    def sweep(self, now: float) -> None:
        self.swept.append(now)

    def close(self) -> None:
        self.closed += 1


def table() -> tuple[Destinations[int, Place], list[Place]]:  # type: ignore[type-var]
    made: list[Place] = []

    def make(_: int) -> Place:
        made.append(Place())
        return made[-1]

    return Destinations(make), made  # type: ignore[type-var]


def _shared() -> Shared:
    telemetry = Telemetry("off", "/dev/null")
    timeouts = Timeouts(5.0, 5.0, 5.0, 1, 5.0, 1 << 20)
    overload, resolver, pipes = MemoryGuard(0), Resolver(), Pipes()
    return Shared(timeouts, 5.0, 5.0, 8, 8, (), False, telemetry, overload, resolver, pipes)


def test_each_is_made_once() -> None:
    places, made = table()
    assert places.get(1) is None
    assert places.find(1) is places.find(1) is places.get(1) is made[0]
    assert len(made) == 1


def test_the_oldest_that_nobody_uses_make_room_and_close_their_connections() -> None:
    places, made = table()
    for number in range(MAX_DESTINATIONS):
        places.find(number)
    made[0].at_rest = False
    assert not any(place.closed for place in made)
    places.find(-1)
    assert places.get(0) is made[0] and not made[0].closed
    assert [place.closed for place in made[1 : ROOM + 2]] == [1] * ROOM + [0]
    assert places.get(1) is None and places.get(ROOM + 1) is not None
    assert len(places.values()) == MAX_DESTINATIONS - ROOM + 1


def test_those_in_use_are_never_refused_and_make_room_once_they_are_not() -> None:
    places, made = table()
    for number in range(3 * MAX_DESTINATIONS):
        places.find(number).at_rest = False
    assert len(places.values()) == 3 * MAX_DESTINATIONS
    for place in made:
        place.at_rest = True
    for number in range(3 * MAX_DESTINATIONS, 4 * MAX_DESTINATIONS):
        places.find(number)
    assert len(places.values()) <= MAX_DESTINATIONS
    assert sum(place.closed for place in made) == len(made) - len(places.values())


def test_looking_for_room_in_vain_is_not_done_at_each() -> None:
    places, made = table()
    asked = 0

    class Busy(Place):
        @property
        def destination(self) -> Place:
            nonlocal asked
            asked += 1
            return self

    for number in range(MAX_DESTINATIONS + 8 * ROOM):
        places.find(number).__class__ = Busy
        made[number].at_rest = False
    assert asked <= 9 * (MAX_DESTINATIONS + 8 * ROOM)


def test_whoever_makes_room_is_gone_at_once() -> None:
    """The collector comes by too seldom for thousands of them."""
    shared = _shared()
    address = OriginalDst("10.0.0.5", 80)
    gc.collect()
    gc.disable()
    try:
        port = weakref.ref(CapturedPort(address, "auto", shared, lambda _: None))
        callee = weakref.ref(Callee(address, Forwarder(shared, appends_caller=False), shared, Leave(OPEN, None)))
        assert port() is None and callee() is None
    finally:
        gc.enable()


def test_all_of_them_are_swept_and_closed() -> None:
    places, made = table()
    for number in range(3):
        places.find(number)
    places.sweep(12.5)
    places.close()
    assert [(place.swept, place.closed) for place in made] == [([12.5], 1)] * 3
    assert [key for key, _ in places.items()] == [0, 1, 2]
