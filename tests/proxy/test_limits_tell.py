"""Each limit that is reached shows, through the real process: as a number, as a response flag, in the access log, in
the list of requests, and on standard error, once in 10 s however often it happens."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.support.process import SidecarProcess
from tests.support.raw import Client, Reply, ask
from tests.support.upstream import RecordingUpstream, Step, ok, send, until, wait_until

_PLAIN = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"
_CLOSING = b"GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n"


@contextmanager
def sidecar(*flags: str) -> Iterator[tuple[SidecarProcess, RecordingUpstream, threading.Event]]:
    """A process in front of an app that holds /script/held back until the event."""
    go = threading.Event()
    scripts: dict[str, tuple[Step, ...]] = {"held": (until(go), send(ok()))}
    with RecordingUpstream(scripts) as upstream, SidecarProcess(upstream.port, "--protocol", "http", *flags) as process:
        try:
            yield process, upstream, go
        finally:
            go.set()


def hold(process: SidecarProcess, upstream: RecordingUpstream, stack: ExitStack) -> Client:
    """A request that is at the app and stays there."""
    client: Client = stack.enter_context(Client(process.inbound, deadline=20))
    client.send(b"GET /script/held HTTP/1.1\r\nHost: app\r\n\r\n")
    wait_until(lambda: any(c.requests for c in upstream.live()), "the held request is at the app")
    return client


def number(process: SidecarProcess, name: str) -> float:
    """The number of the line of /stats that the filter finds, which has to be one."""
    status, text = process.admin_get(f"/stats?filter={name}")
    lines = text.splitlines()
    assert status == 200 and len(lines) == 1, (name, lines)
    return float(lines[0].rpartition(": ")[2])


def check_told(process: SidecarProcess, reason: str, flag: str, count: int) -> None:
    """Everywhere where somebody may look."""
    wait_until(
        lambda: [line["response_code_details"] for line in process.log_records()].count(reason) == count,
        f"{count} records of {reason} in the access log",
    )
    assert {r["response_flags"] for r in process.log_records() if r["response_code_details"] == reason} == {flag}
    assert number(process, f"^sidecar_errors_total.*inbound.*%22{reason}%22") == count
    rows = json.loads(process.admin_get(f"/requests?format=json&reason={reason}")[1])
    assert [row["flag"] for row in rows] == [flag] * count
    wait_until(lambda: bool(warnings(process, reason)), f"a warning that says {reason}")
    assert len(warnings(process, reason)) == 1, process.errors
    assert f" ({flag}): " in warnings(process, reason)[0]


def refused_connection(process: SidecarProcess) -> None:
    """One more, which is reset at once."""
    with (
        pytest.raises(ConnectionResetError),
        socket.create_connection(("127.0.0.1", process.inbound), timeout=10) as sock,
    ):
        sock.recv(1)


def warnings(process: SidecarProcess, reason: str) -> list[str]:
    return [line for line in process.errors if line.startswith(f"sidecar: warning: {reason} (")]


def refusal(replies: list[Reply]) -> tuple[int, str]:
    """The status of the one reply, and the flag that its body names."""
    (reply,) = replies
    return reply.status, json.loads(reply.body)["flag"]


def test_max_connections() -> None:
    with sidecar("--max-connections", "4") as (process, _, _), ExitStack() as stack:
        for client in [stack.enter_context(Client(process.inbound)) for _ in range(4)]:
            client.send(_PLAIN)
            assert [reply.status for reply in client.replies((b"GET",), 1)] == [200]
        for _ in range(20):
            refused_connection(process)
        assert number(process, "^sidecar_connections_refused_total") == 20
        assert number(process, "^sidecar_connections_limit") == 4
        assert number(process, "^sidecar_connections_active") == 4
        assert number(process, "^istio_tcp_connections_closed_total.*%22DO%22") == 20
        check_told(process, "too_many_connections", "DO", 20)


def test_the_pool_is_full_and_so_is_its_queue() -> None:
    with sidecar("--max-app-connections", "1", "--max-waiting", "0") as (process, upstream, _), ExitStack() as stack:
        hold(process, upstream, stack)
        for _ in range(5):
            assert refusal(ask(process.inbound, _CLOSING)) == (503, "UO")
        assert number(process, "^sidecar_pool_open_connections.*%22inbound%22") == 1
        assert number(process, "^sidecar_pool_limit_connections.*%22inbound%22") == 1
        assert "::last_failure::pool_full: 0 requests wait" in process.admin_get("/clusters")[1]
        check_told(process, "pool_full", "UO", 5)


def test_none_of_the_pool_became_free_in_time() -> None:
    with sidecar("--max-app-connections", "1") as (process, upstream, _), ExitStack() as stack:
        hold(process, upstream, stack)
        waiting = [stack.enter_context(Client(process.inbound, deadline=20)) for _ in range(3)]
        for client in waiting:
            client.send(_CLOSING)
        wait_until(lambda: number(process, "^sidecar_pool_waiting_requests.*%22inbound%22") == 3, "three are waiting")
        assert "::waiting::3" in process.admin_get("/clusters")[1]
        for client in waiting:
            assert refusal(client.replies((b"GET",), 1)) == (503, "UO")
        assert number(process, "^sidecar_pool_waits_total") == 3
        check_told(process, "pool_timeout", "UO", 3)


def test_near_the_memory_limit() -> None:
    with sidecar("--memory-limit", "8MiB") as (process, upstream, _), ExitStack() as stack:
        wait_until(lambda: number(process, "^sidecar_memory_pressure") == 2, "the guard has seen it")
        hold(process, upstream, stack)
        for _ in range(5):
            refused_connection(process)  # while there is another one, the first was let in
        assert number(process, "^sidecar_memory_limit_bytes") == 8 * 1024 * 1024
        assert number(process, "^sidecar_memory_used_bytes") > 8 * 1024 * 1024
        assert [line for line in process.errors if re.match(r"sidecar: warning: memory refusing: \d+ of 8388608", line)]
        check_told(process, "memory", "OM", 5)


def test_no_descriptors_left() -> None:
    with sidecar("--max-connections", "10000") as (process, _, _):
        assert [reply.status for reply in ask(process.inbound, _CLOSING)] == [200]
        process.limit_files(process.descriptors() + 5)
        with ExitStack() as stack:
            for _ in range(20):
                stack.enter_context(Client(process.inbound))
            wait_until(
                lambda: any(line.startswith("sidecar: warning: accept_errors: ") for line in process.errors),
                "a warning on standard error",
            )
        wait_until(lambda: number(process, "^sidecar_accept_errors_total") > 0, "a number")


@pytest.mark.parametrize(
    ("flags", "request_", "reason", "flag", "status"),
    [
        (
            ("--max-body", "10"),
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n",
            "body_too_large",
            "DPE",
            413,
        ),
        ((), b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", "head_too_large", "DPE", 431),
        (("--request-head-timeout", "200ms"), b"GET / HTTP/1.1\r\nHost: a\r\n", "head_timeout", "DPE", 408),
    ],
)
def test_limits_of_one_request(flags: tuple[str, ...], request_: bytes, reason: str, flag: str, status: int) -> None:
    with sidecar(*flags) as (process, _, _), Client(process.inbound) as client:
        client.send(request_)
        assert refusal(client.replies((b"GET",), 1)) == (status, flag)
        wait_until(lambda: bool(process.log_records()), "the access log has it")
        (record,) = process.log_records()
        assert (record["response_code_details"], record["response_flags"]) == (reason, flag)
        assert number(process, f"^sidecar_errors_total.*inbound.*%22{reason}%22") == 1
