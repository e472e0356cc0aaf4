"""RateLimitPolicy for connections: how many are open, how many come in a second, and how fast their bytes go. Pure.

Called by ``proxy.limit_enforcement``, twice for a connection: when it is accepted, with the limits whose keys have no
identity in them, and after its handshake with the others. As with requests, a connection is charged to all limits of a
call or to none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final, Protocol, runtime_checkable

import msgspec

from sidecar.policy.ratelimit_buckets import ALL, Key, TokenBuckets
from sidecar.policy.ratelimit_kept import MOST_DATED, KeptLimit, LimitName, kept_or_made, sweep_in_turn
from sidecar.policy.ratelimit_match import Sources, client_key, shown_key
from sidecar.policy.rbac_request import View
from sidecar.resources.rate_limits import Direction, LimitPolicySpec, RateLimit

BURST_SECONDS: Final = 0.1  # of a byte rate that was not used before
QUANTUM: Final = 4096  # bytes that are worth waking up for


class Pace:
    """The bytes in one direction of all connections of a key. ``users`` are the connections."""

    __slots__ = ("_capacity", "_rate", "_spent_at", "_tokens", "turns", "users")

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._capacity = max(rate * BURST_SECONDS, float(QUANTUM))
        self._tokens = self._capacity
        self._spent_at = 0.0
        self.users = 0
        self.turns: deque[object] = deque()  # the connections that wait for bytes, in their order

    def available(self, now: float) -> int:
        """Return how many bytes may go now."""
        self._tokens = min(self._capacity, self._tokens + (now - self._spent_at) * self._rate)
        self._spent_at = now
        return int(self._tokens)

    def spend(self, count: int) -> None:
        """Count bytes that went; they may be more than were available."""
        self._tokens -= count

    def wait(self, now: float) -> float:
        """Return the seconds until QUANTUM bytes may go."""
        return max(0.0, (QUANTUM - self.available(now)) / self._rate)


class ConnectionLimit(KeptLimit):
    """One limit of connections. ``early``: its key has no identity in it, so it can be judged before TLS."""

    __slots__ = ("_open", "_per_second", "_received", "_refused", "_sent", "early")

    def __init__(self, policy: LimitPolicySpec, spec: RateLimit, trust_domain: str) -> None:
        super().__init__(policy, spec, trust_domain)
        self._open: dict[Key, int] = {}
        rate = None if spec.connections is None else spec.connections.per_second
        self._per_second = None if rate is None else TokenBuckets(rate, 1.0, rate, spec.max_keys)
        self._refused: dict[Key, float] = {}
        self._received: dict[Key, Pace] = {}
        self._sent: dict[Key, Pace] = {}
        sources = [] if spec.match is None else spec.match.sources
        by_identity = Sources(sources, policy.namespace, trust_domain).by_identity
        identified = by_identity or bool({"source.principal", "source.namespace"} & set(spec.key))
        self.early = not identified or policy.direction == "OUTBOUND"  # an app shows its proxy no identity

    def key_of_host(self, host: str) -> Key | None:
        """Return the key of a connection from this address, as ``key_of`` does, without reading more of it; None if
        more is needed."""
        if self._matches is not None or self.spec.key not in ([], ["source.ip"]):
            return None
        return client_key(host, self.spec.prefix_length) if self.spec.key else ALL

    def key_of(self, view: View) -> Key | None:
        """Return the key under which a connection is counted; None if the limit is not about it."""
        if self._matches is not None and not self._matches(view):
            return None
        return self._key(view)

    def exceeds(self, key: Key, now: float) -> str:
        """Return why one more connection is too many; empty if it is not."""
        limit = self.spec.connections
        if limit is None:
            return ""
        if limit.max is not None and self._open.get(key, 0) >= limit.max:
            return f"{limit.max} connections are open already"
        rate = self._per_second
        if rate is not None and rate.wait(rate.slot(key, now), now):
            return f"more than {limit.per_second} connections in a second"
        return ""

    def enter(self, key: Key, now: float) -> None:
        """Count a connection that is admitted. How many keys are open is bounded by the connections that are."""
        self.admitted += 1
        if self._per_second is not None:
            self._per_second.take(self._per_second.slot(key, now), now)
        self._open[key] = self._open.get(key, 0) + 1

    def leave(self, key: Key) -> None:
        """Count its end."""
        left = self._open[key] - 1
        if left:
            self._open[key] = left
        else:
            del self._open[key]

    def paces(self, key: Key) -> Iterator[tuple[Pace | None, Pace | None]]:
        """Yield the paces of bytes received and sent, each None if it has no limit."""
        rates = self.spec.bytes_per_second
        if rates is not None and not self.shadow:
            yield _pace(self._received, key, rates.received), _pace(self._sent, key, rates.sent)

    def sweep(self, now: float, steps: int) -> int:
        """Look at so many keys at most, and forget those that nothing depends on. Return how many were looked at."""
        looked = len(self._refused) + len(self._received) + len(self._sent)
        if self._refused:
            self._refused = {key: since for key, since in self._refused.items() if self.exceeds(key, now)}
        for table in (self._received, self._sent):
            if table:
                for key in [key for key, pace in table.items() if not pace.users and not pace.wait(now)]:
                    del table[key]
        if self._per_second is not None and looked < steps:
            looked += self._per_second.sweep(now, steps - looked)
        return looked

    def refuse(self, key: Key, now: float) -> None:
        """Count a connection that is beyond the limit."""
        self.exceeded += 1
        if len(self._refused) < MOST_DATED:
            self._refused.setdefault(key, now)

    def limited(self, now: float) -> Iterator[tuple[str, str, float]]:
        """Yield the keys that were refused a connection, for people, why the next one would be, and how many seconds
        ago the first was. MOST_DATED at most."""
        for key, since in self._refused.items():
            if why := self.exceeds(key, now):
                yield shown_key(key), why, now - since


def _pace(table: dict[Key, Pace], key: Key, rate: int | None) -> Pace | None:
    if rate is None:
        return None
    found = table.get(key)
    if found is None:
        found = table[key] = Pace(rate)
    return found


@runtime_checkable
class Slowed(Protocol):
    """A connection that can be slowed down."""

    def slow_down(self, received: Sequence[Pace], sent: Sequence[Pace]) -> None: ...


class Admission(msgspec.Struct, gc=False):
    """A connection that was counted, or (``refused``) was not: the limit and why. Its paces slow its bytes down."""

    held: list[tuple[ConnectionLimit, Key]] = []
    refused: tuple[LimitName, str] | None = None
    paced: bool = False
    received: list[Pace] = []
    sent: list[Pace] = []

    def attach(self, connection: object) -> None:
        """Slow a connection down by the paces, if there are any. It is one that can be slowed down."""
        if (self.received or self.sent) and isinstance(connection, Slowed):
            connection.slow_down(self.received, self.sent)

    def release(self) -> None:
        """Count the connection's end. Safe to call twice."""
        for limit, key in self.held:
            limit.leave(key)
        for pace in (*self.received, *self.sent):
            pace.users -= 1
        self.held, self.received, self.sent = [], [], []


