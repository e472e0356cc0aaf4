"""Bodies through both sidecars: chunks and trailers, early answers, many bytes, none at all, old clients."""

from __future__ import annotations

import os

import pytest

from tests.mesh.stage import Stage, fields, request, status

_CHUNKED = b"Transfer-Encoding: chunked"
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LARGE = 20 << 20


# -- chunks and trailers -----------------------------------------------------------------------------------------------


def test_chunks_and_trailers_both_ways(stage: Stage) -> None:
    with stage.client() as client:
        client.say(request(b"/chunks", _CHUNKED, b"TE: trailers", b"Connection: TE", method=b"POST"))
        client.say(b'3;x="y"\r\nabc\r\n1\r\nd\r\n0\r\nX-Check: 1\r\nContent-Length: 9\r\n\r\n')
        with stage.app() as app:
            asked = app.hears_request()
            assert (asked.body, asked.chunked, asked.trailers) == (b"abcd", True, ((b"X-Check", b"1"),))
            assert asked.get(b"te") == [b"trailers"]
            app.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5;a=b\r\nhello\r\n")
            app.say(b"6\r\n there\r\n0\r\nX-Sum: 11\r\nSet-Cookie: no=1\r\n\r\n")
            reply = client.hears_reply(b"POST")
            assert (reply.body, reply.complete, reply.trailers) == (b"hello there", True, ((b"X-Sum", b"11"),))
            client.say(request(b"/chunks/next"))
            assert app.hears_request().target == b"/chunks/next"
            app.say(_OK)
            client.hears(_OK)
    assert stage.said(b"/chunks") == [(200, "-", 4, 11)] * 2


def test_trailers_are_for_those_who_take_them(stage: Stage) -> None:
    with stage.client() as client:
        client.say(request(b"/untold"))
        with stage.app() as app:
            assert not app.hears_request().get(b"te")
            app.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 2\r\n\r\n")
            reply = client.hears_reply()
    assert (reply.body, reply.complete, reply.trailers) == (b"ok", True, ())


def test_chunks_go_on_as_they_come(stage: Stage) -> None:
    """Each side hears a chunk before the other one has said the next."""
    with stage.client() as client:
        client.say(request(b"/turns", _CHUNKED, method=b"POST") + b"3\r\none\r\n")
        with stage.app() as app:
            app.hears_head()
            app.hears(b"3\r\none\r\n")
            app.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nONE\r\n")
            client.hears_head()
            client.hears(b"3\r\nONE\r\n")
            client.say(b"3\r\ntwo\r\n")
            app.hears(b"3\r\ntwo\r\n")
            app.say(b"3\r\nTWO\r\n")
            client.hears(b"3\r\nTWO\r\n")
            client.say(b"0\r\nX-Last: 1\r\n\r\n")
            app.hears(b"0\r\nX-Last: 1\r\n\r\n")
            app.say(b"0\r\n\r\n")
            client.hears(b"0\r\n\r\n")
    assert stage.said(b"/turns") == [(200, "-", 6, 6)] * 2


@pytest.mark.parametrize("rest", [b"3\r\nab", b"3\r\nabc\r\n", b"3\r\nabc\r\n0\r\n"], ids=["chunk", "size", "trailers"])
def test_a_request_that_breaks_off_is_never_whole(stage: Stage, rest: bytes) -> None:
    path = b"/broken/%d" % len(rest)
    with stage.client() as client:
        client.say(request(path, _CHUNKED, method=b"POST") + rest)
        with stage.app() as app:
            app.hears_head()
            client.finish()
            heard, _ = app.hears_out()
            assert not heard.endswith(b"0\r\n\r\n")
            client.hears_out()
    assert [each[:2] for each in stage.said(path)] == [(0, "DC")] * 2


# -- early answers -----------------------------------------------------------------------------------------------------

