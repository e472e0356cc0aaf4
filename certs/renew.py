"""When to ask for the next certificate, and when again after a failure.

Expiry is judged on the wall clock by whoever verifies; renewal runs on the monotonic clock, from what was left when the
certificate was received, so that a clock that is set neither hastens nor misses it.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

SKEW_WARNED: Final = 60.0  # s between two clocks, from which on it is worth a warning

_FIRST_RETRY: Final = 1.0  # s, at most
_LAST_RETRY: Final = 10.0  # s, at most: with a dial that times out, all is well 20 s after the control plane is
_SOONEST_RETRY: Final = 0.1  # s, whatever chance says
_MOST_DOUBLINGS: Final = 4

# RFC 9110 section 5.6.7, the one form that is sent; strptime would read names by the locale.
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_DATE: Final = re.compile(
    r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), ([0-9]{2}) (" + "|".join(_MONTHS) + r") ([0-9]{4}) "
    r"([0-9]{2}):([0-9]{2}):([0-9]{2}) GMT"
)


def renew_at(received: float, remaining: float, jitter: float) -> float:
    """The monotonic instant of renewal: half of ``remaining`` (s, at ``received``), give or take a tenth of that half.

    ``jitter`` in [0, 1) spreads many proxies that began together. Nothing left means at once.
    """
    return received + max(0.0, remaining) / 2 * (0.9 + 0.2 * jitter)


def retry_after(attempt: int, jitter: float, remaining: float | None = None) -> float:
    """Seconds until the next try after ``attempt`` failures in a row (1 is the first).

    Full jitter under a doubling cap: 1, 2, 4, 8, 10 s, never less than 0.1 s. ``remaining`` is what is left of the
    certificate in use (s): the cap is a tenth of it at most while there is any, so that short ones are tried often
    enough.
    """
    cap = min(_LAST_RETRY, _FIRST_RETRY * 2.0 ** min(max(attempt - 1, 0), _MOST_DOUBLINGS))
    if remaining is not None and remaining > 0:
        cap = min(cap, remaining / 10)
    return max(_SOONEST_RETRY, cap * jitter)


def clock_skew(date: str | None, now: float) -> float | None:
    """How far the sender's clock is ahead of ours (s), from its Date header; None where there is none that is good.

    The header has whole seconds: half of one is added, what it loses on average.
    """
    match = _DATE.fullmatch(date) if date else None
    if match is None:
        return None
    day, month, year, hour, minute, second = match.groups()
    try:
        sent = datetime(
            int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), min(int(second), 59), tzinfo=UTC
        )
    except ValueError:
        return None
    return sent.timestamp() + 0.5 - now
