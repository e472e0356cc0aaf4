"""RateLimitPolicy for requests: whether a request is within all limits that match it, and what is charged. Pure.

Called by ``proxy.limit_enforcement``. ``Limits`` are those of one direction, compiled from the Snapshot's policies. A
request is charged to all limits that match it or to none: one that any limit refuses takes no token of the others.
Limits of mode SHADOW are counted as if they were in force, and refuse nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import msgspec

from sidecar.durations import positive_duration
from sidecar.policy.ratelimit_buckets import ALL, Buckets, Key, Shares, SlidingWindows, TokenBuckets
from sidecar.policy.ratelimit_kept import MOST_DATED, KeptLimit, LimitName, kept_or_made, sweep_in_turn
from sidecar.policy.ratelimit_match import Sources, shown_key
from sidecar.policy.rbac_request import View
from sidecar.resources.rate_limit_rules import rate_of
from sidecar.resources.rate_limits import Direction, LimitPolicySpec, RateLimit, RequestRate

_TOTAL, _SHARES = -1, -2  # in place of a table's number: the last of them, and the shares of it


class Look(msgspec.Struct, gc=False):
    """A request at one limit. ``wait`` is 0.0 if it is within the limit, otherwise the seconds until it would be."""

    wait: float
    buckets: Buckets | None
    key: Key  # its slot in ``buckets``
    share: Key = ALL  # its slot in the shares
    within_share: bool = False


class Usage(msgspec.Struct, frozen=True, gc=False):
    """What is left of a bucket of ``size``, which is full again in ``full_in`` seconds; ``wait`` is the time that the
    request had to wait."""

    left: float
    size: int
    full_in: float
    wait: float = 0.0


class Limited(msgspec.Struct, frozen=True, gc=False):
    """A key, for people, that has to ``wait`` for so many seconds, and has had to since ``ago`` seconds."""

    key: str
    usage: Usage
    wait: float
    ago: float


class Limit(KeptLimit):
    """One limit of requests, with its buckets."""

    __slots__ = ("_overrides", "_rate", "_shares", "_since", "_sources", "_tables", "_total")

    def __init__(self, policy: LimitPolicySpec, spec: RateLimit, trust_domain: str) -> None:
        super().__init__(policy, spec, trust_domain)
        self._since: dict[tuple[int, Key], float] = {}  # what was refused and has to wait: by table and key
        self._rate = None if spec.rate is None else _buckets(spec, spec.rate, spec.max_keys)
        self._overrides = [_buckets(spec, rate_of(spec, each), spec.max_keys) for each in spec.overrides]
        texts = [each.source for each in spec.overrides]
        self._sources = Sources(texts, policy.namespace, trust_domain) if texts else None
        self._total = None if spec.total is None else _buckets(spec, spec.total, 1)
        self._tables = (self._rate, *self._overrides, self._total)
        self._shares: Shares | None = None
        if spec.total is not None and spec.fair_share:
            total = spec.total
            self._shares = Shares(
                total.requests, positive_duration(total.per), total.burst or total.requests, spec.max_keys
            )

    def look(self, view: View, now: float) -> Look | None:
        """Return the request's place at this limit; None if the limit is not about it. Charges nothing."""
        if self._matches is not None and not self._matches(view):
            return None
        key = self._key(view)
        buckets, wait = self._rate, 0.0
        if self._sources is not None and (index := self._sources.find(view)) >= 0:
            buckets = self._overrides[index]
        if buckets is not None:
            key = buckets.slot(key, now)
            wait = buckets.wait(key, now)
        if self._total is None:
            return Look(wait, buckets, key)
        within, share = False, ALL
        longest = self._total.wait(ALL, now)
        if self._shares is not None:
            share = self._shares.slot(self._key(view), now)
            within = self._shares.within(share, now)
            if not within and not longest:
                longest = self._wait_for_rest(now)
        return Look(max(wait, longest), buckets, key, share, within)

    def _wait_for_rest(self, now: float) -> float:
        """Return the seconds until the total's bucket holds a token that is not reserved for keys within their
        shares."""
        total, shares, spec = self._total, self._shares, self.spec.total
        assert total is not None
        assert shares is not None
        assert spec is not None
        missing = 1.0 + min(shares.reserve, total.size - 1.0) - total.left(ALL, now)
        return 0.0 if missing <= 1e-6 else missing * positive_duration(spec.per) / spec.requests

    def take(self, look: Look, now: float) -> None:
        """Charge the request, which is within the limit."""
        self.admitted += 1
        if look.buckets is not None:
            look.buckets.take(look.key, now)
        if self._total is not None:
            self._total.take(ALL, now)
            if self._shares is not None and look.within_share:
                self._shares.take(look.share, now)

    def refuse(self, look: Look, now: float) -> None:
        """Count a request that is beyond the limit."""
        self.exceeded += 1
        place: tuple[int, Key] = (_TOTAL, ALL)
        if look.buckets is not None and look.buckets.wait(look.key, now):
            place = self._tables.index(look.buckets), look.key
        elif self._shares is not None:
            place = _SHARES, look.share
        if place not in self._since and len(self._since) < MOST_DATED:
            self._since[place] = now

    def usage(self, look: Look, now: float) -> Usage:
        """Return what is left of the bucket that has least."""
        found = None if look.buckets is None else _usage(look.buckets, look.key, now, look.wait)
        if self._total is not None:
            of_total = _usage(self._total, ALL, now, look.wait)
            if found is None or of_total.left < found.left:
                return of_total
        assert found is not None
        return found

    def sweep(self, now: float, steps: int) -> int:
        """Look at so many buckets at most, and forget those that are full. Return how many were looked at."""
        looked = len(self._since)
        if looked:
            self._since = {place: since for place, since in self._since.items() if self._wait_at(place, now)}
        for buckets in (self._shares, self._rate, *self._overrides):
            if buckets is not None and looked < steps:
                looked += buckets.sweep(now, steps - looked)
        return looked

    def _wait_at(self, place: tuple[int, Key], now: float) -> float:
        number, key = place
        if number == _SHARES and self._shares is not None:
            return 0.0 if self._shares.within(key, now) else self._wait_for_rest(now)
        buckets = self._tables[number]
        return 0.0 if buckets is None else buckets.wait(key, now)

    def limited(self, now: float) -> Iterator[Limited]:
        """Yield the keys that were refused and have to wait now, MOST_DATED of them at most."""
        for place, since in self._since.items():
            if wait := self._wait_at(place, now):
                number, key = place
                buckets = self._total if number < 0 else self._tables[number]
                assert buckets is not None
                usage = _usage(buckets, ALL if number < 0 else key, now)
                yield Limited("(total)" if number == _TOTAL else shown_key(key), usage, wait, now - since)

    @property
    def kept(self) -> int:
        """The number of buckets that are kept."""
        return sum([len(each) for each in (*self._tables[:-1], self._shares) if each is not None])