_ANSWERS = {
    "413": b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig",
    "413 and close": b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig",
    "200": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbig\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("answer", _ANSWERS)
def test_an_early_answer_to_a_client_that_stops(stage: Stage, answer: str, framing: str) -> None:
    path = b"/early/stops/%b/%b" % (answer.replace(" ", "-").encode(), framing.encode())
    length, part = (_CHUNKED, b"5\r\nhello\r\n") if framing == "chunked" else (b"Content-Length: 1000", b"hello")
    with stage.client() as client:
        client.say(request(path, length, method=b"POST", body=part))
        with stage.app() as app:
            app.hears_head()
            app.hears(part)
            app.say(_ANSWERS[answer])
            reply = client.hears_reply(b"POST")
            assert (reply.status, reply.body, reply.complete) == (int(answer[:3]), b"big", True)
            assert reply.closes
            assert client.hears_end() == "eof"
            assert app.hears_end() in ("eof", "reset")
    assert stage.said(path) == [(int(answer[:3]), "-", 5, 3)] * 2


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("leaves", [False, True], ids=["app stays", "app leaves"])
def test_an_early_answer_to_a_client_that_goes_on(stage: Stage, framing: str, leaves: bool) -> None:
    """It gets the whole answer, though nobody reads what it goes on to send: 20 MB of it."""
    path = b"/early/goes-on/%b/%d" % (framing.encode(), leaves)
    length, body = b"Content-Length: %d" % LARGE, bytes(LARGE)
    if framing == "chunked":
        length, body = _CHUNKED, b"%x\r\n%b\r\n0\r\n\r\n" % (LARGE, body)
    with stage.client() as client, client.saying(request(path, length, method=b"POST", body=body)):
        with stage.app() as app:
            app.hears_head()
            app.take(1000)
            app.say(_ANSWERS["413 and close"])
            if leaves:
                app.sock.close()  # with bytes unread, so that it resets
            reply = client.hears_reply(b"POST")
            assert (reply.status, reply.body, reply.closes) == (413, b"big", True)
            client.sock.close()
    said = stage.said(path)
    assert [each[:2] for each in said] == [(413, "-")] * 2
    assert all(each[2] < LARGE for each in said)


def test_a_long_early_answer_is_whole_though_the_body_is_not(stage: Stage) -> None:
    answer = os.urandom(LARGE)
    with stage.client() as client:
        client.say(request(b"/early/long", b"Content-Length: 1000", method=b"POST", body=b"some"))
        with stage.app() as app:
            app.hears_head()
            with app.saying(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE + answer):
                assert status(client.hears_head()) == 200
                client.hears(answer)
                assert client.hears_end() == "eof"
    assert stage.said(b"/early/long") == [(200, "-", 4, LARGE)] * 2


# -- many bytes --------------------------------------------------------------------------------------------------------


def test_twenty_megabytes_each_way(stage: Stage) -> None:
    up, down = os.urandom(LARGE), os.urandom(LARGE)
    with stage.client() as client:
        with client.saying(request(b"/large", b"Content-Length: %d" % LARGE, method=b"POST", body=up)):
            with stage.app() as app:
                app.hears_head()
                app.hears(up)
                with app.saying(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE + down):
                    client.hears_head()
                    client.hears(down)
    assert stage.said(b"/large") == [(200, "-", LARGE, LARGE)] * 2


def test_twenty_megabytes_each_way_at_once(stage: Stage) -> None:
    """Three quarters of the answer are there before the app has looked at the body's second half."""
    up, down = os.urandom(LARGE), os.urandom(LARGE)
    half, most = LARGE // 2, LARGE // 4 * 3
    with stage.client() as client:
        with client.saying(request(b"/large/at-once", b"Content-Length: %d" % LARGE, method=b"POST", body=up)):
            with stage.app() as app:
                app.hears_head()
                with app.saying(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % LARGE + down[:most]):
                    app.hears(up[:half])
                    client.hears_head()
                    client.hears(down[:most])
                    app.hears(up[half:])
                with app.saying(down[most:]):
                    client.hears(down[most:])
    assert stage.said(b"/large/at-once") == [(200, "-", LARGE, LARGE)] * 2


# -- none --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "answer", "length"),
    [
        (b"HEAD", b"200 OK\r\nContent-Length: 20000000\r\n\r\n", b"20000000"),
        (b"HEAD", b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None),
        (b"HEAD", b"200 OK\r\n\r\n", None),
        (b"GET", b"204 No Content\r\n\r\n", None),
        (b"GET", b"304 Not Modified\r\nContent-Length: 20000000\r\n\r\n", b"20000000"),
        (b"GET", b"304 Not Modified\r\n\r\n", None),
        (b"POST", b"200 OK\r\nContent-Length: 0\r\n\r\n", b"0"),
        (b"HEAD", b"404 Not Found\r\nContent-Length: 9\r\n\r\n", b"9"),
    ],
)
def test_answers_without_a_body(stage: Stage, method: bytes, answer: bytes, length: bytes | None) -> None:
    """The next answer on the same connections is the next request's."""
    path = b"/none/%b/%b" % (method, b"".join(answer.split())[:40])
    with stage.client() as client:
        client.say(request(path, method=method) + request(path + b"/next"))
        with stage.app() as app:
            assert app.hears_request().method == method
            app.say(b"HTTP/1.1 " + answer)
            head = client.hears_head()
            assert (status(head), fields(head).get(b"content-length")) == (int(answer[:3]), length)
            assert app.hears_request().target == path + b"/next"
            app.say(_OK)
            client.hears(_OK)
    assert stage.said(path) == [(int(answer[:3]), "-", 0, 0)] * 2


