"""What a route gets and gives: a request that was let in, a reply or a stream, and the tables that lead there.

Who calls it: ``admin.routes`` makes the tables of these, ``admin.server`` asks ``dispatch``. Imports nothing of ours
but the context, so that each room of routes may import it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import parse_qsl

import msgspec

from sidecar.admin.context import AdminContext

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
EVENTS = "text/event-stream"

AUDIT = logging.getLogger("sidecar.admin.audit")
AUDIT.setLevel(logging.INFO)  # whoever changes something is named, however little else is logged


@dataclass(frozen=True, slots=True)
class Request:
    """A request that was let in. ``query`` is the target's part after "?"; ``token`` what an ``Authorization: Bearer``
    brought, None where there is none."""

    method: str
    path: str
    query: str
    accept: str
    peer: str
    token: bytes | None = None

    @property
    def parameters(self) -> dict[str, str]:
        """The query by name; the last one wins, and a name without a value is an empty one."""
        return dict(parse_qsl(self.query, keep_blank_values=True))

    @property
    def json(self) -> bool:
        """Whether ``?format=json`` was asked for."""
        return self.parameters.get("format") == "json"


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer. ``then`` is called once it was sent, or could not be; ``more`` are further fields."""

    status: int
    body: bytes
    content_type: str = TEXT
    allow: str = ""
    then: Callable[[], None] | None = None
    more: tuple[tuple[str, str], ...] = ()


Send = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer without an end: ``run(send)`` sends pieces until it returns.

    It is cancelled when the client goes away (or sends anything more), when a piece is not taken within 10 s, and when
    the process ends; so ``run`` need only send, and put away what it opened in a ``finally``. A drain does not wait
    for streams, and does not end them either: what they show of it is what one wants to see.
    """

    content_type: str
    run: Callable[[Send], Awaitable[None]]
    more: tuple[tuple[str, str], ...] = ()


Answer = Reply | Stream
Handler = Callable[[AdminContext, Request], Awaitable[Answer]]


@dataclass(frozen=True, slots=True)
class Route:
    """``mutates``: it changes something, so only POST reaches it, and the token where there is one; otherwise GET and
    HEAD do. A path in the table that ends with "/" leads to all that is one step below it; ``rest`` names that step
    in the help. ``asks``: it changes nothing, but what is asked is for a POST, which no page of another origin makes
    unseen."""

    answer: Handler
    help: str
    mutates: bool = False
    rest: str = ""
    asks: bool = False

    @property
    def allow(self) -> str:
        return "POST" if self.mutates or self.asks else "GET, HEAD"


Routes = dict[str, Route]


def find(routes: Routes, path: str) -> Route | None:
    """The route of a path: its own, or that of what stands above it."""
    route = routes.get(path)
    if route is None:
        above, slash, name = path.rpartition("/")
        route = routes.get(above + slash) if name else None
        return route if route is not None and route.rest else None
    return None if route.rest else route


async def dispatch(routes: Routes, context: AdminContext, request: Request) -> Answer:
    """The answer to a request; 404 and 405 included. Raises what a route raises."""
    route = find(routes, request.path)
    if route is None:
        return Reply(404, b"unknown path; there are:\n" + help_text(routes))
    if request.method not in route.allow.split(", "):
        return Reply(405, f"this path takes {route.allow}\n".encode(), allow=route.allow)
    if not route.mutates:
        return await route.answer(context, request)
    refusal = await context.token.judge(request.token)
    if refusal is not None:
        AUDIT.warning("admin: POST %s from %s refused: %s", request.path, request.peer, refusal.text)
        more = (("www-authenticate", "Bearer"),) if refusal.status == 401 else ()
        return Reply(refusal.status, f"{refusal.text}\n".encode(), more=more)
    AUDIT.info("admin: POST %s from %s", request.path, request.peer)
    return await route.answer(context, request)


def help_text(routes: Routes) -> bytes:
    """One line per path."""
    shown = {path + route.rest: route for path, route in routes.items()}
    width = max(map(len, shown))
    lines = (f"{route.allow.partition(',')[0]:4} {path:{width}}  {route.help}" for path, route in shown.items())
    return "".join(f"{line}\n" for line in lines).encode()


def as_json(value: object, status: int = 200) -> Reply:
    """A reply with this value as JSON."""
    try:
        body = msgspec.json.format(msgspec.json.encode(value), indent=1)
    except UnicodeEncodeError:  # a path in a flag may be bytes that are no text
        body = json.dumps(value, indent=1).encode()
    return Reply(status, body + b"\n", JSON)
