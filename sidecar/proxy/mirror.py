"""Copies of requests, for mirrors: sent beside the requests themselves, and their answers are dropped.

Called by ``routed_request``. A copy never delays or fails the request that it copies: it has a task of its own, a
bound on how many there are, and a time limit. It is sent once, over a connection of the mirror's cluster, with a Permit
of its own; its authority ends with ``-shadow``, as Envoy's do, so that the mirror's logs show what is a copy.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import trio

from sidecar.errors import ProxyError
from sidecar.http.headers import CONTENT_LENGTH, EXPECT, Field
from sidecar.http.message import Request
from sidecar.http.streams import ClientStream
from sidecar.policy.authorize import Permit
from sidecar.proxy.attempt import INTERIM_HEADS, KEPT_BYTES
from sidecar.proxy.context import ProxyContext
from sidecar.proxy.route import Route

MOST: Final = 64  # copies in progress for one destination; a mirror that hangs holds no more than these
MOST_OF_ALL: Final = 256  # for all destinations
DEFAULT_SECONDS: Final = 15.0  # for a copy, unless the route has a timeout; Envoy's default for a request
_BEHIND_SECONDS: Final = 0.005  # a request to an app that is near has its answer by then
_SUFFIX: Final = b"-shadow"
_REPLACED: Final = frozenset({CONTENT_LENGTH, EXPECT})
_log = logging.getLogger(__name__)


class Copy:
    """A request that is copied. ``timeout`` is the route's, in seconds; 0.0: it has none."""

    __slots__ = ("_context", "_fields", "_request", "_timeout")

    def __init__(self, context: ProxyContext, request: Request, fields: list[Field], timeout: float) -> None:
        self._context = context
        self._request = request
        self._fields = fields
        self._timeout = timeout or DEFAULT_SECONDS

    def send(self, route: Route, permit_for: Callable[[Route], Awaitable[Permit]], body: bytes | None) -> None:
        """Send a copy with this body, a little later. Drop it if there are too many, if its body is too long to be kept
        (None), or if it is not permitted."""
        mirrors, name = self._context.mirrors, route.cluster.name
        if (
            body is None
            or len(body) > KEPT_BYTES
            or mirrors.active[name] >= MOST
            or mirrors.active.total() >= MOST_OF_ALL
            or not mirrors.start(lambda: self._run(route, permit_for, body))
        ):
            self._context.telemetry.counters.mirrors_dropped += 1
        else:
            mirrors.active[name] += 1

    async def _run(self, route: Route, permit_for: Callable[[Route], Awaitable[Permit]], body: bytes) -> None:
        counters, active = self._context.telemetry.counters, self._context.mirrors.active
        try:
            await trio.sleep(_BEHIND_SECONDS)
            with trio.move_on_after(self._timeout) as scope:
                try:
                    permit = await permit_for(route)  # a name may have to be looked up for it
                except ProxyError:
                    counters.mirrors_dropped += 1
                    return
                await self._exchange(route, permit, body)
            if scope.cancelled_caught:
                counters.mirrors_failed += 1
            else:
                counters.mirrors_sent += 1
        except ProxyError:
            counters.mirrors_failed += 1
        except Exception:
            counters.mirrors_failed += 1
            _log.exception("internal error while mirroring a request; please report it")
        finally:
            active[route.cluster.name] -= 1
            if not active[route.cluster.name]:
                del active[route.cluster.name]

    async def _exchange(self, route: Route, permit: Permit, body: bytes) -> None:
        client = route.client
        endpoint = client.pick(permit)
        upstream: ClientStream | None = client.open_nowait(endpoint)
        if upstream is None:
            upstream = await client.open(endpoint, fresh=False, seconds=client.patience, hasty=False)
        try:
            authority = shadow(self._request.authority)
            request = msgspec.structs.replace(self._request, authority=authority, protocol=b"", body=len(body))
            if not upstream.begin(request, _framed(self._fields, len(body)), body, done=True):
                await upstream.flush()
            for _ in range(INTERIM_HEADS):
                if (await upstream.read_head()).status >= 200:
                    break
            while not upstream.done:
                await upstream.read_body()
        finally:
            upstream.close()


def shadow(authority: bytes) -> bytes:
    """Return the authority of a copy: ``-shadow`` behind the name, in front of the port. An IPv6 address stays."""
    name, colon, port = authority.partition(b":")
    return authority if not authority or authority.startswith(b"[") else name + _SUFFIX + colon + port


def _framed(fields: list[Field], length: int) -> list[Field]:
    """Return the fields with the length of a body that is complete now."""
    names = [name.lower() for name, _ in fields]
    kept = [field for field, name in zip(fields, names, strict=True) if name not in _REPLACED]
    return [*kept, (CONTENT_LENGTH, b"%d" % length)] if length or CONTENT_LENGTH in names else kept
