"""When to ask for the next certificate, and when again after a failure.

Expiry is judged on the wall clock by whoever verifies; renewal runs on the monotonic clock, from what was left when the
certificate was received, so that a clock that is set neither hastens nor misses it.
"""

from __future__ import annotations


def renew_at(received: float, remaining: float, jitter: float) -> float:
    """The monotonic instant of renewal: half of ``remaining`` (s, at ``received``), give or take a tenth of that half.

    ``jitter`` in [0, 1) spreads many proxies that began together. Nothing left means at once.
    """
    raise NotImplementedError


def retry_after(attempt: int, jitter: float) -> float:
    """Seconds until the next try after ``attempt`` failures in a row (1 is the first): full jitter, capped."""
    raise NotImplementedError


def clock_skew(date: str | None, now: float) -> float | None:
    """How far the sender's clock is ahead of ours (s), from its Date header; None where there is none that is good."""
    raise NotImplementedError
