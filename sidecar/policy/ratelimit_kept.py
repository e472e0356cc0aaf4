"""What limits of requests and limits of connections have in common: a name, a mode, counts, and what stays of them when
a new Snapshot comes. Pure. Used by ``policy.ratelimit`` and ``policy.ratelimit_connections``.

A limit that a Snapshot does not change is kept, with what its buckets hold. It is found again by its policy's and its
own name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypeVar

from sidecar.policy.ratelimit_buckets import SWEEP_STEPS
from sidecar.policy.ratelimit_match import Matches, key_of, matcher
from sidecar.resources.rate_limits import Direction, LimitPolicySpec, RateLimit

MOST_DATED: Final = 1000  # keys of one limit that were refused, and are listed while they have to wait

LimitName = tuple[str, str]
"""The policy, as NAMESPACE/NAME, and the limit."""


class KeptLimit(ABC):
    """One limit. ``shadow`` and ``x_headers`` are its policy's; ``admitted`` and ``exceeded`` count what came."""

    __slots__ = ("_key", "_matches", "_namespace", "_trust_domain", "admitted", "exceeded", "name", "shadow", "spec",
                 "x_headers")  # fmt: skip

    def __init__(self, policy: LimitPolicySpec, spec: RateLimit, trust_domain: str) -> None:
        self.name: LimitName = policy.title, spec.name
        self.spec = spec
        self.shadow = False
        self.x_headers = False
        self.admitted = self.exceeded = 0
        self._namespace, self._trust_domain = policy.namespace, trust_domain
        self._key = key_of(spec.key, spec.prefix_length)
        self._matches: Matches | None = None
        if spec.match is not None:
            self._matches = matcher(spec.match, policy.namespace, trust_domain)

    def is_of(self, policy: LimitPolicySpec, spec: RateLimit, trust_domain: str) -> bool:
        """Return whether this is that limit, unchanged."""
        return (self.spec, self._namespace, self._trust_domain) == (spec, policy.namespace, trust_domain)

    @abstractmethod
    def sweep(self, now: float, steps: int) -> int:
        """Look at so many keys at most, and forget those that nothing depends on. Return how many were looked at."""


L = TypeVar("L", bound=KeptLimit)


def kept_or_made(
    kind: Callable[[LimitPolicySpec, RateLimit, str], L],
    concerns: Callable[[RateLimit], bool],
    policies: Sequence[LimitPolicySpec],
    direction: Direction,
    trust_domain: str,
    before: Iterable[L],
) -> list[L]:
    """Return the limits of these policies that ``concerns`` picks: those of ``before`` that have not changed, and new
    ones."""
    known = {limit.name: limit for limit in before}
    found: list[L] = []
    for policy in policies:
        for spec in policy.limits if policy.direction == direction else ():
            if not concerns(spec):
                continue
            limit = known.get((policy.title, spec.name))
            if limit is None or not limit.is_of(policy, spec, trust_domain):
                limit = kind(policy, spec, trust_domain)
            limit.shadow = policy.mode == "SHADOW"
            limit.x_headers = policy.x_rate_limit_headers
            found.append(limit)
    return found


def sweep_in_turn(turns: deque[L], now: float) -> None:
    """Sweep the limits, each once at most and SWEEP_STEPS in all; the next call goes on with the one that is next."""
    left = SWEEP_STEPS
    for _ in range(len(turns)):
        left -= turns[0].sweep(now, left)
        turns.rotate(-1)
        if left <= 0:
            return