def _usage(buckets: Buckets, key: Key, now: float, wait: float = 0.0) -> Usage:
    return Usage(buckets.left(key, now), buckets.size, buckets.full_in(key, now), wait)


def _buckets(spec: RateLimit, rate: RequestRate, most: int) -> Buckets:
    per = positive_duration(rate.per)
    if spec.algorithm == "sliding-window":
        return SlidingWindows(rate.requests, per, most)
    return TokenBuckets(rate.requests, per, rate.burst or rate.requests, most)


class Charged(msgspec.Struct, frozen=True, gc=False):
    """What became of a request. ``refused`` is the limit with the longest ``wait``, None if it is within all;
    ``exceeded`` are the names of limits in SHADOW that it is beyond; ``used`` tells of each limit that matched what it
    had left after this request."""

    refused: Limit | None
    wait: float
    exceeded: tuple[LimitName, ...]
    used: tuple[tuple[Limit, Usage], ...]


class Limits:
    """The limits of requests in one direction."""

    __slots__ = ("_limits", "_turns")

    def __init__(self, limits: Sequence[Limit] = ()) -> None:
        self._limits = tuple(limits)
        self._turns = deque(limits)

    def __bool__(self) -> bool:
        return bool(self._limits)

    def __iter__(self) -> Iterator[Limit]:
        return iter(self._limits)

    def charge(self, view: View, now: float, *, really: bool = True) -> Charged:
        """Charge a request to all limits that match it, or to none. Not ``really``: only look, and count nothing."""
        looks: list[tuple[Limit, Look]] = []
        refused: Limit | None = None
        longest = 0.0
        exceeded: tuple[LimitName, ...] = ()
        for limit in self._limits:
            look = limit.look(view, now)
            if look is None:
                continue
            looks.append((limit, look))
            if look.wait:
                if limit.shadow:
                    exceeded = (*exceeded, limit.name)
                elif look.wait > longest:
                    refused, longest = limit, look.wait
        if really:
            for limit, look in looks:
                if look.wait:
                    limit.refuse(look, now)
                elif refused is None:
                    limit.take(look, now)
        used = tuple([(limit, limit.usage(look, now)) for limit, look in looks])
        return Charged(refused, longest, exceeded, used)

    def sweep(self, now: float) -> None:
        """Forget buckets that are full; to be called every 50 to 100 ms."""
        sweep_in_turn(self._turns, now)


def compile_limits(
    policies: Sequence[LimitPolicySpec], direction: Direction, trust_domain: str, before: Limits
) -> Limits:
    """Return the limits of requests of these policies. Those of ``before`` that have not changed are kept, with what
    their buckets hold."""
    return Limits(kept_or_made(Limit, _of_requests, policies, direction, trust_domain, before))


def _of_requests(spec: RateLimit) -> bool:
    return spec.rate is not None or spec.total is not None
