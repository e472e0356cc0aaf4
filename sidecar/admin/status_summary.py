"""One second of the process, as the page shows it: rates, latencies, who calls whom, the last failures, the limits.

Who calls it: ``admin.events``, once a second while a page is open. Nothing is counted for it on the hot path: rates are
differences of the counters that are there anyway, latencies and shares come from the last records that are kept. It
waits for nothing, and takes the time as an argument.

Latencies are those of requests that ended since the last summary; where these are more than the history keeps, of its
last ones. An exchange that became a tunnel has a duration, but no latency.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import log2
from operator import attrgetter
from typing import Final

from sidecar.admin.context import AdminContext
from sidecar.admin.health import standing
from sidecar.admin.totals import APP_WORD, DIRECTIONS, Totals
from sidecar.errors import Reason
from sidecar.telemetry import redact
from sidecar.telemetry.history import RecordSummary
from sidecar.telemetry.process import resident_bytes
from sidecar.telemetry.reason_texts import APP_ERROR, MEANINGS
from sidecar.telemetry.record import Record

FAILURES: Final = 20  # rows of the page
RECENT: Final = 60.0  # seconds
SHARES: Final = 8  # sources and destinations that are named; the rest is one line
SWITCHING: Final = 101
_BY_WORD: Final = {reason.word: reason for reason in Reason}

Seen = Record | RecordSummary
Plain = dict[str, object]
Gauges = Mapping[str, Mapping[tuple[str, ...], float]]


def summarize(context: AdminContext, before: Totals | None, now: Totals, wall: float) -> Plain:
    """The summary of the time between two totals, in values that JSON has. ``wall`` is the time of day in seconds;
    rates and latencies are null where there is no ``before``."""
    telemetry = context.telemetry
    records, failed = telemetry.history.glances(), telemetry.history.failed_newest_first()
    failures = [record for record in records if isinstance(record, Record) and record.failed]
    gauges = {name: dict(readings) for name, readings in telemetry.gauges.read()}
    seconds = now.at - before.at if before is not None else 0.0
    return {
        "time": wall,
        "state": standing(context),
        "version": context.version,
        "uptime": now.at - context.started,
        "directions": _directions(records, before, now, wall - seconds, gauges),
        "reasons": [_reason(word, count) for word, count in _most(now.reasons)],
        "recent": Counter(_word(record) for record in failed if record.start + record.duration > wall - RECENT),
        "failures": [_failure(record) for record in failed[:FAILURES]],
        "window": _window(records, wall),
        "sources": _shares(records, failures, "client"),
        "destinations": _shares(records, failures, "upstream"),
        "limits": _limits(context, gauges),
    }


# -- by direction ----------------------------------------------------------------------------------------------------


def _directions(records: Sequence[Seen], before: Totals | None, now: Totals, since: float, gauges: Gauges) -> Plain:
    durations: dict[str, list[float]] = {direction: [] for direction in DIRECTIONS}
    if before is not None:
        for record in records:
            if record.start + record.duration < since:
                break  # they stand in the order of their ends
            if record.method and record.status > SWITCHING and record.method != b"CONNECT":
                durations[record.direction].append(record.duration)
    connections = gauges.get("sidecar_connections_open", {})
    told: Plain = {}
    for direction in DIRECTIONS:
        took = sorted(durations[direction])
        told[direction] = {
            "requests": before and _rate(before, now, "requests", direction),
            "errors": before and _rate(before, now, "errors", direction),
            "opaque": before and _rate(before, now, "opaque", direction),
            "total": now.requests[direction] + now.opaque[direction],
            "p50": _percentile(took, 0.50),
            "p95": _percentile(took, 0.95),
            "p99": _percentile(took, 0.99),
            "connections": connections.get((direction,)),
        }
    return told


def _rate(before: Totals, now: Totals, name: str, direction: str) -> float:
    """Per second. Whoever reset the counters meanwhile sees what was counted since then."""
    begun: float = getattr(before, name)[direction]
    ended: float = getattr(now, name)[direction]
    grown = ended - begun if ended >= begun else ended
    return round(grown / max(now.at - before.at, 0.001), 2)


def _percentile(ascending: Sequence[float], share: float) -> float | None:
    """Milliseconds that ``share`` of the durations (in seconds) did not exceed; None where there are none."""
    if not ascending:
        return None
    return round(ascending[min(int(len(ascending) * share), len(ascending) - 1)] * 1000, 3)


# -- failures --------------------------------------------------------------------------------------------------------


def _most(reasons: Mapping[str, float]) -> list[tuple[str, float]]:
    return sorted(((word, count) for word, count in reasons.items() if count), key=lambda each: -each[1])


def _reason(word: str, count: float) -> Plain:
    reason = _BY_WORD.get(word)
    meaning = APP_ERROR if reason is None else MEANINGS[reason]
    return {
        "word": word,
        "flag": "5xx" if reason is None else reason.flag,
        "fault": "upstream" if reason is None else reason.fault.value,
        "count": count,
        "means": meaning.means,
        "cure": meaning.cure,
    }


def _word(record: Record) -> str:
    return APP_WORD if record.reason is None else record.reason.word


def _failure(record: Record) -> Plain:
    reason = record.reason
    meaning = APP_ERROR if reason is None else MEANINGS[reason]
    return {
        "time": record.start,
        "id": _text(record.request_id),
        "direction": record.direction,
        "method": _text(record.method) or record.protocol,
        "authority": _text(record.authority) if record.direction == "outbound" else "",
        "path": _text(redact.target(record.path or record.sent_target)),
        "client": record.client,
        "status": record.status or None,
        "flag": record.flags,
        "word": _word(record),
        "means": meaning.means,
    }


# -- who calls whom --------------------------------------------------------------------------------------------------


def _shares(records: Sequence[Seen], failed: Sequence[Record], attribute: str) -> list[Plain]:
    """Requests by direction and by what ``attribute`` says; of a client only its host, since ports come and go."""
    requests, failures = _counted(records, attribute), _counted(failed, attribute)
    return [
        {"direction": key[0], "name": key[1], "requests": count, "failed": failures[key]}
        for key, count in sorted(requests.most_common(SHARES), key=_calmly)
    ]


def _counted(records: Iterable[Seen], attribute: str) -> Counter[tuple[str, str]]:
    # Counted as they are first: that is done in C, and leaves one look per connection instead of one per record.
    counted: Counter[tuple[str, str]] = Counter(map(attrgetter("direction", attribute), records))
    if attribute != "client":
        return counted
    hosts: Counter[tuple[str, str]] = Counter()
    for (direction, client), count in counted.items():
        hosts[direction, client.rpartition(":")[0]] += count
    return hosts


def _calmly(share: tuple[tuple[str, str], int]) -> tuple[int, tuple[str, str]]:
    """Most first, but those that are nearly equal by name: rows that change places every second can't be read."""
    name, count = share
    return -round(2 * log2(count)), name


