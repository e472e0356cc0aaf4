"""Waiting for another version of something, as a caller asks for it: ``?version=EPOCH.N&wait=30s``.

Who calls it: the calls that are waited for. A wait ends when there is another version, when its time is over, when the
caller goes away, or with the process; nobody holds room here who is gone.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import trio
from starlette.requests import Request

from control.problems import Invalid
from control.version import Version
from control.watchable import Waiters, Watchable
from sidecar import value_parsers

LONGEST_WAIT: Final = 60.0


def version_of(request: Request) -> Version | None:
    """What the caller says that it holds, where it says so; Invalid where that is no version."""
    text = request.query_params.get("version")
    try:
        return None if text is None else Version.parse(text)
    except ValueError as error:
        raise Invalid(f"version: {error}") from None


def wait_of(request: Request) -> float:
    """Seconds; none where it is not said. More than LONGEST_WAIT is taken for that."""
    try:
        return min(LONGEST_WAIT, value_parsers.duration(request.query_params.get("wait", "0")))
    except ValueError as error:
        raise Invalid(f"wait: {error}; write for example 30s") from None


async def wait_other_than(
    held: Collection[Version], published: Watchable[Any], waiters: Waiters, request: Request, caller: str
) -> bool:
    """Whether there is a version that is none of ``held``, now or within what the request lets it wait.

    Refused (503) where too many wait, or too many of those that are called ``caller``.
    """
    wait = wait_of(request)
    if published.version not in held:
        return True
    if not wait:
        return False
    newer = False
    with waiters.one(caller), trio.move_on_after(wait):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_gone, request, nursery.cancel_scope)
            newer = await published.wait_other_than(held, waiters)
            nursery.cancel_scope.cancel()
    return newer


async def _until_gone(request: Request, scope: trio.CancelScope) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
