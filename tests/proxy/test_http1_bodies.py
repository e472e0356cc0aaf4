"""Bodies: their framing on either side, what may come with and before them, and answers that don't wait for them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import pairwise

import pytest

from tests.proxy.front import Front
from tests.support.upstream import Step, close, hold, ok, reset, send, split, until, wait_until

_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n"
_EXTENDED = _CHUNKED + b'\r\n3;name=value\r\nabc\r\n4;x="y;z"\r\ndefg\r\n0;last\r\n\r\n'
_TRAILED = _CHUNKED + b"Trailer: X-Check\r\n\r\n3\r\nabc\r\n0\r\nX-Check: 1\r\nAuthorization: no\r\n\r\n"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
GO: dict[str, threading.Event] = {name: threading.Event() for name in ("expect", "early", "streamed")}
SCRIPTS: dict[str, tuple[Step, ...]] = {
    "chunked": (send(_CHUNKED + b"\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"),),
    "chunked-slowly": (split(_CHUNKED + b"\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n", 0.0005),),
    "extended": (send(_EXTENDED),),
    "trailed": (send(_TRAILED),),
    "until-close": (send(b"HTTP/1.1 200 OK\r\n\r\nabc"), send(b"defg"), close),
    "cut-length": (send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"), close),
    "cut-chunked": (send(_CHUNKED + b"\r\n5\r\nab"), close),
    "cut-until-close": (send(b"HTTP/1.1 200 OK\r\n\r\nabc"), reset),
    "hints": (send(_HINTS + _HINTS + ok()),),
    "hints-bytewise": (split(_HINTS + ok(), 0.0005),),
    "ten-hints": (send(_HINTS * 10 + ok()),),
    "eleven-hints": (send(_HINTS * 11 + ok()),),
    "early-413": (send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig"), hold),
    "early-417": (send(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno"), hold),
    "early-closing": (send(b"HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"), close),
    "expect": (until(GO["expect"]), send(_CONTINUE)),
    "talks": (send(_CHUNKED + b"\r\n5\r\nearly\r\n"), until(GO["early"]), send(b"4\r\nlate\r\n0\r\n\r\n")),
    "streamed": (send(_CHUNKED + b"\r\n5\r\nfirst\r\n"), until(GO["streamed"]), send(b"4\r\nlast\r\n0\r\n\r\n")),
}


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    with Front(SCRIPTS) as running:
        yield running


# -- framing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 1000, 16_384, 65_536, 300_000])
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_request_bodies(front: Front, framing: str, size: int) -> None:
    body = bytes(index % 251 for index in range(size))
    path = b"/up/%b/%d" % (framing.encode(), size)
    if framing == "length":
        reply = front.ask(path, b"Content-Length: %d" % size, method=b"POST", body=body)
    else:
        cuts = sorted({0, size // 3, size // 2, size})
        pieces = [body[start:end] for start, end in pairwise(cuts)]
        framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece) + b"0\r\n\r\n"
        reply = front.ask(path, b"Transfer-Encoding: chunked", method=b"POST", body=framed)
    assert (reply.status, reply.body) == (200, b"POST %b %d" % (path, size))
    request = front.seen(path)
    assert request.body == body
    assert request.chunked == (framing == "chunked")
    assert front.record(path)["bytes_received"] == size


@pytest.mark.parametrize("method", [b"GET", b"DELETE", b"OPTIONS"])
def test_bodies_where_they_are_unusual(front: Front, method: bytes) -> None:
    front.ask(b"/odd/" + method, b"Content-Length: 3", method=method, body=b"abc")
    assert front.seen(b"/odd/" + method).body == b"abc"


def test_chunk_extensions_of_requests_are_dropped(front: Front) -> None:
    """The app, which refuses to see an extension, sees none."""
    body = b'3;name=value\r\nabc\r\n4;x="y"\r\ndefg\r\n0;last\r\n\r\n'
    front.ask(b"/extended", b"Transfer-Encoding: chunked", method=b"POST", body=body)
    assert front.seen(b"/extended").body == b"abcdefg"


def test_request_trailers(front: Front) -> None:
    body = b"3\r\nabc\r\n0\r\nX-Check: 1\r\nHost: other\r\n\r\n"
    front.ask(b"/trailed", b"Transfer-Encoding: chunked", method=b"POST", body=body)
    assert front.seen(b"/trailed").trailers == ((b"X-Check", b"1"),)


@pytest.mark.parametrize("script", [b"chunked", b"chunked-slowly", b"extended", b"until-close"])
def test_answers_of_unknown_length(front: Front, script: bytes) -> None:
    with front.client() as client:
        client.send(
            b"GET /script/%b HTTP/1.1\r\nHost: app\r\n\r\nGET /next/%b HTTP/1.1\r\nHost: app\r\n\r\n" % (script, script)
        )
        replies = client.replies((b"GET", b"GET"), 2)
        assert b";name" not in client.heard.raw
    assert [reply.status for reply in replies] == [200, 200]
    assert (replies[0].body, replies[0].complete, replies[0].closes) == (b"abcdefg", True, False)
    assert replies[0].get(b"transfer-encoding") == [b"chunked"]
    assert front.record(b"/script/" + script)["bytes_sent"] == 7


@pytest.mark.parametrize(
    ("te", "trailers"), [(b"TE: trailers", ((b"X-Check", b"1"),)), (b"TE: gzip", ()), (b"X: y", ())]
)
def test_answers_trailers_are_for_those_who_take_them(
    front: Front, te: bytes, trailers: tuple[tuple[bytes, bytes], ...]
) -> None:
    reply = front.ask(b"/script/trailed", te)
    assert (reply.body, reply.complete, reply.trailers) == (b"abc", True, trailers)


def test_te_trailers_reaches_the_app(front: Front) -> None:
    front.ask(b"/te", b"TE: trailers", b"Connection: TE")
    request = front.seen(b"/te")
    assert request.get(b"te") == [b"trailers"]
    assert request.get(b"connection") == [b"te"]


@pytest.mark.parametrize("script", [b"cut-length", b"cut-chunked", b"cut-until-close"])
def test_an_answer_that_breaks_off_looks_broken(front: Front, script: bytes) -> None:
    with front.client() as client:
        client.send(b"GET /script/%b HTTP/1.1\r\nHost: app\r\n\r\n" % script)
        client.read_to_end()
        assert client.heard.end == "reset"
    record = front.record(b"/script/" + script)
    assert (record["response_code"], record["response_flags"]) == (200, "UC")


# -- interim answers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("script", "count"), [(b"hints", 2), (b"hints-bytewise", 1), (b"ten-hints", 10)])
def test_interim_answers_pass(front: Front, script: bytes, count: int) -> None:
    reply = front.ask(b"/script/" + script)
    assert (reply.status, reply.interim) == (200, (103,) * count)


def test_interim_answers_are_not_for_old_clients(front: Front) -> None:
    reply = front.ask(b"/script/hints?", version=b"HTTP/1.0")
    assert reply.interim == ()


def test_an_eleventh_interim_answer_is_one_too_many(front: Front) -> None:
    reply = front.ask(b"/script/eleven-hints")
    assert (reply.status, reply.interim) == (502, (103,) * 10)
    assert front.record(b"/script/eleven-hints")["response_flags"] == "UPE"


def test_a_body_held_back_until_100(front: Front) -> None:
    """Nothing of the body exists until the app has said 100, and then it arrives."""
    with front.client() as client:
        client.send(b"POST /early/expect HTTP/1.1\r\nHost: app\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        wait_until(lambda: any(c.mid_request for c in front.app.live()), "the app sees the head")
        assert not client.heard.raw
        GO["expect"].set()
        client.read_until(lambda raw: raw.endswith(b"\r\n\r\n"))
        assert client.heard.raw == _CONTINUE
        client.send(b"hello")
        wait_until(lambda: front.times_seen(b"/early/expect") == 1, "the app has the body")
    assert front.seen(b"/early/expect").body == b"hello"
    assert front.seen(b"/early/expect").get(b"expect") == [b"100-continue"]


def test_100_when_the_body_comes_unbidden(front: Front) -> None:
    reply = front.ask(b"/eager", b"Content-Length: 5", b"Expect: 100-continue", method=b"POST", body=b"hello")
    assert (reply.status, reply.interim) == (200, (100,))


def test_a_body_that_is_not_wanted_is_never_sent(front: Front) -> None:
    """The connection can't be used again, and the reply says so: the body might still come."""
    with front.client() as client:
        client.send(b"POST /early/early-417 HTTP/1.1\r\nHost: app\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        client.read_to_end()
        (reply,) = client.replies((b"POST",), 1)
    assert (reply.status, reply.body, reply.closes, client.heard.end) == (417, b"no", True, "eof")
    assert front.record(b"/early/early-417")["response_code"] == 417


# -- early answers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("script", [b"early-413", b"early-closing"])
def test_an_answer_may_come_before_the_body(front: Front, script: bytes) -> None:
    with front.client() as client:
        client.send(b"POST /early/%b HTTP/1.1\r\nHost: app\r\nContent-Length: 1000\r\n\r\nabc" % script)
        client.read_to_end()
        (reply,) = client.replies((b"POST",), 1)
    assert reply.status in (413, 403)
    assert reply.closes
    assert client.heard.end == "eof"
    wait_until(lambda: not any(c.mid_request for c in front.app.live()), "the app's connection ends")


def test_a_client_that_goes_on_sending_still_gets_the_early_answer(front: Front) -> None:
    """Whoever sends on is not reset before the answer is read."""
    with front.client() as client:
        client.send(b"POST /early/early-413 HTTP/1.1\r\nHost: app\r\nContent-Length: 60000\r\n\r\n" + bytes(30_000))
        client.read_until(lambda raw: raw.endswith(b"big"))
        client.send(bytes(30_000))
        client.read_to_end()
        (reply,) = client.replies((b"POST",), 1)
    assert (reply.status, reply.body) == (413, b"big")


def test_answer_and_body_run_at_once(front: Front) -> None:
    """The answer's first part reaches the client while the body still comes, and the body's rest the app."""
    with front.client() as client:
        client.send(b"POST /early/talks HTTP/1.1\r\nHost: app\r\nContent-Length: 6\r\n\r\nabc")
        client.read_until(lambda raw: b"early" in raw)
        client.send(b"def")
        wait_until(
            lambda: any(bytes(c.raw).endswith(b"\r\n\r\nabc") for c in front.app.live()), "the app has the first half"
        )
        GO["early"].set()
        (reply,) = client.replies((b"POST",), 1)
        assert (reply.body, reply.complete) == (b"earlylate", True)


def test_an_answer_is_passed_on_as_it_comes(front: Front) -> None:
    with front.client() as client:
        client.send(b"GET /script/streamed HTTP/1.1\r\nHost: app\r\n\r\n")
        client.read_until(lambda raw: b"first" in raw)
        assert b"last" not in client.heard.raw
        GO["streamed"].set()
        (reply,) = client.replies((b"GET",), 1)
    assert reply.body == b"firstlast"
