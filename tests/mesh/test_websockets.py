"""Upgraded connections through both sidecars: bytes both ways, and each of the ends that they can have."""

from __future__ import annotations

import os

from wsproto.events import AcceptConnection, CloseConnection, Ping, Pong, TextMessage

from tests.mesh.stage import ASKS, SWITCH, Stage, request, status, switched
from tests.support.member import Shop
from tests.support.raw import Client
from tests.support.upstream import wait_until
from tests.support.websocket import EchoApp, Talk

_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LONG = 4 << 20


# -- what goes through -------------------------------------------------------------------------------------------------


def test_a_library_at_both_ends() -> None:
    with EchoApp() as app, Shop(app=app.port) as shop, Client(shop.caller.outbound) as client:
        talk = Talk(client.sock, "web.shop", "http://web.shop/chat")
        accepted = talk.next()
        assert isinstance(accepted, AcceptConnection) and accepted.subprotocol == "chat"
        talk.send(TextMessage(data="hello"))
        answer = talk.next()
        assert isinstance(answer, TextMessage) and answer.data == "HELLO"
        for size in (1, 16_384, 16_385, 1_000_000):
            data = os.urandom(size)
            assert talk.echoed(data) == data
        talk.send(Ping(payload=b"there?"))
        pong = talk.next()
        assert isinstance(pong, Pong) and bytes(pong.payload) == b"there?"
        talk.send(CloseConnection(code=1000))
        assert isinstance(talk.next(), CloseConnection)
        assert client.sock.recv(1) == b""
        client.sock.close()
        records = [shop.caller.record_of(client.heard.port)]
        wait_until(lambda: bool(shop.web.log_records()), "a record")
        records += shop.web.log_records()
    assert [(each["response_code"], each["response_flags"]) for each in records] == [(101, "-")] * 2
    assert len({(each["bytes_received"], each["bytes_sent"]) for each in records}) == 1
    assert records[0]["bytes_received"] > 1_000_000 < records[0]["bytes_sent"]


def test_bytes_behind_the_heads_are_the_tunnels(stage: Stage) -> None:
    with stage.client() as client:
        client.say(request(b"/eager", *ASKS) + b"hello")
        with stage.app() as app:
            app.hears_head()
            app.say(SWITCH + b"welcome")
            client.hears_head()
            client.hears(b"welcome")
            app.hears(b"hello")
    assert stage.said(b"/eager") == [(101, "-", 5, 7)] * 2


def test_many_bytes_both_ways_at_once(stage: Stage) -> None:
    up, down = os.urandom(LONG), os.urandom(LONG)
    with switched(stage, b"/both") as (client, app):
        with client.saying(up), app.saying(down):
            # Neither end reads what comes before it has said half of its own: each direction has its own pace.
            app.hears(up[: LONG // 2])
            client.hears(down)
            app.hears(up[LONG // 2 :])
    assert stage.said(b"/both") == [(101, "-", LONG, LONG)] * 2


def test_another_protocol_than_was_asked_for(stage: Stage) -> None:
    with stage.client() as client:
        client.say(request(b"/other", *ASKS))
        with stage.app() as app:
            app.hears_head()
            app.say(SWITCH.replace(b"chat", b"other"))
            assert status(client.hears_head()) == 502
            assert app.hears_end() in ("eof", "reset")
    assert [each[:2] for each in stage.said(b"/other")] == [(502, "-"), (502, "UPE")]


def test_declined(stage: Stage) -> None:
    """What follows is a request, and the connections stay."""
    with stage.client() as client:
        client.say(request(b"/declined", *ASKS))
        with stage.app() as app:
            app.hears_head()
            app.say(_OK)
            client.hears(_OK)
            client.say(request(b"/declined/next"))
            assert app.hears_head().startswith(b"GET /declined/next ")
            app.say(_OK)
            client.hears(_OK)


# -- how it ends -------------------------------------------------------------------------------------------------------


def test_a_client_that_has_said_all_still_listens(stage: Stage) -> None:
    with switched(stage, b"/client-first") as (client, app):
        client.say(b"bye")
        client.finish()
        app.hears(b"bye")
        assert app.hears_end() == "eof"
        app.say(b"and one thing more")
        client.hears(b"and one thing more")
        app.finish()
        assert client.hears_end() == "eof"
        assert stage.said(b"/client-first") == [(101, "-", 3, 18)] * 2


def test_an_app_that_has_said_all_still_listens(stage: Stage) -> None:
    with switched(stage, b"/app-first") as (client, app):
        app.say(b"bye")
        app.finish()
        client.hears(b"bye")
        assert client.hears_end() == "eof"
        client.say(b"and one thing more")
        app.hears(b"and one thing more")
        client.finish()
        assert app.hears_end() == "eof"
        assert stage.said(b"/app-first") == [(101, "-", 18, 3)] * 2


def test_a_client_that_resets(stage: Stage) -> None:
    with switched(stage, b"/client-resets") as (client, app):
        client.say(b"half")
        app.hears(b"half")
        client.reset()
        assert app.hears_end() == "reset"
        assert stage.said(b"/client-resets") == [(101, "DC", 4, 0)] * 2


def test_an_app_that_resets(stage: Stage) -> None:
    with switched(stage, b"/app-resets") as (client, app):
        app.say(b"half")
        client.hears(b"half")
        app.reset()
        assert client.hears_end() == "reset"
        assert stage.said(b"/app-resets") == [(101, "UC", 0, 4)] * 2


def test_a_client_that_does_not_wait_for_the_switch(stage: Stage) -> None:
    with stage.client() as client:
        client.say(request(b"/impatient", *ASKS))
        with stage.app() as app:
            app.hears_head()
            client.sock.close()
            assert app.hears_end() in ("eof", "reset")
    assert stage.said(b"/impatient") == [(0, "DC", 0, 0)] * 2
