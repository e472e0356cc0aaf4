"""The budget for retries of one cluster: how many may run beside its requests. Pure: times are arguments.

Kept by ``upstream.cluster`` as ``ClusterLoad``. ``proxy.exchange`` counts its requests there, and asks before each
retry. When an upstream fails every request, retries without a budget multiply its load just when it can bear it least.

Two forms. Envoy's holds retries in progress to a share of the requests in progress; it needs no clock. Linkerd's holds
the retries of the last seconds to a share of the requests of the same seconds.

Sources: Envoy's documentation, "Circuit breaking", ``retry_budget``; Finagle's and Linkerd's ``RetryBudget``.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from sidecar.durations import positive_duration

if TYPE_CHECKING:  # a proxy without documents does not load these
    from sidecar.resources.destination_rule import RetryBudget as ConcurrencySpec
    from sidecar.resources.destination_rule import RetryRatioBudget as RatioSpec

PERCENT: Final = 20.0
LEAST: Final = 3
RATIO: Final = 0.2
PER_SECOND: Final = 10.0
TTL_SECONDS: Final = 10.0
_SLOTS: Final = 10  # of a window; the oldest tenth of it ends at once


class RetryBudget(Protocol):
    """A form of the budget. ``dated``: ``note`` has to be called for each request. Equal budgets have equal terms."""

    dated: bool

    def note(self, now: float) -> None:
        """Note a request that begins."""
        ...

    def take(self, retries: int, requests: int, now: float) -> bool:
        """Return whether one more retry may begin, and spend it if so. ``retries`` and ``requests`` are in progress."""
        ...


class ConcurrencyBudget:
    """Envoy's form: retries in progress are at most ``percent`` of the requests in progress; ``least`` always may
    be."""

    __slots__ = ("_least", "_share")
    dated = False

    def __init__(self, percent: float = PERCENT, least: int = LEAST) -> None:
        self._share = percent / 100
        self._least = least

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConcurrencyBudget) and (self._share, self._least) == (other._share, other._least)

    def __hash__(self) -> int:
        return hash((self._share, self._least))

    def __str__(self) -> str:
        return f"{self._share * 100:g} % of the requests in progress, at least {self._least}"

    def note(self, now: float) -> None:
        """See ``RetryBudget``."""

    def take(self, retries: int, requests: int, now: float) -> bool:
        """See ``RetryBudget``."""
        return retries + 1 <= max(self._least, requests * self._share)


class RatioBudget:
    """Linkerd's form: the retries of the last ``ttl`` seconds are at most ``ratio`` of the requests of that time, and
    ``per_second`` beside that."""

    __slots__ = ("_ends", "_ratio", "_requests", "_reserve", "_retries", "_slots", "_terms", "_width")
    dated = True

    def __init__(self, ratio: float = RATIO, per_second: float = PER_SECOND, ttl: float = TTL_SECONDS) -> None:
        self._terms = ratio, per_second, ttl
        self._ratio = ratio
        self._reserve = per_second * ttl
        self._width = ttl / _SLOTS
        self._slots: deque[list[int]] = deque([[0, 0]], maxlen=_SLOTS)  # [requests, retries]; the last one is current
        self._ends = 0.0  # of the current slot; 0.0 before the first request
        self._requests = self._retries = 0  # of all slots

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RatioBudget) and self._terms == other._terms

    def __hash__(self) -> int:
        return hash(self._terms)

    def __str__(self) -> str:
        ratio, per_second, ttl = self._terms
        return f"{ratio * 100:g} % of the requests of the last {ttl:g} s, and {per_second:g} per second beside that"

    def note(self, now: float) -> None:
        """See ``RetryBudget``."""
        if now >= self._ends:
            self._turn(now)
        self._slots[-1][0] += 1
        self._requests += 1

    def take(self, retries: int, requests: int, now: float) -> bool:
        """See ``RetryBudget``."""
        if now >= self._ends:
            self._turn(now)
        if self._retries + 1 > self._reserve + self._requests * self._ratio:
            return False
        self._slots[-1][1] += 1
        self._retries += 1
        return True

    def _turn(self, now: float) -> None:
        """Begin a new slot; forget those that are older than the window."""
        passed = min(_SLOTS, 1 + int((now - self._ends) / self._width)) if self._ends else 1
        for _ in range(passed):
            if len(self._slots) == _SLOTS:
                requests, again = self._slots[0]
                self._requests -= requests
                self._retries -= again
            self._slots.append([0, 0])
        late = (now - self._ends) % self._width if self._ends else 0.0
        self._ends = now - late + self._width


class ClusterLoad:
    """What one cluster carries now: ``requests`` and, among them, ``retries`` in progress; and its ``budget``.

    A retry counts from when it is scheduled until its attempt ends. Without a budget, every retry may begin.
    """

    __slots__ = ("budget", "dated", "requests", "retries")

    def __init__(self, budget: RetryBudget | None) -> None:
        self.requests = 0
        self.retries = 0
        self.set_budget(budget)

    def set_budget(self, budget: RetryBudget | None) -> None:
        """Judge retries by this budget from now on; what is in progress stays counted."""
        self.budget = budget
        self.dated = budget is not None and budget.dated  # ``budget.note`` has to be called for each request

    def begin_retry(self, now: float) -> bool:
        """Return whether a retry may begin; if so, ``end_retry`` has to follow."""
        if self.budget is not None and not self.budget.take(self.retries, self.requests, now):
            return False
        self.retries += 1
        return True

    def end_retry(self) -> None:
        """Note the end of a retry's attempt."""
        self.retries -= 1


def compile_budget(spec: ConcurrencySpec | RatioSpec | None) -> RetryBudget:
    """Return the budget of a document; None: the default. Raises ValueError for a time that is none."""
    if spec is None:
        return ConcurrencyBudget()
    from sidecar.resources.destination_rule import RetryRatioBudget

    if isinstance(spec, RetryRatioBudget):
        return RatioBudget(spec.retry_ratio, spec.min_retries_per_second, positive_duration(spec.ttl))
    percent = PERCENT if spec.percent is None else spec.percent
    least = LEAST if spec.min_retry_concurrency is None else spec.min_retry_concurrency
    return ConcurrencyBudget(percent, least)
