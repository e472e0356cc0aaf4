"""How one root replaces another, so that nobody meets a certificate whose root it does not know yet. Pure.

Who drives it: ``control.certificate_authority``, which keeps the state, tells the time, and does what follows. Each
root is a generation, and goes one way::

    PUBLISHED  in the bundle, and nothing is issued from it: proxies take the bundle up, and confirm it
       |       when all have confirmed, or at the deadline
    ISSUING    the one that certificates come from; there is always exactly one
       |       when its successor begins to issue
    RETIRING   in the bundle, for what was issued from it
       |       when the last of that has expired
    (gone)

Each state is written down before what follows from it is done; a process that starts again in the middle goes on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from certs.issue import Issuer


class Phase(Enum):
    """See the module."""

    PUBLISHED = "published"
    ISSUING = "issuing"
    RETIRING = "retiring"


class RotationRefused(Exception):
    """Not now; the text says why, for operators."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One root, and the authority under it that issues. ``until``: when its phase ends at the latest; 0: never.

    The root's own key is not here: where the root is made by us, its key is forgotten once it has signed the authority.
    """

    id: str
    issuer: Issuer
    phase: Phase
    since: float
    until: float = 0.0


Generations = tuple[Generation, ...]


def check(generations: Generations) -> None:
    """Raises ValueError unless exactly one issues, and at most one waits."""
    phases = [one.phase for one in generations]
    if phases.count(Phase.ISSUING) != 1 or phases.count(Phase.PUBLISHED) > 1:
        raise ValueError("not a state that there can be")


def issuing(generations: Generations) -> Generation:
    """The one that certificates come from."""
    return next(one for one in generations if one.phase is Phase.ISSUING)


def coming(generations: Generations) -> Generation | None:
    """The one that waits to be confirmed, if a rotation has begun."""
    return next((one for one in generations if one.phase is Phase.PUBLISHED), None)


def begin(generations: Generations, fresh: Generation, now: float, deadline: float) -> Generations:
    """A new root is published, for at most ``deadline`` seconds. RotationRefused while another waits."""
    if coming(generations) is not None:
        raise RotationRefused("a rotation is under way already; wait until its root issues")
    return (*generations, replace(fresh, phase=Phase.PUBLISHED, since=now, until=now + deadline))


def step(generations: Generations, now: float, confirmed: bool, last_expiry: float) -> Generations:
    """What the time and the proxies' confirmation make of it; the same value where nothing changes.

    ``last_expiry``: when the last certificate of the root that issues now will have expired.
    """
    after = tuple(one for one in generations if not (one.phase is Phase.RETIRING and one.until <= now))
    fresh = coming(after)
    if fresh is not None and (confirmed or fresh.until <= now):
        old = issuing(after)
        changed = {
            fresh.id: replace(fresh, phase=Phase.ISSUING, since=now, until=0.0),
            old.id: replace(old, phase=Phase.RETIRING, since=now, until=max(now, last_expiry)),
        }
        after = tuple(changed.get(one.id, one) for one in after)
    return generations if len(after) == len(generations) and all(map(_same, after, generations)) else after


def next_step(generations: Generations) -> float | None:
    """When ``step`` will change something by itself."""
    return min((one.until for one in generations if one.until), default=None)


def _same(one: Generation, other: Generation) -> bool:
    return one is other
