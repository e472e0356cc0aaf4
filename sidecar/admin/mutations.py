"""What changes something: by POST, after the token if there is one. Each has its line in the log at any level."""

from __future__ import annotations

import logging

from sidecar.admin.context import AdminContext
from sidecar.admin.responses import AUDIT, Reply, Request

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


async def log_level(_: AdminContext, request: Request) -> Reply:
    """The application log says more or less from now on; without ``level`` only tells how much."""
    root = logging.getLogger()
    level = request.parameters.get("level")
    if level is not None:
        if level not in _LEVELS:
            return Reply(400, f"level= is one of {', '.join(_LEVELS)}\n".encode())
        root.setLevel(_LEVELS[level])
        AUDIT.info("admin: the log level is %s from now on", level)
    return Reply(200, f"level: {logging.getLevelName(root.level).lower()}\n".encode())


async def reset_counters(context: AdminContext, _: Request) -> Reply:
    """Counters and histograms begin at zero."""
    context.telemetry.reset()
    return Reply(200, b"OK\n")


async def drain_listeners(context: AdminContext, _: Request) -> Reply:
    """Inbound connections are no longer accepted; those that are open stay."""
    context.stop_accepting()
    return Reply(200, b"OK\n")


async def fail_health(context: AdminContext, _: Request) -> Reply:
    """Not ready, until ``/healthcheck/ok``."""
    context.health.say(True)
    return Reply(200, b"OK\n")


async def restore_health(context: AdminContext, _: Request) -> Reply:
    """Ready again, if nothing else stands against it."""
    context.health.say(False)
    return Reply(200, b"OK\n")


async def quit_quit_quit(context: AdminContext, _: Request) -> Reply:
    """Drains, and ends the process."""
    return Reply(200, b"OK\n", then=context.quit)
