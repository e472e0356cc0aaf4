"""What has gone by: ``/requests`` lists the last records, ``/explain/<request-id>`` tells the story of one.

Of a request's target only the path and the names of parameters are shown (``telemetry.redact``); of its fields only
user-agent, x-forwarded-for and x-request-id were ever kept.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from time import gmtime, strftime
from urllib.parse import unquote

import trio

from sidecar.admin import record_filters
from sidecar.admin.context import AdminContext
from sidecar.admin.responses import Reply, Request, as_json
from sidecar.telemetry import interception_labels, redact
from sidecar.telemetry.explain import Explanation, explain
from sidecar.telemetry.history import KEPT, History
from sidecar.telemetry.record import Record

SHOWN = 100  # unless limit= says otherwise
AT_A_TIME = 100  # records looked at before others have their turn: less than a millisecond
Row = dict[str, object]


async def requests(context: AdminContext, request: Request) -> Reply:
    """Newest first; as text, or as JSON."""
    try:
        wanted = record_filters.wanted(request.parameters)
        limit = record_filters.limit(request.parameters, SHOWN)
    except ValueError as error:
        return Reply(400, f"{error}\n".encode())
    render: Callable[[Record], Row | str] = row if request.json else line
    found: list[Row | str] = []
    for number, record in enumerate(_known(context.telemetry.history)):
        if len(found) == limit:
            break
        if wanted(record):
            found.append(render(record))
        if number % AT_A_TIME == AT_A_TIME - 1:
            await trio.lowlevel.checkpoint()  # traffic goes first
    if request.json:
        return as_json(found)
    return Reply(200, "".join([f"{each}\n" for each in found]).encode())


async def explanation(context: AdminContext, request: Request) -> Reply:
    """One request's story, as JSON or as text."""
    history = context.telemetry.history
    record = history.find(unquote(request.path.removeprefix("/explain/")))
    if record is None:
        kept = _known(history)
        back = f"history goes back to {_moment(kept[-1].start)}" if kept else "nothing has ended so far"
        return Reply(404, f"no request with this id among the last {KEPT}; {back}\n".encode())
    shown = copy.copy(record)
    shown.path, shown.sent_target = redact.target(record.path), redact.target(record.sent_target)
    told = {"time": _moment(record.start), **explain(shown)}
    if routed := context.routed(record):
        told["route"] = routed
    if authorized := context.authorized(record):
        told["authorization"] = authorized
    if request.parameters.get("format") == "text" or (not request.json and request.accept.startswith("text/plain")):
        return Reply(200, "\n".join([*outline(told, ""), ""]).encode())
    return as_json(told)


def _known(history: History) -> list[Record]:
    """Newest first: the last thousand, and failures from before them."""
    records = history.newest_first()
    if len(records) == KEPT:
        last = set(map(id, records))
        records += [record for record in history.failed_newest_first() if id(record) not in last]
    return records


def row(record: Record) -> Row:
    """A record in short, as JSON's values; what ``/tap`` sends, too."""
    reason = record.reason
    return {
        "time": _moment(record.start),
        "request_id": _text(record.request_id),
        "direction": record.direction,
        "protocol": record.protocol,
        "client": record.client,
        "method": _text(record.method),
        "authority": _text(record.authority),
        "path": _text(redact.target(record.path)),
        "status": record.status,
        "flag": record.flags,
        "reason": reason.word if reason else None,
        "rule": record.rule or None,
        "detail": record.detail,
        "duration_ms": round(record.duration * 1000, 3),
        "bytes_received": record.bytes_received,
        "bytes_sent": record.bytes_sent,
        "upstream": record.upstream,
        "downstream_peer": record.principal or None,
        "upstream_peer": record.upstream_principal or None,
        "cluster": interception_labels.cluster(record) or None,
        "original_destination": interception_labels.original(record) or None,
        "authority_differs": bool(interception_labels.difference(record)),
        "attempts": record.attempts,
        "route": record.route or None,
        "subset": record.subset or None,
        "user_agent": _text(record.user_agent),
        "x_forwarded_for": _text(record.forwarded_for),
    }


def line(record: Record) -> str:
    """A record on one line, for people."""
    reason = record.reason
    what = _text(record.method + b" " + redact.target(record.path)) if record.method else record.protocol
    return " ".join(
        (
            _moment(record.start),
            record.direction,
            str(record.status or "-"),
            record.flags,
            reason.word if reason else "-",
            f"{record.duration * 1000:.1f}ms",
            what,
            _text(record.authority) or "-",
            record.client,
            record.upstream or "-",
            _text(record.request_id) or "-",
            *([f"to {wanted}"] if (wanted := interception_labels.original(record)) else []),
            *([f"by {record.principal}"] if record.principal else []),
            *([f"at {record.upstream_principal}"] if record.upstream_principal else []),
        )
    )


def outline(told: Explanation, indent: str) -> list[str]:
    """Names and values, one on a line, sections set in."""
    lines: list[str] = []
    for name, value in told.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}:", *outline(value, indent + "  ")]
        elif isinstance(value, list):
            lines.append(f"{indent}{name}:" + ("" if value else " -"))
            for item in value:
                if isinstance(item, dict):
                    first, *rest = outline(item, indent + "    ")
                    lines += [f"{indent}  - {first.lstrip()}", *rest]
                else:
                    lines.append(f"{indent}  - {_printable(str(item))}")
        else:
            lines.append(f"{indent}{name}: {'-' if value in (None, '') else _printable(str(value))}")
    return lines


def _moment(start: float) -> str:
    """RFC 3339, in UTC, to the millisecond."""
    return f"{strftime('%Y-%m-%dT%H:%M:%S', gmtime(start))}.{int(start % 1 * 1000):03d}Z"


def _text(value: bytes) -> str:
    """Bytes that a peer chose, as one word or line that breaks nothing."""
    return _printable(value.decode("ascii", "backslashreplace"))


def _printable(text: str) -> str:
    return text if text.isprintable() else "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
