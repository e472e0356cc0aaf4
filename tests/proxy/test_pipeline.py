"""A connection's requests from the first look to the record, over streams that are neither HTTP/1 nor sockets: what
``serve``, ``header_sanitizer``, ``exchange`` and ``local_reply`` make of them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import trio

from sidecar.addresses import Address
from sidecar.errors import ProxyError, Reason
from sidecar.http.message import EMPTY, Request
from sidecar.http.timeouts import Timeouts
from sidecar.net.resolve import Resolver
from sidecar.net.splice_pipes import Pipes
from sidecar.policy.authorize import Asked, Permit
from sidecar.policy.retry import REPLACE_STALE, RetryPolicy
from sidecar.proxy.context import ProxyContext
from sidecar.proxy.header_sanitizer import HeaderSanitizer
from sidecar.proxy.pipeline import RunningRequest, serve_request
from sidecar.proxy.request_loop import serve_http
from sidecar.proxy.route import Route
from sidecar.resources.snapshot import NOTHING, Snapshot
from sidecar.telemetry.memory import MemoryGuard
from sidecar.telemetry.record import Record
from sidecar.telemetry.telemetry import Telemetry
from tests.proxy.messages import (
    PERMIT,
    MemoryClient,
    MemoryConnection,
    MemoryOrigin,
    MemoryUpstream,
    Message,
    answer,
    question,
)


def asking(request: Request) -> MemoryClient:
    client = MemoryClient()
    client.request = request
    return client


class MemoryRouting:
    """Leads all requests to ``upstreams``, or refuses them with ``refusal``; ``passed`` is the order of the stages."""

    rejudged = True

    def __init__(self, context: ProxyContext, upstreams: Sequence[MemoryUpstream], retry: RetryPolicy) -> None:
        self.sanitizer = HeaderSanitizer(context, appends_caller=True)
        self.client = MemoryOrigin(*upstreams)
        self.refusal: ProxyError | None = None
        self.passed: list[str] = []
        cluster = cast(Any, SimpleNamespace(name=PERMIT.cluster))
        self._route = Route("service", cluster, self.client, None, Address("app", 80), "app", retry=retry)

    def current(self) -> Snapshot:
        self.passed.append("snapshot")
        return NOTHING

    def route(self, snapshot: Snapshot, request: Request) -> Route:
        self.passed.append("route")
        return self._route

    def asked(self, wanted: RunningRequest) -> Asked:
        return Asked("inbound", "", wanted.info.client, PERMIT.cluster, "HTTP", wanted.request.method)

    async def authorize(self, snapshot: Snapshot, route: Route, wanted: RunningRequest) -> Permit:
        self.passed.append("authorize")
        if self.refusal is not None:
            raise self.refusal
        return PERMIT


class Pipeline:
    """What is served, and how it is recorded."""

    def __init__(self, *upstreams: MemoryUpstream, retry: RetryPolicy = REPLACE_STALE) -> None:
        timeouts, telemetry = Timeouts(5.0, 5.0, 5.0, 1, 5.0, 1 << 20), Telemetry("off", "/dev/null")
        self.context = ProxyContext(timeouts, 5.0, 5.0, 8, 8, (), False, telemetry, MemoryGuard(0), Resolver(), Pipes())
        self.upstreams = upstreams
        self.routing = MemoryRouting(self.context, upstreams, retry)

    async def serve(self, *clients: MemoryClient) -> str:
        """How the connection ends."""
        connection = MemoryConnection(*clients)
        with trio.fail_after(5):
            await serve_http(connection, "inbound", partial(serve_request, self.routing, self.context), self.context)
        return connection.ended

    @property
    def records(self) -> list[Record]:
        return self.context.telemetry.history.newest_first()[::-1]


def began(message: Message) -> tuple[object, object, dict[bytes, bytes]]:
    """Method, target and fields of a request that an upstream was sent."""
    kind, method, target, fields, *_ = message
    assert kind == "begin"
    return method, target, dict(fields)  # type: ignore[call-overload]


async def test_two_requests_on_one_connection() -> None:
    pipeline = Pipeline(MemoryUpstream(answer(body=EMPTY)), MemoryUpstream(answer(404), b"no", b""))
    clients = asking(question()), asking(question(b"DELETE"))
    assert await pipeline.serve(*clients) == "closed"
    assert [client.heard[0][:2] for client in clients] == [("head", 200), ("head", 404)]
    method, target, fields = began(pipeline.upstreams[0].heard[0])
    assert (method, target, fields[b"x-forwarded-for"]) == (b"GET", b"/x", b"192.0.2.7")
    records = pipeline.records
    assert [(each.status, each.protocol, each.client) for each in records] == [
        (200, "memory", "192.0.2.7:4711"),
        (404, "memory", "192.0.2.7:4711"),
    ]
    assert records[0].request_id == fields[b"x-request-id"]
    assert pipeline.context.telemetry.counters.requests_active == 0


async def test_each_stage_runs_once_and_in_order() -> None:
    pipeline = Pipeline(MemoryUpstream(answer(body=EMPTY)))
    await pipeline.serve(asking(question()))
    assert pipeline.routing.passed == ["snapshot", "route", "authorize"]
    (record,) = pipeline.records
    assert (record.cluster, record.upstream) == (PERMIT.cluster, pipeline.upstreams[0].name)


async def test_what_is_refused_opens_no_stream() -> None:
    pipeline = Pipeline(MemoryUpstream(answer(body=EMPTY)))
    pipeline.routing.refusal = ProxyError(Reason.CALLER_REFUSED, "refused")
    client = asking(question())
    assert await pipeline.serve(client) == "closed"
    assert client.heard == [("local", 403)]
    assert (pipeline.routing.client.opened, pipeline.records[0].attempts) == ([], 0)


async def test_a_503_is_tried_again_where_the_policy_says_so() -> None:
    retry = RetryPolicy(1, statuses=frozenset({503}))
    for policy, status, attempts in ((retry, 200, 2), (REPLACE_STALE, 503, 1)):
        pipeline = Pipeline(MemoryUpstream(answer(503, body=EMPTY)), MemoryUpstream(answer(body=EMPTY)), retry=policy)
        client = asking(question())
        assert await pipeline.serve(client) == "closed"
        assert client.heard == [("head", status, (), b"", True)]
        (record,) = pipeline.records
        assert (record.status, record.attempts, len(record.all_tries)) == (status, attempts, attempts)


async def test_what_fails_is_told_and_the_next_request_is_served() -> None:
    gone = MemoryUpstream(ProxyError(Reason.UPSTREAM_CLOSED, "closed"))
    pipeline = Pipeline(gone, MemoryUpstream(answer(body=EMPTY)))
    broken, first, second = MemoryClient(), asking(question()), asking(question())
    broken.failure = ProxyError(Reason.BAD_REQUEST, "no request")
    assert await pipeline.serve(broken, first, second) == "closed"
    assert (broken.heard, first.heard) == ([("local", 400)], [("local", 503)])
    assert second.heard == [("head", 200, (), b"", True)]
    assert [each.reason for each in pipeline.records] == [Reason.BAD_REQUEST, Reason.UPSTREAM_CLOSED, None]


async def test_a_reply_that_breaks_off_is_reset() -> None:
    half = MemoryUpstream(answer(), b"half", ProxyError(Reason.UPSTREAM_CLOSED, "closed"))
    pipeline = Pipeline(half)
    client = asking(question())
    await pipeline.serve(client)
    assert client.heard == [("head", 200, (), b"half", False), ("reset",)]
