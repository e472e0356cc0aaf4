"""A call to the control plane, for people: asked once, answered, or a line that says what to do.

Who calls it: the commands, by ``Session``. The connection and whom to trust there are the sidecar's own
(``sidecar.feed``): a join token names the control plane and its root, and nothing that a name server or a proxy on the
way says can change that. Each call is a run of trio of its own; a command makes few.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, urlencode

import trio

from control.ctl.exit_codes import Exit, Failed
from control.ctl.settings import Target
from sidecar.feed.bootstrap_trust import first_way
from sidecar.feed.control_client import ControlClient, ControlError, Reply
from sidecar.net.connection import Connection
from sidecar.net.resolve import Resolver

MOST: Final = 64 << 20  # of one answer
PATIENCE: Final = 20.0  # seconds beside those of ControlClient: a large set is judged, and written to a disk
TRIES: Final = 4  # where the control plane says that it is asked too often, and for how long to wait
LONGEST_PAUSE: Final = 5.0
Query = Mapping[str, str] | Sequence[tuple[str, str]]
_HINTS: Final = {
    "no_token": "",
    "no_trust": "; name the file with its root",
    "connect_failed": "; is it running there, and is the port right?",
    "connect_timeout": "; is there a way to it?",
    "dns_failed": "; is the name right?",
    "handshake_unknown_authority": "; the token or --control-ca names another root: get a new token, and log in",
    "handshake_wrong_identity": "; the token or --control-id names another control plane",
    "bad_answer": "; is that the port of the control plane?",
}


class Server:
    """One control plane. ``seconds``: for how long to try at most, None as long as it takes."""

    def __init__(self, target: Target, seconds: float | None = None) -> None:
        self.target = target
        self._seconds = seconds

    def get(self, path: str, query: Query = ()) -> Any:
        """What stands at ``path``, read as JSON. Failed."""
        return self.ask("GET", path, query=query)[1]

    def pages(self, path: str, member: str, query: Query = ()) -> Iterator[Any]:
        """The elements of a list that comes in pages, each with what leads to the next in ``continue``. Failed."""
        told = list(query.items() if isinstance(query, Mapping) else query)
        page = self.get(path, told)
        yield from page[member]
        while page.get("continue"):
            page = self.get(path, [*told, ("continue", page["continue"])])
            yield from page[member]

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Query = (),
        fields: Sequence[tuple[str, str]] = (),
        taken: Sequence[int] = (),
    ) -> tuple[Reply, Any]:
        """The reply, and its body read as JSON where it is that. Failed for a status from 400 that is not ``taken``."""
        data = b"" if body is None else json.dumps(body).encode()
        reply = self.raw(method, path, data, query=query, fields=fields)
        if reply.status >= 400 and reply.status not in taken:
            raise refused(reply, self.target)
        return reply, _read(reply, self.target)

    def raw(
        self,
        method: str,
        path: str,
        data: bytes = b"",
        *,
        query: Query = (),
        fields: Sequence[tuple[str, str]] = (),
        most: int = MOST,
        wait: float = PATIENCE,
    ) -> Reply:
        """The reply, whatever it is, but for "too often": that is waited for. Failed where there is none."""
        where = path + (f"?{urlencode(query, quote_via=quote)}" if query else "")
        for again in range(TRIES):
            reply = self._exchange(method, where, data, tuple(fields), most, wait)
            after = _seconds(reply)
            if reply.status != 429 or after > LONGEST_PAUSE or again == TRIES - 1:
                break
            time.sleep(after)
        return reply

    def _exchange(
        self, method: str, where: str, data: bytes, fields: tuple[tuple[str, str], ...], most: int, wait: float
    ) -> Reply:
        try:
            way, _ = first_way(self.target, time.time)
        except ControlError as error:
            raise Failed(Exit.USAGE, error.detail) from None

        async def exchange() -> Reply | None:
            connections: set[Connection] = set()
            client = ControlClient(self.target.control, Resolver(), connections, time.time)
            with trio.move_on_after(float("inf") if self._seconds is None else self._seconds):
                return await client.ask(way, method, where, data, most=most, wait=wait, fields=fields)
            return None

        try:
            reply = trio.run(exchange)
        except ControlError as error:
            raise Failed(Exit.UNREACHED, error.detail + _HINTS.get(error.word, "")) from None
        if reply is None:
            raise Failed(Exit.UNREACHED, f"{self.target.control}: no answer within {self._seconds:g} s")
        return reply


def segment(text: str) -> str:
    """A text as one segment of a path."""
    return quote(text, safe="")


def refused(reply: Reply, target: Target) -> Failed:
    """What a refusal means, and what to do about it."""
    problem = _problem(reply)
    detail = str(problem.get("detail", ""))
    where, status = target.control, reply.status
    if status == 401:
        return Failed(Exit.FORBIDDEN, f"{where}: the token is not taken; log in with a good one (sidecarctl login)")
    if status == 403:
        why = detail or "the token's role may not do that; it takes an operator's token"
        return Failed(Exit.FORBIDDEN, f"{where}: {why}")
    if status in (404, 405) and not detail:
        return Failed(
            Exit.NOT, f"{where}: there is nothing like that; is this sidecarctl newer than the control plane?"
        )
    if status in (409, 412, 428):
        return Failed(Exit.CONFLICT, detail or "it was changed meanwhile; look at it (sidecarctl get), and try again")
    if status == 429:
        return Failed(Exit.UNREACHED, f"{where}: asked too often; try again in {max(1.0, _seconds(reply)):g} s")
    if status >= 500:
        return Failed(Exit.UNREACHED, f"{where}: it can't answer now ({detail or status}); its log says why")
    return Failed(Exit.NOT, detail or f"{where}: it answers {status}")


def _problem(reply: Reply) -> dict[str, Any]:
    try:
        found = json.loads(reply.body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _read(reply: Reply, target: Target) -> Any:
    if not reply.body or "json" not in reply.fields.get("content-type", ""):
        return None
    try:
        return json.loads(reply.body)
    except ValueError:
        raise Failed(Exit.UNREACHED, f"{target.control}: its answer is no JSON; is that the control plane?") from None


def _seconds(reply: Reply) -> float:
    after = reply.fields.get("retry-after", "")
    return float(after) if after.isascii() and after.isdigit() and len(after) < 6 else 1.0