def _window(records: Sequence[Seen], wall: float) -> Plain:
    if not records:
        return {"records": 0, "seconds": 0.0}
    oldest = records[-1]
    return {"records": len(records), "seconds": round(max(0.0, wall - oldest.start - oldest.duration), 1)}


# -- limits ----------------------------------------------------------------------------------------------------------


def _limits(context: AdminContext, gauges: Gauges) -> Plain:
    telemetry, memory = context.telemetry, context.memory
    counters = telemetry.counters
    return {
        "connections": {
            "used": counters.connections_active,
            "max": _one(gauges, "sidecar_connections_limit"),
            "refused": counters.connections_refused,
        },
        "pools": [
            {
                "name": pool,
                "used": used - gauges["sidecar_pool_idle_connections"].get((pool,), 0),
                "open": used,
                "max": gauges["sidecar_pool_limit_connections"].get((pool,)),
                "waiting": gauges["sidecar_pool_waiting_requests"].get((pool,)),
            }
            for (pool,), used in gauges.get("sidecar_pool_open_connections", {}).items()
        ],
        "memory": {
            "used": memory.used if memory.limit else resident_bytes(),
            "limit": memory.limit,
            "state": memory.state.value,
        },
        "lag": {"last": telemetry.lag.last, "max": telemetry.lag.max},
        "in_progress": counters.requests_active,
        "retries": counters.retries,
        "log_dropped": counters.access_log_dropped,
    }


def _one(gauges: Gauges, name: str) -> float | None:
    return gauges.get(name, {}).get(())


def _text(value: bytes) -> str:
    """Bytes that a peer chose, as text that breaks nothing."""
    text = value.decode("ascii", "backslashreplace")
    return text if text.isprintable() else "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
