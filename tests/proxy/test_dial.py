"""Dialing real sockets: options, failures, and the race for the address that answers."""

from __future__ import annotations

import resource
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
import trio.testing

from sidecar.errors import ProxyError, Reason
from sidecar.net.connection import NEVER, Connection
from sidecar.net.dial import dial, dial_unix
from tests.proxy.ends import descriptors, full_listener, sweeping
from tests.support.ports import held_port


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


async def failure(addresses: list[str], port: int, seconds: float = 5.0) -> ProxyError:
    registry: set[Connection] = set()
    before = descriptors()
    async with sweeping(registry):
        with pytest.raises(ProxyError) as caught:
            await dial(addresses, port, timeout=seconds, registry=registry)
    assert not registry
    assert descriptors() == before
    return caught.value


async def test_connected_with_its_options_and_without_a_deadline(listening):
    registry: set[Connection] = set()
    connection = await dial(["127.0.0.1"], listening, timeout=5, registry=registry)
    assert registry == {connection}
    assert connection.deadline == NEVER
    assert connection.peer == f"127.0.0.1:{listening}"
    assert connection.plain.getpeername() == ("127.0.0.1", listening)
    assert not connection.plain.getblocking()
    assert connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert connection.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
    assert connection.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 300_000
    connection.close()


async def test_refused():
    with held_port() as port:
        error = await failure(["127.0.0.1"], port)
    assert error.reason is Reason.CONNECT_FAILED
    assert error.detail == f"127.0.0.1:{port}: connection refused"


async def test_a_black_hole_ends_at_the_timeout():
    with full_listener() as port:
        error = await failure(["127.0.0.1"], port, 0.1)
    assert error.reason is Reason.CONNECT_TIMEOUT
    assert error.detail == f"127.0.0.1:{port}: no answer within 0.1 s"


async def test_two_black_holes_end_at_one_timeout():
    with full_listener() as port:
        took = []
        for addresses in (["127.0.0.1"], ["127.0.0.1", "127.0.0.1"]):
            began = trio.current_time()
            assert (await failure(addresses, port, 1.5)).reason is Reason.CONNECT_TIMEOUT
            took.append(trio.current_time() - began)
    one, two = took
    assert two < 1.7 * one


async def test_no_address():
    assert (await failure([], 80)).reason is Reason.CONNECT_FAILED


async def test_an_address_that_refuses_is_passed_over_at_once(listening, monkeypatch):
    monkeypatch.setattr("sidecar.net.dial.ATTEMPT_DELAY", 60.0)
    registry: set[Connection] = set()
    with trio.fail_after(10):
        connection = await dial(["127.0.0.2", "::1", "127.0.0.1"], listening, timeout=200, registry=registry)
    assert connection.peer == f"127.0.0.1:{listening}"
    connection.close()


async def test_the_second_address_starts_while_the_first_is_silent():
    with held_port() as port, full_listener("127.0.0.2", port), socket.create_server(("127.0.0.1", port)):
        registry: set[Connection] = set()
        before = descriptors()
        began = trio.current_time()
        with trio.fail_after(30):
            connection = await dial(["127.0.0.2", "127.0.0.1"], port, timeout=200, registry=registry)
        assert trio.current_time() - began > 0.2
        assert connection.peer == f"127.0.0.1:{port}"
        assert registry == {connection}
        connection.close()
        assert descriptors() == before


async def test_the_first_still_wins_when_the_second_refuses():
    with full_listener("127.0.0.2") as port:
        registry: set[Connection] = set()
        async with sweeping(registry):
            with pytest.raises(ProxyError) as caught:
                await dial(["127.0.0.2", "127.0.0.1"], port, timeout=0.6, registry=registry)
    assert caught.value.reason is Reason.CONNECT_TIMEOUT
    assert not registry


@pytest.mark.parametrize("addresses", [["127.0.0.2"], ["127.0.0.2", "127.0.0.2"]])
async def test_cancelling_leaves_nothing(addresses):
    with full_listener("127.0.0.2") as port:
        registry: set[Connection] = set()
        before = descriptors()
        async with trio.open_nursery() as nursery:

            async def run() -> None:
                await dial(addresses, port, timeout=5, registry=registry)

            nursery.start_soon(run)
            await trio.testing.wait_all_tasks_blocked()
            assert registry
            nursery.cancel_scope.cancel()
        assert not registry
        assert descriptors() == before


@pytest.mark.parametrize("addresses", [["127.0.0.2"], ["127.0.0.2", "127.0.0.2"]])
async def test_somebody_elses_reason_is_kept(addresses):
    with full_listener("127.0.0.2") as port:
        registry: set[Connection] = set()
        reasons = []

        async def run() -> None:
            try:
                await dial(addresses, port, timeout=0.6, registry=registry)
            except ProxyError as error:
                reasons.append(error.reason)

        async with sweeping(registry), trio.open_nursery() as nursery:
            nursery.start_soon(run)
            await trio.testing.wait_all_tasks_blocked()
            while not reasons:
                for connection in list(registry):
                    connection.expire(Reason.DRAIN_DEADLINE)
                await trio.sleep(0.01)
        assert reasons == [Reason.DRAIN_DEADLINE]


async def test_no_descriptor_left(listening):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = socket.socket()
    lowest_free = spare.fileno()
    spare.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, hard))
    try:
        with pytest.raises(ProxyError) as caught:
            await dial(["127.0.0.1"], listening, timeout=5, registry=set())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.reason is Reason.CONNECT_FAILED
    assert "this proxy has no descriptor or memory left" in caught.value.detail


async def test_a_unix_socket_is_there_at_once_or_not_at_all(tmp_path: Path) -> None:
    path, registry = tmp_path / "api.sock", set[Connection]()
    before = descriptors()

    def refusal() -> str:
        with pytest.raises(ProxyError) as caught:
            dial_unix(str(path), "api", registry)
        assert caught.value.reason is Reason.CONNECT_FAILED
        return caught.value.detail

    assert refusal() == "api: no such file or directory"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        assert refusal() == "api: connection refused"
        listener.listen(0)
        connection = dial_unix(str(path), "api", registry)
        assert refusal() == "api: resource temporarily unavailable"  # nobody accepts, and one may wait
        assert registry == {connection} and connection.peer == "api"
        served, _ = listener.accept()
        with served:
            await connection.send_all(b"ping")
            assert served.recv(10) == b"ping"
            served.sendall(b"pong")
            assert await connection.recv() == b"pong"
        connection.close()
    assert not registry
    assert descriptors() == before
