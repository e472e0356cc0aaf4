"""Too many connections, too few descriptors, too little memory: what is over the limit is told so, the rest is served,
and everything is as before once there is room again."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.hostile.conftest import PROTOCOLS
from tests.hostile.coverage import covers
from tests.hostile.rig import head_close
from tests.support.process import SidecarProcess
from tests.support.raw import Client, ask, parse_replies
from tests.support.upstream import RecordingUpstream, Step, ok, send, until, wait_until

_PLAIN = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"


@contextmanager
def _sidecar(
    protocol: str, *flags: str, scripts: dict[str, tuple[Step, ...]] | None = None
) -> Iterator[tuple[SidecarProcess, RecordingUpstream]]:
    with (
        RecordingUpstream(scripts) as upstream,
        SidecarProcess(upstream.port, "--protocol", protocol, *flags) as sidecar,
    ):
        yield sidecar, upstream


def _served(sidecar: SidecarProcess) -> bool:
    """Whether a new connection gets a 200 now."""
    try:
        return [reply.status for reply in ask(sidecar.inbound, head_close(b"/"))] == [200]
    except OSError:
        return False


@covers("LIM-7")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_one_connection_too_many(protocol: str) -> None:
    """The cap's connections are served, the next one is refused at once, and there is room again when one ends."""
    with _sidecar(protocol, "--max-connections", "8") as (sidecar, _), ExitStack() as stack:
        clients = [stack.enter_context(Client(sidecar.inbound)) for _ in range(8)]
        for client in clients:
            client.send(_PLAIN)
            assert [reply.status for reply in client.replies((b"GET",), 1)] == [200]
        descriptors = sidecar.descriptors()
        for _ in range(20):
            try:
                replies = ask(sidecar.inbound, _PLAIN)
            except ConnectionError:
                replies = []
            assert [reply.status for reply in replies] in ([503], []), "one more than the cap was served"
        wait_until(lambda: sidecar.descriptors() <= descriptors, "no descriptor is left of those refused")
        for client in clients:
            client.heard.raw.clear()
            client.send(_PLAIN)
            assert [reply.status for reply in client.replies((b"GET",), 1)] == [200], "an old connection was hurt"
        clients[0].sock.close()
        wait_until(lambda: _served(sidecar), "room for a new connection")


@covers("LIM-7")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_descriptors_left(protocol: str) -> None:
    """EMFILE at accept: the loop survives it without spinning, and serves once descriptors are there again."""
    with _sidecar(protocol, "--max-connections", "10000") as (sidecar, _):
        assert _served(sidecar)
        base = sidecar.descriptors()
        sidecar.limit_files(base + 20)
        with ExitStack() as stack:
            clients = [stack.enter_context(Client(sidecar.inbound)) for _ in range(60)]
            wait_until(lambda: sidecar.descriptors() >= base + 18, "every descriptor is taken")
            before = sidecar.cpu_seconds()
            for client in clients[:5]:
                client.send(_PLAIN)
            threading.Event().wait(1.0)  # a span to measure the CPU in, not a wait for anything
            assert sidecar.cpu_seconds() - before < 0.5, "spinning on EMFILE"
        wait_until(lambda: _served(sidecar), "served again")
        wait_until(lambda: sidecar.descriptors() <= base + 5, "the descriptors are back")
        _, page = sidecar.admin_get("/stats/prometheus")
        assert re.search(r"^sidecar_accept_errors\S* [1-9]", page, re.MULTILINE), "accept never failed"


