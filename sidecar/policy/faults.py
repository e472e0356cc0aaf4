"""Faults on purpose: how long a request waits, and whether it gets an error instead of an answer. Pure.

Called by ``proxy.routed_request`` with random numbers of the interval [0, 1).
"""

from __future__ import annotations

import msgspec

from sidecar.durations import duration
from sidecar.resources.virtual_service import Abort, Delay, HTTPFaultInjection, Percent


class Faults(msgspec.Struct, frozen=True, gc=False):
    """``wait`` seconds for a share ``delayed`` of requests, the status ``abort`` for a share ``aborted``."""

    wait: float = 0.0
    delayed: float = 0.0
    abort: int = 0
    aborted: float = 0.0

    def delay(self, drawn: float) -> float:
        """Return the seconds that this request waits; 0: it is not delayed."""
        return self.wait if drawn < self.delayed else 0.0

    def status(self, drawn: float) -> int:
        """Return the status that this request gets; 0: it goes on."""
        return self.abort if drawn < self.aborted else 0


def compile_faults(spec: HTTPFaultInjection) -> Faults:
    """Return the faults that a rule injects. As in Istio, a fault without a share is for no request."""
    delay, abort = spec.delay, spec.abort
    return Faults(
        0.0 if delay is None else duration(delay.fixed_delay),
        0.0 if delay is None else _share(delay),
        0 if abort is None else abort.http_status,
        0.0 if abort is None else _share(abort),
    )


def _share(fault: Delay | Abort) -> float:
    if fault.percentage is not None:
        return share_of(fault.percentage)
    older = fault.percent if isinstance(fault, Delay) else None
    return 0.0 if older is None else older / 100


def share_of(percent: Percent | None) -> float:
    """Return a percentage as a share of one; without any: all."""
    return 1.0 if percent is None else percent.value / 100
