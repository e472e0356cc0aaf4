"""A record, told as a story: each step of a request, and why it ended as it did.

Called by the admin server for ``/explain/<request-id>``. Pure: a Record in, plain values out.
"""

from __future__ import annotations

from sidecar.errors import ProxyError, Reason
from sidecar.http import paths
from sidecar.telemetry import interception_labels
from sidecar.telemetry.reason_texts import APP_ERROR, MEANINGS
from sidecar.telemetry.record import Attempt, Record

Explanation = dict[str, object]
_NOT_CONNECTED = frozenset(
    {Reason.DNS_FAILED, Reason.CONNECT_FAILED, Reason.CONNECT_TIMEOUT, Reason.POOL_FULL, Reason.POOL_TIMEOUT}
)

_EXHAUSTED = {
    "attempts": "the last attempt would have been retried; the route allows no more attempts",
    "budget": "the last attempt would have been retried; the cluster's budget for retries was used up",
}


def explain(record: Record) -> Explanation:
    """Sections in the order in which things happened; values are JSON's."""
    told: Explanation = {
        "request_id": _text(record.request_id),
        "direction": record.direction,
        "connection": _connection(record),
        "request": _request(record),
        "headers_stripped": list(record.stripped),
        **({"limits": _limits(record)} if record.limits else {}),
        "upstream": _upstream(record),
        "outcome": _outcome(record),
    }
    return told


def _connection(record: Record) -> Explanation:
    told: Explanation = {"client": record.client, "protocol": record.protocol}
    origin = record.origin
    if origin is not None:
        told["detected"] = origin.detected
        told["detected_after_ms"] = _ms(origin.after)
        told["opened_before_ms"] = _ms(max(0.0, record.start - origin.opened))
        if origin.principal:
            told["peer"] = origin.principal
        if origin.original:
            told["original_destination"] = origin.original
    if record.sni:
        told["requested_server_name"] = _text(record.sni)
    return told


def _request(record: Record) -> Explanation:
    if not record.method:
        return {}
    told: Explanation = {"method": _text(record.method), "authority": _text(record.authority)}
    if words := interception_labels.difference(record):
        told["authority_differs"] = words
    return told | {
        "path_as_sent": _text(record.sent_target),
        "path_forwarded": _text(record.path),
        "path_judged": sorted(_text(form) for form in _judged(record.sent_target)),
        "body_bytes": record.bytes_received,
    }


def _judged(path: bytes) -> frozenset[bytes]:
    try:
        return paths.judged(path) if path.startswith(b"/") else frozenset()
    except ProxyError:
        return frozenset()


def _limits(record: Record) -> list[Explanation]:
    """Each limit that matched, and what its bucket had left after this request."""
    return [
        {"policy": policy, "limit": limit, "left": round(left, 3), "of": size}
        for policy, limit, left, size in record.limits
    ]


def _upstream(record: Record) -> Explanation:
    tries = [_try(record, attempt) for attempt in record.all_tries]
    for told, attempt in zip(tries, record.tries, strict=False):  # the last one's are the outcome's
        told.update({"detail": attempt.detail} if attempt.reason else {"status": attempt.status})
    return {"cluster": interception_labels.cluster(record) or None, "tries": tries}


def _try(record: Record, attempt: Attempt) -> Explanation:
    began = {"began_after_ms": _ms(attempt.began - record.began)} if attempt.began else {}
    return {
        "upstream": attempt.upstream,
        **({"peer": attempt.principal} if attempt.principal else {}),
        "connection": _carried(attempt.reused, attempt.reason),
        **began,
        "first_byte_after_ms": _ms(attempt.first_byte - record.began) if attempt.first_byte else None,
        "ended_after_ms": _ms(attempt.ended - record.began),
        "outcome": attempt.reason.word if attempt.reason else "answered",
    }


def _carried(reused: bool, reason: Reason | None) -> str:
    """What connection a try went over: "none" where there was none to be had."""
    if reason in _NOT_CONNECTED:
        return "none"
    return "reused" if reused else "new"


def _outcome(record: Record) -> Explanation:
    told: Explanation = {
        "status": record.status or None,
        "body_bytes_sent": record.bytes_sent,
        "duration_ms": _ms(record.duration),
        **({"retries": _EXHAUSTED[record.exhausted]} if record.exhausted else {}),
    }
    reason = record.reason
    if reason is None and record.failed:
        told.update(flag=record.flags, means=APP_ERROR.means, what_to_do=APP_ERROR.cure)
        return told
    if reason is None:
        told["flag"] = record.flags
        told["means"] = "Nothing went wrong here; the status is the app's own." if record.status else "It ended well."
        return told
    meaning = MEANINGS[reason]
    told.update(
        flag=record.flags,
        reason=reason.word,
        **({"rule": record.rule} if record.rule else {}),
        fault=reason.fault.value,
        detail=record.detail,
        means=meaning.means,
        what_to_do=meaning.cure,
    )
    return told


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _text(value: bytes) -> str:
    """Bytes that a peer chose, as text that breaks nothing."""
    return value.decode("ascii", "backslashreplace")
