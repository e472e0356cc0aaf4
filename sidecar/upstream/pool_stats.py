"""Totals of the pools of several endpoints, for people and metrics."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from sidecar.errors import ProxyError
from sidecar.net.connection_pool import Limits, Pool


class EndpointShown(msgspec.Struct, frozen=True):
    """The share of one endpoint."""

    address: str
    open: int
    idle: int
    waiting: int
    cooling: bool  # it could not be reached a moment ago, and is picked last


class PoolsShown(msgspec.Struct, frozen=True):
    """The totals of pools with the same limits. ``identities`` are those that may be at the other end; empty: any.
    ``endpoints`` is empty if there can be only one."""

    open: int
    idle: int
    waiting: int
    limit: int
    max_waiting: int
    wait_seconds: float
    idle_seconds: float
    failures: int
    last_failure: tuple[float, ProxyError] | None
    identities: tuple[str, ...] = ()
    endpoints: tuple[EndpointShown, ...] = ()


def shown(
    pools: Sequence[Pool], limits: Limits, identities: tuple[str, ...] = (), endpoints: tuple[EndpointShown, ...] = ()
) -> PoolsShown:
    """Return the totals of these pools; each has these limits."""
    failures = [pool.last_failure for pool in pools if pool.last_failure is not None]
    return PoolsShown(
        sum(pool.open for pool in pools),
        sum(pool.idle for pool in pools),
        sum(pool.waiting for pool in pools),
        limits.most,
        limits.max_waiting,
        limits.wait_seconds,
        limits.idle_seconds,
        sum(pool.failures for pool in pools),
        max(failures, key=lambda each: each[0], default=None),
        identities,
        endpoints,
    )