# -- old clients, and answers until close ------------------------------------------------------------------------------


def test_an_old_client_sends_and_gets_a_body(stage: Stage) -> None:
    with stage.client() as client:
        client.say(request(b"/old", b"Content-Length: 5", method=b"POST", version=b"HTTP/1.0", body=b"hello"))
        with stage.app() as app:
            assert app.hears_request().body == b"hello"
            app.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            assert b"transfer-encoding" not in fields(client.hears_head())
            client.hears(b"abc")
            app.say(b"3\r\ndef\r\n0\r\n\r\n")
            assert client.hears_out() == (b"def", "eof")
    assert stage.said(b"/old") == [(200, "-", 5, 6)] * 2


def test_an_old_client_that_keeps_its_connection(stage: Stage) -> None:
    with stage.client() as client:
        client.say(request(b"/kept/1", b"Connection: keep-alive", version=b"HTTP/1.0"))
        with stage.app() as app:
            app.hears_request()
            app.say(_OK)
            assert fields(client.hears_head())[b"connection"] == b"keep-alive"
            client.hears(b"ok")
            client.say(request(b"/kept/2", version=b"HTTP/1.0"))
            app.hears_request()
            app.say(_OK)
            client.hears_head()
            assert client.hears_out() == (b"ok", "eof")


@pytest.mark.parametrize("version", [b"HTTP/1.0", b"HTTP/1.1"])
@pytest.mark.parametrize("cut", [False, True], ids=["close", "reset"])
def test_an_answer_until_close(stage: Stage, version: bytes, cut: bool) -> None:
    """The app's FIN is the end of it; a reset is none, for whichever client."""
    path = b"/until-close/%b/%d" % (version[-1:], cut)
    with stage.client() as client:
        client.say(request(path, version=version))
        with stage.app() as app:
            app.hears_request()
            app.say(b"HTTP/1.1 200 OK\r\n\r\nabc")
            chunked = fields(client.hears_head()).get(b"transfer-encoding") == b"chunked"
            assert chunked == (version == b"HTTP/1.1")
            client.hears(b"3\r\nabc\r\n" if chunked else b"abc")
            if cut:
                app.reset()
                assert client.hears_out() == (b"", "reset")
            else:
                app.finish()
                if chunked:
                    client.hears(b"0\r\n\r\n")
                else:
                    assert client.hears_end() == "eof"
    assert stage.said(path) == [(200, "UC" if cut else "-", 0, 3)] * 2
