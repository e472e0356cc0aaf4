"""UPS: an app that answers wrongly, not at all, or too much. Its client gets a 502 or 503, or a reply that is visibly
cut; never another client's bytes, never a reply made of two."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.hostile.cases.ups import ANSWERS, Answer
from tests.hostile.conftest import PROTOCOLS
from tests.hostile.coverage import covers
from tests.hostile.rig import Rig, head_close
from tests.support.process import SidecarProcess
from tests.support.raw import Client, Reply, ask, parse_replies
from tests.support.upstream import Connection, RecordingUpstream, Step, close, hold, reset, send, split, wait_until

_THEN: dict[str, tuple[Step, ...]] = {"keep": (), "close": (close,), "reset": (reset,)}


_SAID: dict[str, threading.Event] = {}


def _script(answer: Answer, way: str) -> tuple[Step, ...]:
    """The answer's steps as one, after which all is said: a connection may be judged by what came before it is used
    again, never by what comes while the next answer is waited for."""
    first = send(answer.send) if way == "whole" else split(answer.send, 0.0)
    steps = (first, *_THEN[answer.then]) if answer.send else _THEN[answer.then]
    said = _SAID.setdefault(f"{answer}-{way}", threading.Event())

    def say(connection: Connection) -> bool:
        try:
            return all(step(connection) for step in steps)
        finally:
            said.set()

    return (say,)


@pytest.fixture(scope="module", params=PROTOCOLS)
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    scripts = {f"{answer}-{way}": _script(answer, way) for answer in ANSWERS for way in ("whole", "bytes")}
    with Rig(
        "main", str(request.param), "--connect-timeout", "1s", "--stream-idle-timeout", "5s", scripts=scripts
    ) as rig:
        yield rig


def _ask(rig: Rig, answer: Answer, way: str) -> tuple[list[Reply], str]:
    method = answer.request.split(b" ", 1)[0]
    _SAID[f"{answer}-{way}"].clear()
    with Client(rig.sidecar.inbound) as client:
        client.send(answer.request.replace(b"@", f"{answer}-{way}".encode()))
        replies = client.replies((method,), 1)
        assert _SAID[f"{answer}-{way}"].wait(10), "the app did not come to its end"
        assert replies, f"no reply: {bytes(client.heard.raw[:200])!r} then {client.heard.end}"
        if not replies[0].closes and client.heard.end == "open":
            client.send(head_close(b"/after"))
            client.read_to_end()
            replies = parse_replies(client.heard.raw, (method, b"GET"), ended=True)
        return replies, client.heard.end


@pytest.mark.parametrize("answer", ANSWERS, ids=str)
def test_what_the_client_gets(answer: Answer, rig: Rig) -> None:
    for way in ("whole",) if len(answer.send) > 2000 else ("whole", "bytes"):
        rig.take()
        replies, _ = _ask(rig, answer, way)
        first = replies[0]
        told = f"{answer} {way}: the app said {answer.send[:300]!r}, the client got {replies!r}"
        assert first.status in answer.statuses, told
        if first.status < 300 and answer.cut:
            assert not first.complete and len(replies) == 1, f"not visibly cut: {told}"
        elif first.status < 500:
            assert first.complete, told
            assert answer.body is None or first.body == answer.body, told
            for reply in replies[1:]:
                assert (reply.status, reply.body) == (200, b"GET /after 0"), told
        assert not first.interim or len(first.interim) <= 10, told
        seen = rig.upstream.take()
        tried = [request for request in seen.requests if request.target.startswith(b"/script/")]
        assert 1 <= len(tried) <= 3, f"{len(tried)} tries"
        if not answer.reused:
            used = {request.connection for request in tried}
            rig.sentinel()
            rig.sentinel()
            again = {request.connection for request in rig.upstream.take().requests}
            assert not used & again, f"the connection was used again: {told}"
            wait_until(
                lambda used=used: not any(c.number in used for c in rig.upstream.live()),  # type: ignore[misc]
                f"the connection to the app is closed after {answer}",
            )


def test_a_reused_connection_is_really_reused(rig: Rig) -> None:
    """So that the test above can fail: after a good answer the next request takes the same connection."""
    rig.take()
    _ask(rig, next(answer for answer in ANSWERS if answer.name == "good"), "whole")
    rig.sentinel()
    assert len({request.connection for request in rig.upstream.take().requests}) == 1


@covers("UPS-8")
def test_no_app_is_503(protocol: str, rigs: Callable[[str, str], Rig]) -> None:
    rig = rigs("dead", protocol)
    replies = ask(rig.sidecar.inbound, head_close(b"/dead-app"))
    assert [reply.status for reply in replies] == [503]
    wait_until(
        lambda: any(r["path"] == "/dead-app" and r["response_flags"] == "UF" for r in rig.sidecar.log_records()),
        "a line with flag UF",
    )


@covers("UPS-8")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_app_that_does_not_accept_times_out(protocol: str) -> None:
    """A listener whose queue is full drops SYNs: a black hole on loopback."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        fillers = []
        for _ in range(8):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
            fillers.append(filler)
        try:
            with SidecarProcess(
                listener.getsockname()[1], "--protocol", protocol, "--connect-timeout", "500ms"
            ) as sidecar:
                replies = ask(sidecar.inbound, head_close(b"/"))
                assert [reply.status for reply in replies] in ([503], [504])
        finally:
            for filler in fillers:
                filler.close()


