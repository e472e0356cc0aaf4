"""Is it well? ``/ready`` and ``/live``, for probes."""

from __future__ import annotations

from sidecar.admin.context import AdminContext
from sidecar.admin.responses import Reply, Request


def standing(context: AdminContext) -> str:
    """Where the process stands, in a word: "live", or why new connections are not welcome."""
    state = context.lifecycle.state
    if state != "live":
        return state
    if context.health.failed:
        return "healthcheck_failed"
    if not all(listener.accepting for listener in context.listeners):
        return "listeners_drained"
    if context.drift():
        return "not_intercepting"
    if context.mesh_runtime is not None and context.mesh_runtime.problem:
        return "no_certificate"
    if context.mesh_runtime is not None and context.mesh_runtime.unconfigured:
        return "no_configuration"
    return "live"


async def ready(context: AdminContext, _: Request) -> Reply:
    state = standing(context)
    words = ""
    if state == "not_intercepting":
        words = f"{context.drift()}\n"
    elif state == "no_certificate" and context.mesh_runtime is not None:
        words = f"{context.mesh_runtime.problem}\n"
    elif state == "no_configuration" and context.mesh_runtime is not None:
        words = f"{context.mesh_runtime.unconfigured}\n"
    return Reply(200 if state == "live" else 503, f"{state.upper()}\n{words}".encode())


async def live(_: AdminContext, __: Request) -> Reply:
    return Reply(200, b"LIVE\n")
