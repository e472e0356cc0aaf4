"""What this process is and has: version, settings, listeners, connections to others.

Settings are shown as they were written. None of them is a secret: ``--admin-token-file`` names a file, and nothing here
reads it (CTL-7).
"""

from __future__ import annotations

from time import monotonic

from sidecar.admin.context import AdminContext
from sidecar.admin.health import standing
from sidecar.admin.responses import Reply, Request, as_json
from sidecar.option_table import LIMITS, LISTENERS, OPTIONS, TIMEOUTS
from sidecar.resources.dump import dump
from sidecar.upstream.pool_stats import PoolsShown

_GROUPS = {option.flag: option.group for option in OPTIONS}
_BOUNDS = {"--max-app-connections", "--max-waiting", "--max-body", "--body-min-rate"}  # limits told under other heads


async def server_info(context: AdminContext, _: Request) -> Reply:
    return as_json(
        {
            "version": context.version,
            "state": standing(context).upper(),
            **_identity(context),
            "uptime_seconds": round(monotonic() - context.started, 3),
            "flags": {each.flag: {"value": each.text, "source": each.source} for each in context.in_force},
        }
    )


async def listeners(context: AdminContext, request: Request) -> Reply:
    if request.json:
        return as_json(_listeners(context))
    lines = (f"{each.name}::{each.address}{'' if each.accepting else ' (drained)'}\n" for each in context.listeners)
    return Reply(200, "".join(lines).encode())


async def clusters(context: AdminContext, request: Request) -> Reply:
    """Each pool of connections; as text in the form of Envoy's, ``name::what::number``."""
    shown = {name: _cluster(pool) for name, pool in sorted(context.clusters().items())}
    if request.json:
        return as_json([{"name": name, **facts} for name, facts in shown.items()])
    lines = [f"{name}::{what}::{_plain(value)}\n" for name, facts in shown.items() for what, value in facts.items()]
    return Reply(200, "".join(lines).encode())


async def config_dump(context: AdminContext, _: Request) -> Reply:
    values = {each.flag: each.text for each in context.in_force}
    return as_json(
        {
            "version": context.version,
            "settings": {flag: text for flag, text in values.items() if _GROUPS.get(flag) != LISTENERS},
            "listeners": {
                "configured": {flag: text for flag, text in values.items() if _GROUPS.get(flag) == LISTENERS},
                "bound": _listeners(context),
            },
            "timeouts": {flag: text for flag, text in values.items() if _GROUPS.get(flag) == TIMEOUTS},
            "limits": {flag: text for flag, text in values.items() if _GROUPS.get(flag) == LIMITS or flag in _BOUNDS},
            "memory_limit_bytes": context.memory.limit,
            "probes": [str(probe) for probe in context.probes],
            "mesh": _mesh(context),
        }
    )


def _mesh(context: AdminContext) -> dict[str, object] | None:
    """What this proxy was told of its mesh: where from, how old, what was refused; None where no source does."""
    feed = context.mesh_runtime or context.config_runtime
    return None if feed is None else {**feed.shown, "snapshot": dump(feed.current.snapshot)}


async def certificates(context: AdminContext, _: Request) -> Reply:
    """Ours, and whom we trust; never a key."""
    return as_json({"certificates": []} if context.mesh_runtime is None else context.mesh_runtime.certificates)


def _identity(context: AdminContext) -> dict[str, object]:
    """Who we are, in a mesh; null before the first certificate."""
    if context.mesh_runtime is None:
        return {}
    ours = context.mesh_runtime.identity.spiffe_id
    return {"spiffe_id": None if ours is None else str(ours)}


def _listeners(context: AdminContext) -> list[dict[str, object]]:
    return [
        {
            "name": each.name,
            "host": each.address.host,
            "port": each.address.port,
            "accepting": each.accepting,
        }
        for each in context.listeners
    ]


def _plain(value: object) -> str:
    return "-" if value is None else ", ".join(value) if isinstance(value, list) else str(value)


def _cluster(pool: PoolsShown) -> dict[str, object]:
    facts: dict[str, object] = {
        "open": pool.open,
        "idle": pool.idle,
        "waiting": pool.waiting,
        "max_connections": pool.limit,
        "max_waiting": pool.max_waiting,
        "wait_seconds": pool.wait_seconds,
        "idle_seconds": pool.idle_seconds,
        "failures": pool.failures,
        "last_failure": None,
        "last_failure_seconds_ago": None,
    }
    if pool.last_failure is not None:
        at, error = pool.last_failure
        facts["last_failure"] = f"{error.reason.word}: {error.detail}"
        facts["last_failure_seconds_ago"] = round(monotonic() - at, 3)
    if pool.identities:
        facts["identities"] = list(pool.identities)
    for each in pool.endpoints:
        cooling = ", cooling down" if each.cooling else ""
        facts[each.address] = f"{each.open} open, {each.idle} idle, {each.waiting} waiting{cooling}"
    return facts
