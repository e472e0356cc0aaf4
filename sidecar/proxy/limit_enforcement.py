"""RateLimitPolicy in force: charge requests and connections by the Snapshot's limits, and report what was refused.

Called by ``pipeline`` for each request that was authorized, by ``net.graceful_drain`` for each connection that is
accepted, and by ``inbound`` once a connection has shown who is at the other end. ``policy.ratelimit`` and
``policy.ratelimit_connections`` decide; this module has the Snapshot, the texts and the fields of refusals.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import islice
from time import monotonic, time
from typing import Final

from sidecar.addresses import ClientAddr
from sidecar.errors import ProxyError, Reason
from sidecar.net.connection import Connection
from sidecar.policy.authorize import Asked
from sidecar.policy.ratelimit import Charged, Limit, Limited, Limits, compile_limits
from sidecar.policy.ratelimit_connections import (
    NOT_LIMITED,
    Admission,
    ConnectionLimits,
    compile_connection_limits,
)
from sidecar.policy.ratelimit_kept import LimitName
from sidecar.policy.rbac_request import Memo, Peer, View, read_peer
from sidecar.resources.rate_limits import Direction
from sidecar.resources.snapshot import NOTHING, Snapshot
from sidecar.telemetry.record import ConnectionInfo, Record
from sidecar.telemetry.telemetry import Telemetry

MOST_NOTED: Final = 100  # refused connections that are recorded in a second
PACED: Final = Admission(paced=True)  # no limit holds yet, and one may, once it is known who calls
MOST_PEERS: Final = 1024  # identities whose parts are remembered
MOST_SERIES: Final = 400  # of the metric; limits beyond that are counted together
OTHER_LIMITS: Final = ("other", "other")
MOST_SHOWN: Final = 1000  # keys of one limit that are listed
_DIRECTIONS: Final[dict[str, Direction]] = {"inbound": "INBOUND", "outbound": "OUTBOUND"}

Release = Callable[[], None]


class _Direction:
    """The limits of one direction, by the Snapshot that was read last."""

    def __init__(self) -> None:
        self.requests = Limits()
        self.connections = ConnectionLimits()


class LimitsInForce:
    """The limits of one proxy; ``current`` returns the current Snapshot."""

    def __init__(self, telemetry: Telemetry, current: Callable[[], Snapshot]) -> None:
        self._telemetry = telemetry
        self._current = current
        self._seen: Snapshot = NOTHING
        self._by_direction = {name: _Direction() for name in _DIRECTIONS}
        self._memo = Memo()
        self._peers: dict[str, Peer] = {}
        self._noted_since = 0.0
        self._noted = 0
        self._of_requests = False

    def _follow(self, snapshot: Snapshot) -> None:
        if snapshot is self._seen:
            return
        known = self._seen
        self._seen = snapshot
        if (snapshot.limits, snapshot.trust_domain) == (known.limits, known.trust_domain):
            return
        for name, direction in _DIRECTIONS.items():
            found = self._by_direction[name]
            found.requests = compile_limits(snapshot.limits, direction, snapshot.trust_domain, found.requests)
            found.connections = compile_connection_limits(
                snapshot.limits, direction, snapshot.trust_domain, found.connections
            )
        self._of_requests = any(found.requests for found in self._by_direction.values())

    def _view(self, asked: Asked) -> View:
        peer = self._peers.get(asked.peer)
        if peer is None:
            if len(self._peers) >= MOST_PEERS:
                self._peers.clear()
            peer = self._peers[asked.peer] = read_peer(asked.peer)
        return View(asked, peer, self._memo)

    # -- requests ----------------------------------------------------------------------------------------------------

    @property
    def of_requests(self) -> bool:
        """Whether there are limits of requests. Ask before ``charge``: it follows the Snapshot in force."""
        current = self._current()
        if current is not self._seen:
            self._follow(current)
        return self._of_requests

    def charge(self, asked: Asked, record: Record) -> None:
        """Charge a request that was authorized, by the limits in force now: a request that began under an older
        Snapshot must not bring its limits back. Raises ProxyError(RATE_LIMITED)."""
        limits = self._by_direction[asked.direction].requests
        if not limits:
            return
        charged = limits.charge(self._view(asked), monotonic())
        record.limits = tuple([(*limit.name, used.left, used.size) for limit, used in charged.used])
        if charged.exceeded:
            names = ", ".join(["/".join(name) for name in charged.exceeded])
            record.note = f"{record.note}; beyond {names} (SHADOW)" if record.note else f"beyond {names} (SHADOW)"
        if charged.refused is not None:
            raise _refusal(charged, charged.refused)

    def explain(self, asked: Asked) -> list[dict[str, object]]:
        """Return what each limit that matches has left for ``asked``, as JSON values. Charges and counts nothing."""
        self._follow(self._current())
        limits = self._by_direction[asked.direction].requests
        charged = limits.charge(self._view(asked), monotonic(), really=False)
        return [
            {"policy": limit.name[0], "limit": limit.name[1], "left": round(used.left, 3), "of": used.size,
             "within": not used.wait, "shadow": limit.shadow}
            for limit, used in charged.used
        ]  # fmt: skip

    # -- connections -------------------------------------------------------------------------------------------------

    def gate(self, direction: str) -> Gate:
        """Return what judges the connections of a direction when they are accepted."""
        return Gate(self, direction)

    def admit_accepted(self, direction: str, client: ClientAddr) -> Admission | None:
        """Count a connection that was accepted, by the limits without an identity in their key. Return None for one
        that is refused, and recorded."""
        self._follow(self._current())
        limits = self._by_direction[direction].connections
        if not limits.concerns(early=True):
            return PACED if limits.paced else NOT_LIMITED
        now = monotonic()
        admission = limits.admit(client.host, now, early=True) or limits.admit(
            self._view(Asked(direction, "", client.host, "", "TCP", remote=client.host)), now, early=True
        )
        assert admission is not None
        if admission.refused is None:
            return admission
        self._note_refused(direction, client, admission, now)
        return None

    def admit(self, connection: Connection, direction: str, host: str, principal: str) -> Release:
        """Count a connection from ``host`` that has shown ``principal``, by the limits with an identity in their key,
        and return what counts its end. Raises ProxyError(RATE_LIMITED), and records nothing."""
        limits = self._by_direction[direction].connections
        if not limits.concerns(early=False):
            return NOT_LIMITED.release
        asked = Asked(direction, principal, host, "", "TCP", remote=host)
        admission = limits.admit(self._view(asked), monotonic(), early=False)
        assert admission is not None
        if admission.refused is not None:
            raise _too_many(admission)
        admission.attach(connection)
        return admission.release

    def _note_refused(self, direction: str, client: ClientAddr, admission: Admission, now: float) -> None:
        """Record a connection that was refused before anything was read of it. In a flood, MOST_NOTED in a second are
        recorded, the last of them with a word on those that follow; the limit counts all."""
        if now - self._noted_since >= 1.0:
            self._noted_since, self._noted = now, 0
        self._noted += 1
        if self._noted > MOST_NOTED:
            return
        record = Record(direction, "TCP", str(client), time(), now)
        record.origin = ConnectionInfo(record.start, "not looked at", 0.0, client=client.host)
        record.blame(_too_many(admission))
        if self._noted == MOST_NOTED:
            record.note = "more refusals in this second are counted, and have no record"
        self._telemetry.begin_opaque(record)
        self._telemetry.finish(record)

    # -- for people --------------------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Follow the Snapshot, and forget buckets that are full; to be called every 50 to 100 ms."""
        self._follow(self._current())
        now = monotonic()
        for found in self._by_direction.values():
            found.requests.sweep(now)
            found.connections.sweep(now)

    def shown(self) -> list[dict[str, object]]:
        """Return each limit, with the keys that it refuses now, as JSON values."""
        now = monotonic()
        rows: list[dict[str, object]] = []
        for direction, found in self._by_direction.items():
            for limit in found.requests:
                keys = [_of_key(each) for each in islice(limit.limited(now), MOST_SHOWN)]
                rows.append(_row(direction, limit.name, limit.shadow, limit.admitted, limit.exceeded, keys))
                rows[-1]["buckets"] = limit.kept
            for each in found.connections.limits:
                if each.spec.connections is not None:
                    limited = islice(each.limited(now), MOST_SHOWN)
                    refused: list[dict[str, object]] = [
                        {"key": key, "why": why, "since": time() - ago} for key, why, ago in limited
                    ]
                    rows.append(_row(direction, each.name, each.shadow, each.admitted, each.exceeded, refused))
                    rows[-1]["of"] = "connections"
        return rows

    def counts(self) -> list[tuple[tuple[str, ...], float]]:
        """Return how many requests and connections each limit admitted and found beyond it: labels and numbers."""
        found: dict[tuple[str, ...], float] = {}
        for each in self._by_direction.values():
            for limit in (*each.requests, *each.connections.limits):
                of = "requests" if isinstance(limit, Limit) else "connections"
                beyond = "shadowed" if limit.shadow else "refused"
                name = limit.name if len(found) < MOST_SERIES else OTHER_LIMITS
                for decision, count in (("admitted", limit.admitted), (beyond, limit.exceeded)):
                    labels = (*name, of, decision)
                    found[labels] = found.get(labels, 0.0) + count
        return list(found.items())


