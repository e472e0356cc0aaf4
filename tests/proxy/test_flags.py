"""Every reason, and so every response flag, is provoked through a real process, and found in the reply's problem
document, in the access log and in the metrics."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sidecar.errors import Reason
from tests.support.ports import held_port
from tests.support.process import ROOT, SidecarProcess
from tests.support.raw import Client, Reply, ask
from tests.support.upstream import RecordingUpstream, Step, close, hold, ok, send, until, wait_until

_PLAIN = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"
_BODY = b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 100\r\n\r\n"
# Two that the command line and our care rule out are planted: a fault of ours, and a caller who is not on loopback.
_FAULT = (
    "import sys; from sidecar.proxy.header_sanitizer import HeaderSanitizer; from sidecar.cli import main; "
    "HeaderSanitizer.fields = lambda *_: 1 / 0; sys.exit(main())"
)
_STRANGER = (
    "import sys; import sidecar.proxy.explicit as explicit; from sidecar.cli import main; "
    "explicit.parse_ip = lambda _: None; sys.exit(main())"
)


class Stage:
    """A process, the app behind it, and what has to stay open until the end."""

    def __init__(self, stack: ExitStack, case: Case) -> None:
        self.stack = stack
        self.go = threading.Event()
        stack.callback(self.go.set)
        scripts: dict[str, Sequence[Step]] = {"held": (until(self.go), send(ok())), **case.scripts}
        self.app = stack.enter_context(RecordingUpstream(scripts, strict=False))
        upstream = case.upstream(stack) if case.upstream is not None else self.app.port
        self.sidecar = stack.enter_context(SidecarProcess(upstream, *case.flags, entry=case.entry))

    def ask(self, data: bytes, *, port: int = 0, deadline: float = 60.0) -> Reply | None:
        """The reply to these bytes on a connection of their own, which stays open; None where there is no whole one."""
        try:
            client = self.stack.enter_context(Client(port or self.sidecar.inbound, deadline=deadline))
        except ConnectionResetError:  # refused so soon that not even the connection is told as made
            return None
        client.send(data)
        replies = client.replies((data.partition(b" ")[0],), 1)
        return replies[0] if replies and replies[0].complete else None

    def hold(self) -> Client:
        """A request that is at the app and stays there."""
        client: Client = self.stack.enter_context(Client(self.sidecar.inbound, deadline=30))
        client.send(b"GET /script/held HTTP/1.1\r\nHost: app\r\n\r\n")
        wait_until(lambda: any(c.requests for c in self.app.live()), "the held request is at the app")
        return client


@dataclass(frozen=True)
class Case:
    """How a reason comes about. ``status`` is the reply's, 0 where there is none or it had begun; ``scraped`` False
    where the process ends with it."""

    status: int
    act: Callable[[Stage], Reply | None]
    flags: tuple[str, ...] = ()
    scripts: Mapping[str, Sequence[Step]] = field(default_factory=dict)
    upstream: Callable[[ExitStack], int] | None = None
    direction: str = "inbound"
    entry: tuple[str, ...] = ("-m", "sidecar")
    scraped: bool = True


def _sent(data: bytes) -> Callable[[Stage], Reply | None]:
    return lambda stage: stage.ask(data)


def _script(name: str) -> Callable[[Stage], Reply | None]:
    return _sent(b"GET /script/%b HTTP/1.1\r\nHost: app\r\n\r\n" % name.encode())


def _outbound(data: bytes) -> Callable[[Stage], Reply | None]:
    return lambda stage: stage.ask(data, port=stage.sidecar.outbound, deadline=40.0)


def _client_leaves(stage: Stage) -> None:
    stage.hold().sock.close()


def _own_listener(stage: Stage) -> Reply | None:
    own = b"127.0.0.1:%d" % stage.sidecar.inbound
    return _outbound(b"GET http://%b/ HTTP/1.1\r\nHost: %b\r\n\r\n" % (own, own))(stage)


def _behind_a_held_one(stage: Stage) -> Reply | None:
    stage.hold()
    return stage.ask(_PLAIN)


def _beside_an_idle_one(stage: Stage) -> Reply | None:
    client = stage.stack.enter_context(Client(stage.sidecar.inbound))
    client.send(_PLAIN)
    assert client.replies((b"GET",), 1)[0].status == 200
    return stage.ask(_PLAIN)


def _short_of_memory(stage: Stage) -> Reply | None:
    wait_until(lambda: stage.sidecar.memory()["guard"]["state"] == "refusing", "the guard has seen it")
    return _behind_a_held_one(stage)


def _drain(stage: Stage) -> None:
    stage.hold()
    stage.sidecar.terminate()
    stage.sidecar.wait_clean_exit()


def _fault(stage: Stage) -> Reply | None:
    reply = stage.ask(_PLAIN)
    wait_until(lambda: any("ZeroDivisionError" in line for line in stage.sidecar.errors), "the traceback")
    return reply


def _nobody(stack: ExitStack) -> int:
    return stack.enter_context(held_port())


def _silent(stack: ExitStack) -> int:
    """A port whose queue is full, so that SYNs are dropped."""
    listener = stack.enter_context(closing(socket.socket()))
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    for _ in range(4):
        filler = stack.enter_context(closing(socket.socket()))
        filler.setblocking(False)
        filler.connect_ex(listener.getsockname())
    port: int = listener.getsockname()[1]
    return port


_PLAIN_ABSOLUTE = b"GET http://192.0.2.1/ HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n"
_QUICK = ("--stream-idle-timeout", "400ms")
CASES: dict[Reason, Case] = {
    Reason.BAD_REQUEST: Case(400, _sent(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n")),
    Reason.BAD_FRAMING: Case(
        400, _sent(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
    ),
    Reason.UNKNOWN_CODING: Case(501, _sent(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n")),
    Reason.BAD_VERSION: Case(505, _sent(b"GET / HTTP/2.0\r\nHost: a\r\n\r\n")),
    Reason.METHOD_REFUSED: Case(405, _sent(b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n")),
    Reason.HEAD_TOO_LARGE: Case(431, _sent(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 40_000 + b"\r\n\r\n")),
    Reason.REQUEST_LINE_TOO_LONG: Case(414, _sent(b"GET /" + b"x" * 40_000)),
    Reason.PROTOCOL_REFUSED: Case(0, _sent(b"PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n" + _PLAIN)),
    Reason.HEAD_TIMEOUT: Case(408, _sent(b"GET / HTTP/1.1\r\nHost: a\r\n"), ("--request-head-timeout", "200ms")),
    Reason.BODY_TOO_LARGE: Case(413, _sent(_BODY), ("--max-body", "10")),
    Reason.BODY_TOO_SLOW: Case(408, _sent(_BODY + b"x"), ("--body-min-rate", "1000/1")),
    Reason.CLIENT_IDLE: Case(408, _sent(_BODY + b"x"), _QUICK),
    Reason.CLIENT_CLOSED: Case(0, _client_leaves),
    Reason.NO_ROUTE: Case(404, _outbound(_PLAIN), direction="outbound"),
    Reason.CALLER_REFUSED: Case(403, _outbound(_PLAIN), direction="outbound", entry=("-c", _STRANGER)),
    Reason.OWN_LISTENER: Case(403, _own_listener, direction="outbound"),
    Reason.BLACK_HOLE: Case(
        502, _outbound(_PLAIN_ABSOLUTE), ("--outbound-policy", "REGISTRY_ONLY"), direction="outbound"
    ),
    Reason.DNS_FAILED: Case(
        503, _outbound(b"GET http://nobody.invalid/ HTTP/1.1\r\nHost: nobody.invalid\r\n\r\n"), direction="outbound"
    ),
    Reason.CONNECT_FAILED: Case(503, _sent(_PLAIN), upstream=_nobody),
    Reason.CONNECT_TIMEOUT: Case(503, _sent(_PLAIN), ("--connect-timeout", "300ms"), upstream=_silent),
    Reason.UPSTREAM_CLOSED: Case(503, _script("gone"), scripts={"gone": (close,)}),
    Reason.UPSTREAM_PROTOCOL: Case(502, _script("bad"), scripts={"bad": (send(b"HTTP/1.1 2000 OK\r\n\r\n"), hold)}),
    Reason.UPSTREAM_TIMEOUT: Case(504, _script("mute"), _QUICK, scripts={"mute": (hold,)}),
    Reason.UPSTREAM_IDLE: Case(
        0, _script("half"), _QUICK, scripts={"half": (send(ok(b"x" * 100, head_only=True) + b"x"), hold)}
    ),
    Reason.POOL_FULL: Case(503, _behind_a_held_one, ("--max-app-connections", "1", "--max-waiting", "0")),
    Reason.POOL_TIMEOUT: Case(503, _behind_a_held_one, ("--max-app-connections", "1")),
    Reason.MEMORY: Case(0, _short_of_memory, ("--memory-limit", "8MiB")),
    Reason.TOO_MANY_CONNECTIONS: Case(0, _beside_an_idle_one, ("--max-connections", "1")),
    Reason.DRAIN_DEADLINE: Case(0, _drain, ("--drain-seconds", "200ms"), scraped=False),
    Reason.INTERNAL: Case(500, _fault, entry=("-c", _FAULT)),
}
# A connection that ends between two requests fails nobody: there is no request that a record could be of.
QUIET = {Reason.CONNECTION_IDLE}
# What takes a namespace with rules of its own, or a mesh, to come about.
ELSEWHERE = {
    Reason.RBAC_DENIED: "tests/mesh/test_authorization.py",
    Reason.POLICY_CHANGED: "tests/mesh/test_authorization.py",
    Reason.RATE_LIMITED: "tests/proxy/test_rate_limits.py",
    Reason.NOT_REDIRECTED: "tests/netns/test_capture_proxy.py",
    Reason.NOT_THIS_POD: "tests/netns/test_capture_proxy.py",
    Reason.PEER_REFUSED: "tests/mesh/test_cut.py",
    Reason.PLAINTEXT_REFUSED: "tests/netns/test_mesh_documents.py",
    Reason.REVOKED: "tests/mesh/test_cut.py",
    Reason.CERTIFICATE_EXPIRED: "tests/mesh/test_cut.py",
    Reason.ROOT_WITHDRAWN: "tests/mesh/test_cut.py",
    Reason.NO_IDENTITY: "tests/hostile/test_tls_transport.py",
    Reason.UPSTREAM_IDENTITY: "tests/hostile/test_tls_certificates.py",
    Reason.HANDSHAKE_FAILED: "tests/mesh/test_reasons.py",
    Reason.HANDSHAKE_TIMEOUT: "tests/mesh/test_reasons.py",
    Reason.UPSTREAM_HANDSHAKE: "tests/mesh/test_reasons.py",
    Reason.NO_ENDPOINT: "tests/mesh/test_reasons.py",
    Reason.RETRY_BUDGET: "tests/proxy/test_retries.py",
    Reason.NO_CLUSTER: "tests/proxy/test_routes.py",
    Reason.FAULT_INJECTED: "tests/proxy/test_routes.py",
    Reason.NO_CONFIGURATION: "tests/mesh/test_service_entries.py",
}


def test_none_is_forgotten() -> None:
    assert set(CASES) | QUIET | set(ELSEWHERE) == set(Reason)
    assert len(CASES) + len(QUIET) + len(ELSEWHERE) == len(Reason)
    for reason, where in ELSEWHERE.items():
        assert f'"{reason.word}"' in (ROOT / where).read_text(), f"{where} does not look for {reason.word}"


@pytest.mark.parametrize("reason", CASES, ids=lambda reason: reason.word)
def test_a_reason_shows_everywhere(reason: Reason) -> None:
    case = CASES[reason]
    with ExitStack() as stack:
        stage = Stage(stack, case)
        reply = case.act(stage)
        _check_reply(reply, reason, case)
        log = stage.sidecar
        wait_until(
            lambda: any(each["response_code_details"] == reason.word for each in log.log_records()), "the log's line"
        )
        (line,) = [each for each in log.log_records() if each["response_code_details"] == reason.word]
        assert (line["response_flags"], line["direction"]) == (reason.flag, case.direction)
        assert line["response_code"] == (case.status or line["response_code"])
        if case.scraped:
            _check_metrics(stage.sidecar.admin_get("/metrics")[1], reason, case, line["response_code"])
        if reason is Reason.INTERNAL:  # whose traceback no other process may have
            stage.sidecar.terminate()
            assert stage.sidecar.wait_exit() == 0
        stage.go.set()


def _check_reply(reply: Reply | None, reason: Reason, case: Case) -> None:
    if not case.status:
        assert reply is None
        return
    assert reply is not None
    assert (reply.status, reply.get(b"content-type")) == (case.status, [b"application/problem+json"])
    problem = json.loads(reply.body)
    assert (problem["status"], problem["flag"], problem["reason"]) == (case.status, reason.flag, reason.word)
    assert problem["detail"] and problem["request_id"]


def _check_metrics(page: str, reason: Reason, case: Case, code: int) -> None:
    reporter = {"inbound": "destination", "outbound": "source"}[case.direction]
    counted = flagged = 0.0
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            labels = sample.labels
            if sample.name == "sidecar_errors_total" and labels["reason"] == reason.word:
                counted += sample.value if labels["direction"] == case.direction else 0
            ended = sample.name in ("istio_requests_total", "istio_tcp_connections_closed_total")
            if ended and (labels["response_flags"], labels["reporter"]) == (reason.flag, reporter):
                assert labels.get("response_code", "0") == str(code)
                flagged += sample.value
    assert (counted, flagged) == (1, 1)


def test_an_idle_connection_ends_quietly() -> None:
    with RecordingUpstream() as app, SidecarProcess(app.port, "--idle-timeout", "200ms") as sidecar:
        with Client(sidecar.inbound) as client:
            client.send(_PLAIN)
            client.read_to_end()
            assert client.heard.end == "eof"
        wait_until(lambda: len(sidecar.log_records()) == 1, "the request's line")
        assert ask(sidecar.inbound, _PLAIN)[0].status == 200
        wait_until(lambda: len(sidecar.log_records()) == 2, "no line between the two")
        assert [each["response_flags"] for each in sidecar.log_records()] == ["-", "-"]
