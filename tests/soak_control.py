"""Outages of the control plane under a mesh that works.

    python -m tests.soak control

Services of two endpoints each call each other all the time, and their control plane is killed, is stopped, can't be
reached, is slow, resets every connection, answers nonsense; each for longer than three heartbeats. No request may fail,
and nobody be dropped for a silence that was not its own: each endpoint is registered afterwards as it was before. When
the control plane is back, every sidecar holds what was changed at that moment within WELL_SECONDS. ``half``: only every
second sidecar is cut off, which nobody can tell from its death; so it may be dropped, and has to be registered again.
``killed`` also starts a sidecar while nobody is there: it serves by what it has kept.

``tests/mesh/test_outages.py`` runs it in short, with heartbeats every second.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from tests.support.fleet import Fleet
from tests.support.upstream import wait_until
from tests.support.valve import Turned

WELL_SECONDS = 20.0
SERVICES = ("orders", "stock", "web")
Outage = Callable[[Fleet, float], None]


def _killed(fleet: Fleet, seconds: float) -> None:
    fleet.control.kill()
    fleet.goes_on(seconds)
    fleet.control.start()


def _stopped(fleet: Fleet, seconds: float) -> None:
    fleet.control.process.send_signal(signal.SIGSTOP)
    try:
        fleet.goes_on(seconds)
    finally:
        fleet.control.process.send_signal(signal.SIGCONT)


@contextmanager
def _turned(fleet: Fleet, to: Turned, count: int) -> Iterator[None]:
    """The first ``count`` valves, until the end of the block."""
    for valve in fleet.valves[:count]:
        valve.turn(to)
    try:
        yield
    finally:
        for valve in fleet.valves:
            valve.turn("open")


def _by_valve(to: Turned) -> Outage:
    """All sidecars; the control plane itself is well, and asked all the while who is there."""

    def outage(fleet: Fleet, seconds: float) -> None:
        before = fleet.endpoints()
        with _turned(fleet, to, len(fleet.valves)):
            ends = time.monotonic() + seconds
            while time.monotonic() < ends:
                fleet.goes_on(1.0)
                assert fleet.endpoints() == before, f"while it was {to}: {fleet.endpoints()} instead of {before}"
            if to != "slow":
                assert fleet.stale(), "nobody was missed: was there an outage?"

    return outage


def _half(fleet: Fleet, seconds: float) -> None:
    cut = {name for name in fleet.sidecars if name.endswith("-0")}
    with _turned(fleet, "cut", 1):
        fleet.goes_on(seconds)
        wait_until(lambda: not _registered(fleet) & cut, "those that were cut off are taken for dead", 60)
        fleet.goes_on(1.0)


OUTAGES: dict[str, Outage] = {
    "killed": _killed,
    "stopped": _stopped,
    "cut": _by_valve("cut"),
    "slow": _by_valve("slow"),
    "reset": _by_valve("reset"),
    "nonsense": _by_valve("nonsense"),
    "half": _half,
}


def outage(fleet: Fleet, name: str, seconds: float) -> float:
    """One of OUTAGES, of so many seconds; returns how many it took until all were in sync. Raises AssertionError."""
    before, held = fleet.endpoints(), fleet.held()
    OUTAGES[name](fleet, seconds)
    back = time.monotonic()
    fleet.change()
    fleet.wait_in_sync(WELL_SECONDS, held)
    well = time.monotonic() - back
    wait_until(lambda: _are_all(fleet), f"all are heard again after it was {name}", WELL_SECONDS)
    if name != "half":
        assert fleet.endpoints() == before, f"after it was {name}: {fleet.endpoints()} instead of {before}"
    fleet.goes_on(1.0)
    return well


def _are_all(fleet: Fleet) -> bool:
    return _registered(fleet) == set(fleet.sidecars) and not fleet.stale()


def _registered(fleet: Fleet) -> set[str]:
    time.sleep(0.1)  # who asks more than 50 times a second is sent away
    return {name for each in fleet.endpoints().values() for name in each}


def late(fleet: Fleet) -> None:
    """A sidecar that is started while nobody answers: it has a certificate and a Snapshot, and serves. It joined once,
    and ended in order. Raises AssertionError."""
    with fleet.sidecar("late", 0) as sidecar:
        wait_until(lambda: sidecar.admin_get("/ready")[0] == 200, "it has joined", 60)
        fleet.call(sidecar)
    fleet.control.kill()
    try:
        with fleet.sidecar("late", 0) as sidecar:
            wait_until(lambda: sidecar.admin_get("/ready")[0] == 200, "it serves by what it has kept", 60)
            assert fleet.source(sidecar) == "last good"
            fleet.call(sidecar)
            fleet.control.start()
            wait_until(lambda: fleet.source(sidecar) == "control", "it is told the newest", WELL_SECONDS)
    finally:
        if fleet.control.process.poll() is not None:
            fleet.control.start()


def control(
    seconds: float = 60.0, services: Sequence[str] = SERVICES, outages: Sequence[str] = tuple(OUTAGES), *,
    short: bool = False,
) -> str:  # fmt: skip
    """Runs them one after the other; returns what was measured. Raises AssertionError."""
    with Fleet(services, short=short) as fleet:
        told = {name: outage(fleet, name, seconds) for name in outages}
        late(fleet)
        fleet.check()
        words = ", ".join(f"{name} {well:.1f} s" for name, well in told.items())
        return (
            f"{len(fleet.sidecars)} sidecars, {fleet.done} requests between services, none failed in outages of "
            f"{seconds:g} s; all in sync when it was back after: {words}"
        )
