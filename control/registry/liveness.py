"""Who is silent, and who has been silent for so long, while others were heard, that it is gone. Pure.

Who calls it: ``control.registry.reconciler``, once a second, and the table, for what it shows. Times are seconds of the
monotonic clock.

**Silence alone drops nobody.** Sidecars are heard through a network and through this process, and either may be what
failed: so an endpoint goes only if somebody who could tell was there all the time. A *witness* is another endpoint of
the same service that has been heard without a gap for longer than it takes to be missed; it has come the same way, to
the same process. Hence: nobody goes after a start until a witness has been heard for that long; nobody goes when the
network to all of them is cut, or to the last that is left; and where half of a service is cut off, that half goes,
since nothing tells it from a half that died.

Of those that were cut off together one is back before another. So while a witness was itself not heard when it should
have been, the silence of others does not count; and after a gap, two heartbeats that did not come, it has to be heard
for twice its ttl, and for REJOINED in any case, to be a witness again: by then all are back, whose tries are ten
seconds apart at most. Where two have different ttls the longer one counts for both: who is heard every 100 s has not
noticed a cut of 10 s.

**Our own absence.** A process that was stopped, or starved, has heard nobody, and what was said meanwhile is still to
be read when it wakes. ``lateness`` sees that by the ageing's own clock: a round that comes a little late judges nobody,
and one that comes later than that begins anew, as after a start.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

import msgspec

ROUND: Final = 1.0  # seconds from one judgement to the next; a third of the shortest ttl
LATE: Final = 0.5  # a round that comes so much later (s) was not alone in that: others have not been read
AWAY: Final = 2.0  # and here heartbeats of the shortest ttl may have been missed
BEATS: Final = 3  # heartbeats in a ttl
GAP: Final = 2 / BEATS  # of the ttl
WITNESSED: Final = 2.0  # times the ttl
REJOINED: Final = 20.0  # seconds after an outage, by which everybody has been heard again
FORGOTTEN: Final = 24 * 3600.0  # who is silent for so long goes without a witness in its service ...
MESH_HEARD: Final = 600.0  # ... if somebody in the mesh has been heard for so long; the longest ttl, twice


class Liveness(msgspec.Struct, frozen=True, gc=False):
    """When an endpoint was heard. ``at``: the last time; ``since``: the first time after which there was no gap, None
    where it has not been heard at all yet, but for the start; ``ttl``: how long (s) it may be silent. ``pause`` is the
    longest time between two heartbeats lately, and ``paused`` when it was over."""

    at: float
    since: float | None
    ttl: float
    detail: str = ""
    pause: float = 0.0
    paused: float = 0.0

    def stale(self, now: float) -> bool:
        """Whether it is silent for longer than it said."""
        return now - self.at > self.ttl


def unheard(now: float, ttl: float) -> Liveness:
    """An endpoint that nobody has heard here: as if it had been heard now."""
    return Liveness(now, None, ttl)


def heard(before: Liveness | None, now: float, ttl: float, detail: str = "") -> Liveness:
    """What is known once it was heard."""
    if before is None or before.since is None or now - before.at > GAP * before.ttl:
        return Liveness(now, now, ttl, detail)
    if now - before.at >= before.pause or now - before.paused > WITNESSED * before.ttl:
        return Liveness(now, before.since, ttl, detail, now - before.at, now)
    return Liveness(now, before.since, ttl, detail, before.pause, before.paused)


def anew(before: Liveness, now: float) -> Liveness:
    """What is left of it after an absence of ours."""
    return Liveness(now, None, before.ttl, before.detail)


class Lateness(Enum):
    """What a round may do."""

    ON_TIME = "judge"
    LATE = "wait"
    AWAY = "begin anew"


def lateness(planned: float, now: float) -> Lateness:
    """Whether we were there: a round that was planned for one time takes place at another."""
    if now - planned > AWAY:
        return Lateness.AWAY
    return Lateness.LATE if now - planned > LATE else Lateness.ON_TIME


def mesh_is_heard(hearings: Mapping[str, Liveness], now: float) -> bool:
    """Whether one of these answers for the whole mesh having been within hearing."""
    return any(
        each.since is not None and now - each.since > MESH_HEARD and not each.stale(now) for each in hearings.values()
    )


def gone(service: Mapping[str, Liveness], now: float, mesh_heard: bool) -> list[str]:
    """Those of a service's endpoints that are to be dropped. ``mesh_heard``: see :func:`mesh_is_heard`."""
    silent = [(name, each) for name, each in service.items() if now - each.at > each.ttl]
    if not silent:
        return []
    heard_now = [each for each in service.values() if not each.stale(now)]
    return [
        name
        for name, each in silent
        if any(_witnesses(other, each, now) for other in heard_now) or (mesh_heard and now - each.at > FORGOTTEN)
    ]


def _witnesses(other: Liveness, silent: Liveness, now: float) -> bool:
    """Whether one that is heard shows that another would have been."""
    span = max(other.ttl, silent.ttl)
    if other.since is None or now - other.since <= max(WITNESSED * span, REJOINED):
        return False
    pause = max(now - other.at, other.pause if other.paused > silent.at else 0.0)
    return now - silent.at - max(0.0, pause - other.ttl / BEATS) > span
