"""What the shell is offered when Tab is pressed: kinds, and names from the control plane, if it answers in a second.

Who calls it: click, while a line is typed. Whatever goes wrong here offers nothing, and says nothing.
"""

from __future__ import annotations

from typing import Any, Final

import click

from control.ctl import kinds
from control.ctl.command_base import session_of
from control.ctl.exit_codes import Failed
from control.ctl.settings import target

PATIENCE: Final = 1.0  # seconds; more, and people press the key again


def complete_kind(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """A kind first, then a name of it."""
    return complete_name(context, parameter, begun)


def complete_name(context: click.Context, _: click.Parameter, begun: str) -> list[str]:
    """Kinds, then names of that kind in the namespace that was written."""
    words = context.params.get("words") or ()
    if not words:
        return [each for each in kinds.spoken() if each.startswith(begun.lower())]
    if len(words) > 1:
        return []
    try:
        query = {"kind": kinds.kind_of(words[0]), "namespace": str(context.params.get("namespace") or "default")}
        found = _asked(context, query)
    except Failed:
        return []
    names = (str(each["document"]["metadata"]["name"]) for each in found)
    return sorted(name for name in names if name.startswith(begun))


def _asked(context: click.Context, query: dict[str, str]) -> list[Any]:
    from control.ctl.api_client import Server

    session = session_of(context)
    server = Server(target(session.flags, session.config_path), PATIENCE)
    found: list[Any] = server.get("/v1/resources", query)["items"]
    return found
