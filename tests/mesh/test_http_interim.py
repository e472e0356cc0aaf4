"""Answers before the answer, through both sidecars: 100 for who waits for it, 103, and final ones that come first."""

from __future__ import annotations

import pytest

from tests.mesh.stage import Stage, fields, request, status

_EXPECTS = (b"Content-Length: 5", b"Expect: 100-continue")
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def test_a_body_is_held_back_until_the_app_asks_for_it(stage: Stage) -> None:
    with stage.client() as client:
        client.say(request(b"/accepted", *_EXPECTS, method=b"POST"))
        with stage.app() as app:
            assert fields(app.hears_head())[b"expect"] == b"100-continue"
            app.say(_CONTINUE)
            client.hears(_CONTINUE)
            client.say(b"hello")
            app.hears(b"hello")
            app.say(_OK)
            client.hears(_OK)
            client.say(request(b"/accepted/next"))  # all is as it was before: the same connections serve the next one
            assert app.hears_head().startswith(b"GET /accepted/next ")
            app.say(_OK)
            client.hears(_OK)
    assert stage.said(b"/accepted") == [(200, "-", 5, 2)] * 2
    assert [each["connection_reused"] for each in stage.records(b"/accepted/next")] == [True, True]


@pytest.mark.parametrize(
    ("answer", "closes"),
    [(b"417 Expectation Failed", False), (b"401 Unauthorized", True), (b"200 OK", False)],
    ids=["417", "401 and close", "200"],
)
@pytest.mark.parametrize("goes_on", [False, True], ids=["stops", "sends all the same"])
def test_a_body_that_is_not_asked_for(stage: Stage, answer: bytes, closes: bool, goes_on: bool) -> None:
    """The client may send it or not, and nobody can know which: no connection on the way is used again."""
    path = b"/refused/%b/%d" % (answer[:3], goes_on)
    with stage.client() as client:
        client.say(request(path, *_EXPECTS, method=b"POST"))
        with stage.app() as app:
            app.hears_head()
            app.say(b"HTTP/1.1 %b\r\n%bContent-Length: 2\r\n\r\nno" % (answer, b"Connection: close\r\n" * closes))
            head = client.hears_head()
            assert (status(head), fields(head)[b"connection"]) == (int(answer[:3]), b"close")
            client.hears(b"no")
            if goes_on:
                client.say(b"GET /" * 1000)  # were it read as a request, it would be one of our own
            assert client.hears_end() == "eof"
            assert app.hears_end() in ("eof", "reset")
    assert [each[:2] for each in stage.said(path)] == [(int(answer[:3]), "-")] * 2
    assert stage.said(path)[0][3] == 2


def test_a_client_that_waits_no_longer(stage: Stage) -> None:
    """An app that never says 100 gets the body when the client has waited long enough."""
    with stage.client() as client:
        client.say(request(b"/unbidden", *_EXPECTS, method=b"POST"))
        with stage.app() as app:
            app.hears_head()
            client.say(b"hello")
            app.hears(b"hello")
            app.say(_OK)
            client.hears(_OK)
    assert stage.said(b"/unbidden") == [(200, "-", 5, 2)] * 2


def test_the_go_ahead_comes_after_the_body(stage: Stage) -> None:
    with stage.client() as client:
        client.say(request(b"/crossing", *_EXPECTS, method=b"POST", body=b"hello"))
        with stage.app() as app:
            app.hears_head()
            app.say(_CONTINUE)
            app.hears(b"hello")
            app.say(_OK)
            client.hears(_CONTINUE + _OK)


def test_a_client_that_leaves_instead_of_sending(stage: Stage) -> None:
    with stage.client() as client:
        client.say(request(b"/left", *_EXPECTS, method=b"POST"))
        with stage.app() as app:
            app.hears_head()
            app.say(_CONTINUE)
            client.hears(_CONTINUE)
            client.sock.close()
            assert app.hears_end() in ("eof", "reset")
    assert stage.said(b"/left") == [(0, "DC", 0, 0)] * 2


def test_hints_come_as_they_are_given(stage: Stage) -> None:
    with stage.client() as client:
        client.say(request(b"/hints"))
        with stage.app() as app:
            app.hears_head()
            app.say(_HINTS)
            client.hears(_HINTS)
            app.say(_HINTS + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
            client.hears(_HINTS + _OK[:-1])
            app.say(b"k")
            client.hears(b"k")
    assert stage.said(b"/hints") == [(200, "-", 0, 2)] * 2


def test_hints_are_not_for_an_old_client(stage: Stage) -> None:
    with stage.client() as client:
        client.say(request(b"/hints/old", version=b"HTTP/1.0"))
        with stage.app() as app:
            assert app.hears_head().startswith(b"GET /hints/old HTTP/1.1\r\n")
            app.say(_HINTS + _OK)
            assert status(client.hears_head()) == 200
            assert client.hears_out() == (b"ok", "eof")
    assert [each["protocol"] for each in stage.records(b"/hints/old")] == ["HTTP/1.0", "HTTP/1.1"]


def test_hints_without_end(stage: Stage) -> None:
    """The sidecar beside the app says what is wrong with it; the caller's passes that on."""
    with stage.client() as client:
        client.say(request(b"/hints/many"))
        with stage.app() as app:
            app.hears_head()
            app.say(_HINTS * 11)
            client.hears(_HINTS * 10)
            assert status(client.hears_head()) == 502
            assert app.hears_end() in ("eof", "reset")
    assert [each[:2] for each in stage.said(b"/hints/many")] == [(502, "-"), (502, "UPE")]


def test_an_app_that_breaks_off_after_its_hints(stage: Stage) -> None:
    with stage.client() as client:
        client.say(request(b"/hints/cut"))
        with stage.app() as app:
            app.hears_head()
            app.say(_HINTS)
            client.hears(_HINTS)
        head = client.hears_head()
        assert status(head) == 503
    assert [each[:2] for each in stage.said(b"/hints/cut")] == [(503, "-"), (503, "UC")]
