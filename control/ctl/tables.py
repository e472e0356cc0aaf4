"""Which columns things have when they are listed: a table per kind of thing. Pure, but for the time of day.

Who uses it: the commands, with ``output``. Rows are what the control plane says, read as JSON; what it does not say
is empty, so that an older or newer one can be listed as well.
"""

from __future__ import annotations

import math
import time
from calendar import timegm
from collections.abc import Callable, Mapping
from typing import Any, Final

from control.ctl.output import Column, Row
from sidecar.resources.kinds import DRY_RUN
from sidecar.resources.protocols import MEANINGS, WORDS, Protocol, protocol_of

SHOWN_KEYS: Final = 3  # of a limit, in a table


def field(*path: str) -> Callable[[Row], str]:
    """The value at this path, as a word; lists with commas between."""

    def of(row: Row) -> str:
        return word(at(row, *path))

    return of


def at(row: Any, *path: str) -> Any:
    """The value at this path; None where there is none."""
    for name in path:
        row = row.get(name) if isinstance(row, dict) else None
    return row


def word(value: object) -> str:
    """A value in a cell."""
    if value is None or value in ([], {}):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ",".join(map(word, value))
    if isinstance(value, dict):
        return ",".join(f"{name}={word(each)}" for name, each in value.items())
    return str(value)


def moment(text: object) -> float | None:
    """Seconds since the epoch from RFC 3339 in UTC, with or without a fraction; None for anything else."""
    if isinstance(text, int | float) and not isinstance(text, bool):
        return float(text)
    try:
        return float(timegm(time.strptime(str(text)[:19], "%Y-%m-%dT%H:%M:%S")))
    except ValueError:
        return None


