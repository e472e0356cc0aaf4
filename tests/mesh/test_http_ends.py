"""Ends of exchanges through both sidecars: who leaves, who dies, what is whole and what was cut, and what goes on."""

from __future__ import annotations

import functools
import socket
import ssl
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mesh.stage import Stage, asked, at_rest, fields, request, switched
from tests.support.member import Shop
from tests.support.papers import Authority
from tests.support.raw import Client, parse_replies
from tests.support.secure import SecureServer, server_context
from tests.support.upstream import wait_until

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_BEGUN = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf"
BLOCK = bytes(1 << 16)


# -- one connection, many requests -------------------------------------------------------------------------------------


def test_pipelined_requests_are_answered_in_their_order(stage: Stage) -> None:
    """Of every kind, in one write; the next one reaches the app when it has answered the one before."""
    all_of_them = [
        (b"GET", request(b"/p/0")),
        (b"POST", request(b"/p/1", b"Content-Length: 5", method=b"POST", body=b"hello")),
        (b"HEAD", request(b"/p/2", method=b"HEAD")),
        (b"POST", request(b"/p/3", b"Transfer-Encoding: chunked", method=b"POST", body=b"3\r\nabc\r\n0\r\n\r\n")),
        (b"GET", request(b"/p/4", b"Connection: close")),
    ]
    with stage.client() as client:
        client.say(b"".join(each for _, each in all_of_them))
        with stage.app() as app:
            for number, (method, _) in enumerate(all_of_them):
                came = app.hears_request()
                assert (came.method, came.target) == (method, b"/p/%d" % number)
                body = b"%d:%b" % (number, came.body)
                app.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
                app.say(body if method != b"HEAD" else b"")
            heard, end = client.hears_out()
    replies = parse_replies(heard, [method for method, _ in all_of_them], ended=True)
    assert [each.body for each in replies] == [b"0:", b"1:hello", b"", b"3:abc", b"4:"]
    assert end == "eof" and replies[-1].closes


def test_an_idle_connection_is_used_again_and_not_one_that_has_ended(stage: Stage) -> None:
    def handshakes() -> str:
        _, page = stage.shop.web.admin_get("/metrics")
        (line,) = [each for each in page.splitlines() if each.startswith('sidecar_tls_handshakes_total{outcome="ok"}')]
        return line

    with stage.client() as client:
        with asked(stage, client, b"/idle/1") as app:
            app.say(_OK)
            client.hears(_OK)
            before = handshakes()
            client.say(request(b"/idle/2"))
            app.hears_request()
            app.say(_OK)
            client.hears(_OK)
        client.say(request(b"/idle/3", b"Content-Length: 2", method=b"POST", body=b"hi"))  # the app has closed its own
        with stage.app() as app:
            assert app.hears_request().body == b"hi"
            app.say(_OK)
            client.hears(_OK)
    assert handshakes() == before
    reused = [tuple(each["connection_reused"] for each in stage.records(b"/idle/%d" % n)) for n in (2, 3)]
    assert reused == [(True, True), (True, False)]


def test_a_connection_that_web_ends_when_idle_costs_no_request() -> None:
    """Its close_notify comes while nobody reads there; even a POST, which is never sent twice, is safe."""
    with Stage(web_flags=("--idle-timeout", "0.2s")) as stage, stage.client() as client:
        for number in range(2):
            client.say(request(b"/kept/%d" % number, b"Content-Length: 2", method=b"POST", body=b"hi"))
            with stage.app() as app:
                app.hears_request()
                app.say(_OK)
                client.hears(_OK)
            wait_until(lambda: _open_connections(stage) == 0, "web has ended it")
        for number in range(2):
            caller, web = stage.records(b"/kept/%d" % number)
            assert (caller["response_code"], caller["connection_reused"], caller["attempts"]) == (200, False, 1)
            assert web["response_code"] == 200


def _open_connections(stage: Stage) -> int:
    _, page = stage.shop.web.admin_get("/metrics")
    (line,) = [each for each in page.splitlines() if each.startswith('sidecar_connections_open{direction="inbound"}')]
    return int(float(line.split()[-1]))


# -- clients that leave ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["close", "reset", "FIN"])
@pytest.mark.parametrize("begun", [False, True], ids=["before the answer", "within it"])
def test_a_client_that_leaves(stage: Stage, how: str, begun: bool) -> None:
    """The app hears of it, though nothing is sent any more; and nothing of it is left in either sidecar."""
    path = b"/leaves/%b/%d" % (how.encode(), begun)
    with stage.client() as client, asked(stage, client, path) as app:
        if begun:
            app.say(_BEGUN)
            client.hears(_BEGUN)
        {"close": client.sock.close, "reset": client.reset, "FIN": client.finish}[how]()
        assert app.hears_end() in ("eof", "reset")
        assert stage.said(path) == [(200 if begun else 0, "DC", 0, 4 if begun else 0)] * 2
        for member in (stage.shop.caller, stage.shop.web):
            wait_until(functools.partial(at_rest, member), "nothing is left of it")


def test_a_client_that_leaves_while_much_is_under_way(stage: Stage) -> None:
    with stage.client(receive_buffer=65_536) as client, asked(stage, client, b"/leaves/much") as app:
        with app.saying(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"10000\r\n%b\r\n" % BLOCK * 1000):
            client.hears_head()
            client.take(100_000)
            client.sock.close()
    for each in stage.said(b"/leaves/much"):
        assert each[:2] == (200, "DC") and 65_536 < each[3] < 1000 * len(BLOCK)


# -- sidecars that die -------------------------------------------------------------------------------------------------