@covers("LIM-7")
def test_descriptors_are_back_after_a_thousand_connections(protocol: str) -> None:
    with _sidecar(protocol) as (sidecar, _):
        assert _served(sidecar)
        base, tasks = sidecar.descriptors(), sidecar.memory()["tasks"]
        for index in range(1000):
            with socket.create_connection(("127.0.0.1", sidecar.inbound)) as sock:
                if index % 3 == 0:
                    sock.sendall(b"GET / HT")
                elif index % 3 == 1:
                    sock.sendall(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n")
        wait_until(lambda: sidecar.descriptors() <= base and sidecar.memory()["tasks"] <= tasks, "all is back")


@covers("LIM-8")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_above_the_memory_limit(protocol: str) -> None:
    """With work under way nothing more is taken on: 503 with `retry-after`, or no connection at all; what was under way
    ends well; an idle process admits again."""
    go = threading.Event()
    scripts: dict[str, tuple[Step, ...]] = {"held": (until(go), send(ok()))}
    with _sidecar(protocol, "--memory-limit", "8MiB", scripts=scripts) as (sidecar, upstream):
        wait_until(lambda: _state(sidecar) == "refusing", "the guard has seen it")
        with Client(sidecar.inbound, deadline=20) as held:
            held.send(b"GET /script/held HTTP/1.1\r\nHost: app\r\n\r\n")
            wait_until(lambda: any(c.requests for c in upstream.live()), "an idle process admits the first one")
            for _ in range(5):
                try:
                    replies = ask(sidecar.inbound, _PLAIN)
                except ConnectionError:
                    replies = []
                assert [reply.status for reply in replies] in ([503], [])
                assert all(reply.get(b"retry-after") for reply in replies)
            assert sum(len(c.requests) for c in upstream.live()) == 1
            go.set()
            assert [reply.status for reply in held.replies((b"GET",), 1)] == [200]
        wait_until(lambda: _served(sidecar), "an idle process admits some")


@covers("LIM-8")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_memory_comes_and_goes(protocol: str) -> None:
    """Four hundred half heads of 30 KiB bring the process over its limit: a request on a connection from before gets
    503 with `retry-after`. Once they are gone it serves as ever."""
    limit = int(_usual_memory(protocol) / 0.70)
    go = threading.Event()
    scripts: dict[str, tuple[Step, ...]] = {"held": (until(go), send(ok()))}
    with (
        _sidecar(protocol, "--memory-limit", str(limit), scripts=scripts) as (sidecar, upstream),
        Client(sidecar.inbound, deadline=30) as held,
        Client(sidecar.inbound, deadline=30) as other,
    ):
        other.send(_PLAIN)
        assert [reply.status for reply in other.replies((b"GET",), 1)] == [200]
        held.send(b"GET /script/held HTTP/1.1\r\nHost: app\r\n\r\n")
        wait_until(lambda: sum(len(c.requests) for c in upstream.live()) == 2, "the held request is at the app")
        assert _state(sidecar) == "normal"
        with ExitStack() as stack:
            for _ in range(400):
                client = stack.enter_context(Client(sidecar.inbound))
                client.send(b"GET / HTTP/1.1\r\nHost: app\r\n" + (b"X: " + b"a" * 3000 + b"\r\n") * 10)
            wait_until(lambda: _state(sidecar) == "refusing", "the guard has seen it")
            other.heard.raw.clear()
            other.send(_PLAIN)
            replies = other.replies((b"GET",), 1)
            assert [reply.status for reply in replies] == [503]
            assert replies[0].get(b"retry-after")
        go.set()
        assert [reply.status for reply in held.replies((b"GET",), 1)] == [200]
        wait_until(lambda: _state(sidecar) == "normal", "below 85 % it is normal again")
        assert _served(sidecar)


def _usual_memory(protocol: str) -> int:
    """Resident bytes of a process that has served a few requests."""
    with _sidecar(protocol) as (sidecar, _):
        for _ in range(20):
            assert _served(sidecar)
        sidecar.memory()
        return int(sidecar.memory()["rss_bytes"])


def _state(sidecar: SidecarProcess) -> str:
    return str(sidecar.memory()["guard"]["state"])


@covers("LIM-8")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_near_the_limit_keep_alive_goes_off(protocol: str) -> None:
    limit = int(_usual_memory(protocol) / 0.937)
    with _sidecar(protocol, "--memory-limit", str(limit)) as (sidecar, _):
        for _ in range(20):
            _served(sidecar)
        wait_until(lambda: _state(sidecar) == "keepalive_off", "between 92 % and 95 %")
        with Client(sidecar.inbound) as client:
            client.send(_PLAIN)
            client.read_to_end()
            replies = parse_replies(client.heard.raw, (b"GET",), ended=True)
            assert [(reply.status, reply.closes) for reply in replies] == [(200, True)]