class Gate:
    """The judge of connections of one direction when they are accepted: a ``graceful_drain.Gate``."""

    __slots__ = ("_direction", "_limits")

    def __init__(self, limits: LimitsInForce, direction: str) -> None:
        self._limits = limits
        self._direction = direction

    def admit(self, client: ClientAddr) -> Admission | None:
        """See ``graceful_drain.Gate``."""
        return self._limits.admit_accepted(self._direction, client)


def _refusal(charged: Charged, limit: Limit) -> ProxyError:
    used = next(used for each, used in charged.used if each is limit)
    policy, name = limit.name
    error = ProxyError(Reason.RATE_LIMITED, f"beyond limit {name} of RateLimitPolicy {policy}")
    error.rule = f"{policy}/{name}"
    after = max(1, math.ceil(charged.wait))
    reset = max(after, math.ceil(used.full_in))
    quota = ((b"limit", used.size), (b"remaining", 0), (b"reset", reset))
    error.fields = [(b"retry-after", b"%d" % after), *((b"ratelimit-" + word, b"%d" % count) for word, count in quota)]
    if limit.x_headers:
        error.fields += [(b"x-ratelimit-" + word, b"%d" % count) for word, count in quota]
    return error


def _too_many(admission: Admission) -> ProxyError:
    assert admission.refused is not None
    (policy, name), why = admission.refused
    error = ProxyError(Reason.RATE_LIMITED, f"beyond limit {name} of RateLimitPolicy {policy}: {why}")
    error.rule = f"{policy}/{name}"
    return error


def _row(
    direction: str, name: LimitName, shadow: bool, admitted: int, exceeded: int, keys: list[dict[str, object]]
) -> dict[str, object]:
    return {
        "policy": name[0],
        "limit": name[1],
        "direction": direction,
        "mode": "SHADOW" if shadow else "ENFORCE",
        "of": "requests",
        "admitted": admitted,
        "beyond": exceeded,
        "limited": keys,
    }


def _of_key(limited: Limited) -> dict[str, object]:
    return {
        "key": limited.key,
        "left": round(limited.usage.left, 3),
        "size": limited.usage.size,
        "wait_seconds": round(limited.wait, 3),
        "since": time() - limited.ago,
    }