def test_web_dies() -> None:
    """What has begun is broken off, an answer that has not is 503, and so is what comes after."""
    with Stage() as stage, stage.client() as first, stage.client() as second, switched(stage, b"/talk") as (talk, echo):
        talk.say(b"half")
        echo.hears(b"half")
        with asked(stage, first, b"/warm") as app, asked(stage, second, b"/begun") as other:
            app.say(_OK)
            first.hears(_OK)
            first.say(request(b"/awaited", b"Content-Length: 2", method=b"POST", body=b"hi"))
            app.hears_request()
            other.say(_BEGUN)
            second.hears(_BEGUN)
            stage.shop.web.process.kill()
            stage.shop.web.wait_exit()
            assert (second.hears_end(), talk.hears_end()) == ("reset", "reset")
            assert first.hears_reply().status == 503
        with stage.client() as third:
            third.say(request(b"/after"))
            assert third.hears_reply().status == 503
        expected = {b"/talk": (101, "UC"), b"/begun": (200, "UC"), b"/awaited": (503, "UC"), b"/after": (503, "UF,URX")}
        records = {path: stage.record(stage.shop.caller, path) for path in expected}
    assert {path: (each["response_code"], each["response_flags"]) for path, each in records.items()} == expected
    assert (records[b"/talk"]["bytes_received"], records[b"/begun"]["bytes_sent"]) == (4, 4)


def test_the_callers_sidecar_dies() -> None:
    """A request that was cut is never whole, and its answer is for nobody."""
    with Stage() as stage, stage.client() as client, switched(stage, b"/talk") as (talk, echo):
        talk.say(b"half")
        echo.hears(b"half")
        client.say(request(b"/cut", b"Transfer-Encoding: chunked", method=b"POST", body=b"4\r\nhalf\r\n"))
        with stage.app() as app:
            app.hears_head()
            app.hears(b"4\r\nhalf\r\n")
            stage.shop.caller.process.kill()
            stage.shop.caller.wait_exit()
            assert echo.hears_end() == "reset"
            assert app.hears_out()[0] == b""
        for path, code in ((b"/talk", 101), (b"/cut", 0)):
            record = stage.record(stage.shop.web, path)
            assert (record["response_code"], record["response_flags"], record["bytes_received"]) == (code, "DC", 4)


# -- what is whole -----------------------------------------------------------------------------------------------------

_ANSWERS = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    "until-close": b"HTTP/1.1 200 OK\r\n\r\nhalf",
}


def _answer(tls: ssl.SSLSocket) -> None:
    """A peer that is not ours, and ends as its path says: with a close_notify, a FIN alone, or a reset."""
    _, framing, end, pieces = tls.recv(65536).split(b" ")[1].decode().split("/")[:4]
    tls.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # else a reset would destroy what it has said
    answer = _ANSWERS[framing]
    for at in range(0, len(answer), size := 1 if pieces == "bytes" else len(answer)):
        tls.sendall(answer[at : at + size])
    if end == "notify":
        tls.settimeout(0)
        try:
            tls.unwrap()
        except (ssl.SSLWantReadError, OSError):
            pass
    elif end == "reset":
        tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.fixture(scope="module")
def foreign() -> Iterator[Shop]:
    """A shop in which another TLS library than ours answers for web."""
    with tempfile.TemporaryDirectory(prefix="foreign-") as directory:
        authority = Authority(Path(directory))
        papers = authority.issue("web")
        context = server_context(papers.key, papers.chain, papers.roots)
        with SecureServer(context, _answer) as server, Shop(endpoint=server.port, authority=authority) as shop:
            yield shop


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("end", ["notify", "fin", "reset"])
@pytest.mark.parametrize("framing", _ANSWERS)
def test_only_a_close_notify_is_the_end_of_an_answer_until_close(
    foreign: Shop, framing: str, end: str, version: str
) -> None:
    with Client(foreign.caller.outbound) as client:
        client.send(request(f"/{framing}/{end}/whole/{version}".encode(), version=b"HTTP/" + version.encode()))
        whole = (framing, end) == ("until-close", "notify")
        if whole and version == "1.1":
            (reply,) = client.replies((b"GET",), 1)
        else:
            client.read_to_end()
            (reply,) = parse_replies(client.heard.raw, (b"GET",), ended=True)
            assert client.heard.end == ("eof" if whole else "reset")
    assert reply.body == b"half" and (reply.complete or not whole)
    record = foreign.caller.record_of(client.heard.port)
    assert (record["response_code"], record["response_flags"], record["bytes_sent"]) == (200, "-" if whole else "UC", 4)


def test_each_byte_may_have_a_record_of_its_own(foreign: Shop) -> None:
    with Client(foreign.caller.outbound) as client:
        client.send(request(b"/until-close/notify/bytes"))
        (reply,) = client.replies((b"GET",), 1)
    assert (reply.status, reply.body, reply.complete) == (200, b"half", True)


@pytest.mark.parametrize("cut", [False, True], ids=["close", "reset"])
def test_an_old_client_of_the_mesh_is_told_the_end(stage: Stage, cut: bool) -> None:
    """Web ends an answer without a length to it by close_notify, and one that was cut without."""
    with stage.shop.stranger(stage.shop.papers["caller"]) as client:
        client.send(b"GET /old/%d HTTP/1.0\r\nHost: web\r\n\r\n" % cut)
        with stage.app() as app:
            app.hears_request()
            app.say(b"HTTP/1.1 200 OK\r\n\r\nhalf")
            client.read_until(lambda raw: raw.endswith(b"half"))
            app.reset() if cut else app.sock.close()
            client.read_to_end()
    assert b"transfer-encoding" not in fields(bytes(client.heard.raw))
    assert client.heard.raw.endswith(b"\r\n\r\nhalf")
    assert client.heard.end in (("cut", "reset") if cut else ("eof",))