def span(seconds: float) -> str:
    """A length of time, in one or two units: 12s, 5m30s, 3h, 12d."""
    left = max(0, int(seconds))
    for unit, size, below in (("d", 86400, 3600), ("h", 3600, 60), ("m", 60, 1)):
        if left >= size:
            whole, rest = divmod(left, size)
            smaller = {"d": "h", "h": "m", "m": "s"}[unit]
            return f"{whole}{unit}" + (f"{rest // below}{smaller}" if rest // below and whole < 10 else "")
    return f"{left}s"


def _routed(requests: Mapping[str, int]) -> str:
    return ", ".join(f"{number} to {where}" for where, number in requests.items()) or "-"


def _limited(keys: list[Row]) -> str:
    """The first keys that are limited, and for how long; and how many more there are."""
    told = []
    for key in keys[:SHOWN_KEYS]:
        wait = key.get("wait_seconds")
        told.append(f"{key['key'] or '-'}, for {math.ceil(wait)}s" if wait else f"{key['key'] or '-'}")
    more = len(keys) - SHOWN_KEYS
    return "; ".join([*told, *([f"and {more} more"] if more > 0 else [])])


def ago(*path: str) -> Callable[[Row], str]:
    """How long ago that was."""

    def of(row: Row) -> str:
        when = moment(at(row, *path))
        return "" if when is None else span(time.time() - when)

    return of


def ahead(*path: str) -> Callable[[Row], str]:
    """In how long that will be."""

    def of(row: Row) -> str:
        when = moment(at(row, *path))
        return "" if when is None else span(when - time.time())

    return of


def _ports(row: Row) -> str:
    return ",".join(f"{port.get('port')}/{port.get('name') or 'tcp'}" for port in row.get("ports") or [])


def _protocol(row: Row) -> Protocol | None:
    """What a port takes by its declaration; None where another release says it in another way."""
    number, said = row.get("port"), row.get("appProtocol") or ""
    if not isinstance(number, int) or (said and said not in WORDS):
        return None
    return protocol_of(number, str(row.get("name") or ""), said)


def _taken(row: Row) -> str:
    protocol = _protocol(row)
    return "" if protocol is None else MEANINGS[protocol]


def _well(row: Row) -> str:
    """How many endpoints callers are told of, of how many."""
    found = row.get("endpoints") or []
    return f"{sum(each.get('health') != 'unhealthy' for each in found)}/{len(found)}"


def _health(row: Row) -> str:
    return "stale" if row.get("stale") else word(row.get("health"))


def _place(row: Row) -> str:
    ports = ",".join(f"{name}={port}" for name, port in (row.get("ports") or {}).items())
    port = row.get("port") or ports
    host = word(row.get("address"))
    return f"[{host}]:{port}" if ":" in host and port else f"{host}:{port}" if port else host


def _dry_run(row: Row) -> str:
    return "yes" if at(row, "document", "metadata", "annotations", DRY_RUN) == "true" else ""


def _routes(row: Row) -> str:
    """How many rules a VirtualService has of each sort."""
    spec = at(row, "document", "spec") or {}
    return ",".join(f"{len(spec[sort])} {sort}" for sort in ("http", "tls", "tcp") if spec.get(sort))


def _subsets(row: Row) -> str:
    return ",".join(str(each.get("name")) for each in at(row, "document", "spec", "subsets") or [])


def _budget(row: Row) -> str:
    """The budget of retries, in the form that is written."""
    budget = at(row, "document", "spec", "retryBudget")
    return "" if budget is None else word(budget) or "default"


def _what(row: Row) -> str:
    return "deleted" if row.get("document") is None else "written"


def _why(row: Row) -> str:
    problems = at(row, "refused", "problems") or []
    return "; ".join(problems) if row.get("state") == "refused" else ""


DOCUMENTS: Final = (
    Column("KIND", field("document", "kind")),
    Column("NAMESPACE", field("document", "metadata", "namespace")),
    Column("NAME", field("document", "metadata", "name")),
)
PORTS: Final = (
    Column("PORT", field("port")),
    Column("NAME", field("name")),
    Column("PROTOCOL", lambda row: _protocol(row) or ""),
    Column("TAKES", _taken),
)
SPECS: Final = {
    "Service": (
        Column("PORTS", lambda row: _ports(at(row, "document", "spec") or {})),
        Column("SERVICE ACCOUNTS", field("document", "spec", "serviceAccounts")),
        Column("EXPORT TO", field("document", "spec", "exportTo"), wide=True),
    ),
    "PeerAuthentication": (
        Column("MODE", field("document", "spec", "mtls", "mode")),
        Column("SELECTOR", field("document", "spec", "selector", "matchLabels")),
    ),
    "AuthorizationPolicy": (
        Column("ACTION", lambda row: word(at(row, "document", "spec", "action")) or "ALLOW"),
        Column("RULES", lambda row: str(len(at(row, "document", "spec", "rules") or []))),
        Column("SELECTOR", field("document", "spec", "selector", "matchLabels")),
        Column("DRY RUN", _dry_run),
    ),
    "RateLimitPolicy": (
        Column("DIRECTION", lambda row: word(at(row, "document", "spec", "direction")) or "INBOUND"),
        Column("LIMITS", lambda row: str(len(at(row, "document", "spec", "limits") or []))),
        Column("SELECTOR", field("document", "spec", "selector", "matchLabels")),
        Column("MODE", lambda row: word(at(row, "document", "spec", "mode")) or "ENFORCE"),
    ),
    "VirtualService": (
        Column("HOSTS", field("document", "spec", "hosts")),
        Column("ROUTES", _routes),
        Column("EXPORT TO", field("document", "spec", "exportTo")),
    ),
    "DestinationRule": (
        Column("HOST", field("document", "spec", "host")),
        Column("SUBSETS", _subsets),
        Column("SELECTOR", field("document", "spec", "workloadSelector", "matchLabels")),
        Column("EXPORT TO", field("document", "spec", "exportTo")),
    ),
    "BackendTrafficPolicy": (
        Column("HOST", field("document", "spec", "host")),
        Column("RETRY BUDGET", _budget),
        Column("NON-IDEMPOTENT ROUTES", field("document", "spec", "retry", "nonIdempotentRoutes"), wide=True),
        Column("EXPORT TO", field("document", "spec", "exportTo")),
    ),
    "ServiceEntry": (
        Column("HOSTS", field("document", "spec", "hosts")),
        Column("RESOLUTION", field("document", "spec", "resolution")),
    ),
    "WorkloadEntry": (
        Column("ADDRESS", field("document", "spec", "address")),
        Column("LABELS", field("document", "spec", "labels")),
    ),
    "Sidecar": (
        Column("SELECTOR", field("document", "spec", "workloadSelector", "labels")),
        Column("OUTBOUND POLICY", field("document", "spec", "outboundTrafficPolicy", "mode")),
    ),
}
WRITTEN: Final = (
    Column("GENERATION", field("generation")),
    Column("AGE", ago("time")),
    Column("AUTHOR", field("author"), wide=True),
    Column("LABELS", field("document", "metadata", "labels"), wide=True),
    Column("UNREADABLE", field("unreadable"), wide=True),
)
HISTORY: Final = (
    Column("GENERATION", field("generation")),
    Column("WHAT", _what),
    Column("TIME", field("time")),
    Column("AGE", ago("time")),
    Column("AUTHOR", field("author")),
)
DRY_RUNS: Final = (
    Column("WOULD", field("would")),
    Column("CALLER", lambda row: at(row, "caller") or "without a certificate"),
    Column("TIMES", field("times")),
    Column("LAST", lambda row: span(time.time() - float(at(row, "last") or 0.0))),
)
LIMITS: Final = (
    Column("POLICY", field("policy")),
    Column("LIMIT", field("limit")),
    Column("OF", field("of")),
    Column("MODE", field("mode"), wide=True),
    Column("ADMITTED", field("admitted")),
    Column("BEYOND", field("beyond")),
    Column("LIMITED NOW", lambda row: _limited(at(row, "limited") or [])),
)
ROUTES: Final = (
    Column("VIRTUALSERVICE", field("virtual_service")),
    Column("HOSTS", field("hosts")),
    Column("RULE", field("rule")),
    Column("MATCH", field("match")),
    Column("ACTION", field("action")),
    Column("REQUESTS", lambda row: _routed(at(row, "requests") or {})),
)
SERVICES: Final = (
    Column("NAMESPACE", field("namespace")),
    Column("NAME", field("name")),
    Column("PORTS", _ports),
    Column("SERVICE ACCOUNTS", field("serviceAccounts")),
    Column("ENDPOINTS", _well),
    Column("ADDRESSES", lambda row: word(row.get("addresses") or row.get("virtualAddresses")), wide=True),
    Column("EXPORT TO", field("exportTo"), wide=True),
    Column("LABELS", field("labels"), wide=True),
)
ENDPOINTS: Final = (
    Column("ADDRESS", _place),
    Column("MODE", field("mode")),
    Column("HEALTH", _health),
    Column("SINCE", ago("since")),
    Column("HEARD", ago("lastHeard")),
    Column("IDENTITY", field("identity")),
    Column("DETAIL", field("detail")),
)
PROXIES: Final = (
    Column("PROXY", field("proxy")),
    Column("INSTANCE", field("instance")),
    Column("STATE", field("state")),
    Column("HELD", field("held")),
    Column("OFFERED", field("offered"), wide=True),
    Column("SEEN", ago("lastSeen")),
    Column("CERTIFICATE ENDS IN", ahead("certificateExpires")),
    Column("ADDRESS", field("address"), wide=True),
    Column("SOFTWARE", field("software"), wide=True),
    Column("WHY", _why),
)
TOKENS: Final = (
    Column("ID", field("id")),
    Column("ROLE", field("role")),
    Column("NAMESPACE", field("namespace")),
    Column("SERVICE ACCOUNT", field("serviceAccount")),
    Column("EXPIRES IN", ahead("expires")),
    Column("SINGLE USE", field("singleUse"), wide=True),
    Column("ADDRESSES", field("addresses"), wide=True),
    Column("AGE", ago("created")),
    Column("CREATED BY", field("createdBy"), wide=True),
)
ROOTS: Final = (
    Column("ROOT", field("id")),
    Column("PHASE", field("phase")),
    Column("SINCE", ago("since")),
    Column("NEXT STEP IN", ahead("until")),
    Column("EXPIRES IN", ahead("expires")),
    Column("PIN", field("pin"), wide=True),
)
REVOCATIONS: Final = (
    Column("ID", field("id")),
    Column("SPIFFE ID", field("spiffeId")),
    Column("SERIAL", field("serial")),
    Column("AGE", ago("at")),
    Column("BY", field("by"), wide=True),
)
CONTEXTS: Final = (
    Column("CURRENT", field("current")),
    Column("NAME", field("name")),
    Column("SERVER", field("server")),
    Column("TOKEN FILE", field("tokenFile"), wide=True),
)