@covers("UPS-8")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_reset_after_accept_is_told_and_bounded(protocol: str) -> None:
    """502 or 503; a POST is sent once at most."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepted: list[bytes] = []

        def serve() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                accepted.append(sock.recv(65536) if len(accepted) >= 5 else b"")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with SidecarProcess(listener.getsockname()[1], "--protocol", protocol) as sidecar:
            for _ in range(5):
                assert ask(sidecar.inbound, head_close(b"/"))[0].status in (502, 503)
            assert len(accepted) <= 15
            accepted.extend([b""] * 5)
            before = len(accepted)
            post = b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
            assert ask(sidecar.inbound, post)[0].status in (502, 503)
            assert sum(b"POST" in data for data in accepted[before:]) <= 1
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@covers("UPS-8")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_closed_pooled_connection_is_replaced_for_get_never_for_post(protocol: str) -> None:
    """The app closes after each second request without a byte: GET is tried once more, POST is not."""
    scripts: dict[str, tuple[Step, ...]] = {"gone": (close,)}
    with RecordingUpstream(scripts) as upstream, SidecarProcess(upstream.port, "--protocol", protocol) as sidecar:
        for method, body in ((b"GET", b""), (b"POST", b"Content-Length: 5\r\n")):
            assert ask(sidecar.inbound, head_close(b"/warm"))[0].status == 200
            upstream.take()
            data = method + b" /script/gone HTTP/1.1\r\nHost: app\r\nConnection: close\r\n" + body + b"\r\n"
            replies = ask(sidecar.inbound, data + (b"hello" if body else b""), (method,))
            assert [reply.status for reply in replies] in ([502], [503])
            tries = [request for request in upstream.take().requests if request.method == method]
            assert len(tries) == (2 if method == b"GET" else 1), f"{method!r}: {len(tries)} tries"


@covers("UPS-9")
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_slow_app_fails_fast_for_those_who_wait(protocol: str) -> None:
    """Two connections to the app, four places to wait: of forty requests two are held by the app, the rest get 503."""
    go = threading.Event()
    scripts: dict[str, tuple[Step, ...]] = {
        "slow": (lambda _: go.wait(30), send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
    }
    flags = ("--protocol", protocol, "--max-app-connections", "2", "--max-waiting", "4")
    with RecordingUpstream(scripts) as upstream, SidecarProcess(upstream.port, *flags) as sidecar:
        clients = [Client(sidecar.inbound, deadline=20) for _ in range(40)]
        for client in clients:
            client.send(head_close(b"/script/slow"))
        wait_until(lambda: len(upstream.live()) >= 2, "two connections to the app")
        wait_until(lambda: sum(_refused(client) for client in clients) == 38, "38 refusals", 10)
        assert len(upstream.live()) == 2, "more connections to the app than allowed"
        go.set()
        for client in clients:
            client.read_to_end()
        statuses = [parse_replies(c.heard.raw, (b"GET",), ended=True)[0].status for c in clients]
        assert sorted(statuses) == [200] * 2 + [503] * 38
        for client in clients:
            client.sock.close()
        assert ask(sidecar.inbound, head_close(b"/"))[0].status == 200
        wait_until(lambda: len(sidecar.log_records()) >= 41, "a line for each")
        flags_seen = {str(r["response_flags"]) for r in sidecar.log_records() if r["response_code"] == 503}
        assert flags_seen == {"UO"}


def _refused(client: Client) -> bool:
    """Whether this client has a 503 by now; reads what is there without waiting."""
    client.sock.setblocking(False)
    try:
        while data := client.sock.recv(65536):
            client.heard.raw += data
    except OSError:
        pass
    return client.heard.raw.startswith(b"HTTP/1.1 503 ")


@covers("UPS-8")
def test_a_hung_app_is_given_up(protocol: str) -> None:
    """An app that takes the request and never answers: 504 after the stream's idle time."""
    scripts: dict[str, tuple[Step, ...]] = {"hung": (hold,)}
    with (
        RecordingUpstream(scripts) as upstream,
        SidecarProcess(upstream.port, "--protocol", protocol, "--stream-idle-timeout", "500ms") as sidecar,
    ):
        replies = ask(sidecar.inbound, head_close(b"/script/hung"))
        assert [reply.status for reply in replies] in ([503], [504])
        wait_until(lambda: not upstream.live(), "the connection to the app is closed")