NOT_LIMITED: Final = Admission()


class ConnectionLimits:
    """The limits of connections in one direction."""

    __slots__ = ("_early", "_late", "_turns", "limits", "paced")

    def __init__(self, limits: Sequence[ConnectionLimit] = ()) -> None:
        self.limits = tuple(limits)
        self._turns = deque(limits)
        self._early = [limit for limit in limits if limit.early]
        self._late = [limit for limit in limits if not limit.early]
        self.paced = any(limit.spec.bytes_per_second is not None for limit in limits)

    def concerns(self, *, early: bool) -> bool:
        """Return whether there are limits to judge at this call."""
        return bool(self._early if early else self._late)

    def admit(self, view: View | str, now: float, *, early: bool) -> Admission | None:
        """Count a connection at all limits that match it, or (``refused``) at none.

        ``view`` may be only the address that it comes from; then None is returned if more is needed."""
        found: list[tuple[ConnectionLimit, Key]] = []
        for limit in self._early if early else self._late:
            if isinstance(view, str):
                key = limit.key_of_host(view)
                if key is None:
                    return None
            else:
                key = limit.key_of(view)
                if key is None:
                    continue
            if why := limit.exceeds(key, now):
                limit.refuse(key, now)
                if not limit.shadow:
                    return Admission(refused=(limit.name, why))
            else:
                found.append((limit, key))
        admission = Admission(held=found, paced=self.paced)
        for limit, key in found:
            limit.enter(key, now)
            for received, sent in limit.paces(key):
                for pace, paces in ((received, admission.received), (sent, admission.sent)):
                    if pace is not None:
                        pace.users += 1
                        paces.append(pace)
        return admission

    def sweep(self, now: float) -> None:
        """Forget what nothing depends on any more; to be called every 50 to 100 ms."""
        sweep_in_turn(self._turns, now)


def compile_connection_limits(
    policies: Sequence[LimitPolicySpec], direction: Direction, trust_domain: str, before: ConnectionLimits
) -> ConnectionLimits:
    """Return the limits of connections of these policies. Those of ``before`` that have not changed are kept, with
    their counts."""
    return ConnectionLimits(
        kept_or_made(ConnectionLimit, _of_connections, policies, direction, trust_domain, before.limits)
    )


def _of_connections(spec: RateLimit) -> bool:
    return spec.connections is not None or spec.bytes_per_second is not None
