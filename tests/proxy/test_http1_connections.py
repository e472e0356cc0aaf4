"""Requests and replies on one connection: kept alive, pipelined, HTTP/1.0, without bodies; and their fields."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from tests.proxy.front import Front
from tests.support.upstream import close, send, wait_until

_CASED = (
    b"HTTP/1.1 200 Fine by me\r\nX-oNe: 1\r\nServer: app\r\nx-two: 2\r\nX-oNe: 3\r\nDATE: now\r\n"
    b"Content-Length: 2\r\n\r\nok"
)
_HOPS = (
    b"HTTP/1.1 200 OK\r\nConnection: x-gone, keep-alive\r\nKeep-Alive: timeout=5\r\nX-Gone: 1\r\nX-Stays: 1\r\n"
    b"Proxy-Connection: keep-alive\r\nTrailer: x\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nok"
)
SCRIPTS = {
    "cased": (send(_CASED),),
    "hops": (send(_HOPS),),
    "head": (send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"),),
    "head-chunked": (send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),),
    "204": (send(b"HTTP/1.1 204 No Content\r\nEtag: 1\r\n\r\n"),),
    "304": (send(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n"),),
    "empty": (send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),),
    "old-app": (send(b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nold"), close),
    "old-app-kept": (send(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nold"),),
    "chunked": (send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),),
    "no-phrase": (send(b"HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n"),),
    "says-close": (send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"), close),
    "hint": (send(b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=2, max=100\r\nContent-Length: 2\r\n\r\nok"),),
}


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    with Front(SCRIPTS) as running:
        yield running


def test_kept_alive(front: Front) -> None:
    """Many requests on one connection, which the app sees on one connection too."""
    with front.client() as client:
        for number in range(20):
            client.send(b"GET /kept/%d HTTP/1.1\r\nHost: app\r\n\r\n" % number)
            reply = client.replies((b"GET",) * 20, number + 1)[-1]
            assert (reply.status, reply.body, reply.closes) == (200, b"GET /kept/%d 0" % number, False)
    assert len({front.seen(b"/kept/%d" % number).connection for number in range(20)}) == 1
    records = [front.record(b"/kept/%d" % number) for number in range(20)]
    assert all(record["connection_reused"] for record in records[1:])


@pytest.mark.parametrize("split", ["whole", "halves", "bytes"])
def test_pipelined(front: Front, split: str) -> None:
    """Replies come in the order of the requests, each one's body where it belongs."""
    mark = split.encode()
    requests = (
        b"GET /p/%b/1 HTTP/1.1\r\nHost: app\r\n\r\n" % mark
        + b"POST /p/%b/2 HTTP/1.1\r\nHost: app\r\nContent-Length: 5\r\n\r\nhello" % mark
        + b"HEAD /p/%b/3 HTTP/1.1\r\nHost: app\r\n\r\n" % mark
        + b"POST /p/%b/4 HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" % mark
        + b"GET /p/%b/5 HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n" % mark
    )
    with front.client() as client:
        client.send(requests, split)
        replies = client.replies((b"GET", b"POST", b"HEAD", b"POST", b"GET"), 5)
        client.read_to_end()
    assert [reply.status for reply in replies] == [200] * 5
    bodies = [b"GET /p/%b/1 0", b"POST /p/%b/2 5", b"", b"POST /p/%b/4 3", b"GET /p/%b/5 0"]
    assert [reply.body for reply in replies] == [body % mark if body else b"" for body in bodies]
    assert [reply.closes for reply in replies] == [False] * 4 + [True]
    assert front.seen(b"/p/%b/2" % mark).body == b"hello"
    assert front.seen(b"/p/%b/4" % mark).body == b"abc"
    assert client.heard.end == "eof"


def test_a_hundred_pipelined(front: Front) -> None:
    with front.client() as client:
        client.send(b"".join(b"GET /hundred/%d HTTP/1.1\r\nHost: app\r\n\r\n" % number for number in range(100)))
        replies = client.replies((b"GET",) * 100, 100)
    assert [reply.body for reply in replies] == [b"GET /hundred/%d 0" % number for number in range(100)]


def test_connection_close_is_obeyed(front: Front) -> None:
    reply = front.ask(b"/close")
    assert reply.closes
    assert not front.seen(b"/close").get(b"connection")


def test_app_that_closes_does_not_close_the_client(front: Front) -> None:
    with front.client() as client:
        client.send(
            b"GET /script/says-close HTTP/1.1\r\nHost: app\r\n\r\nGET /after-close HTTP/1.1\r\nHost: app\r\n\r\n"
        )
        replies = client.replies((b"GET", b"GET"), 2)
    assert [(reply.status, reply.closes) for reply in replies] == [(200, False)] * 2


@pytest.mark.alone
def test_an_idle_connection_ends_before_the_app_would_end_it(front: Front) -> None:
    """The app says that it waits for 2 s; a request that we sent after 1.9 s could meet its FIN."""
    front.ask(b"/script/hint")
    connection = front.connection_of(b"/script/hint")
    began = time.monotonic()
    wait_until(lambda: connection.finished, "the proxy closes it")
    assert 0.5 < time.monotonic() - began < 1.9
    assert connection.ended == "eof"


# -- HTTP/1.0 ----------------------------------------------------------------------------------------------------------


def test_old_client(front: Front) -> None:
    reply = front.ask(b"/old", version=b"HTTP/1.0")
    assert (reply.status, reply.closes) == (200, True)
    assert front.record(b"/old")["protocol"] == "HTTP/1.0"


def test_old_client_without_host(front: Front) -> None:
    reply = front.ask(b"/old-without-host", version=b"HTTP/1.0", host=b"")
    assert reply.status == 200
    assert front.seen(b"/old-without-host").host == b"127.0.0.1:%d" % front.app.port


def test_old_client_that_keeps_its_connection(front: Front) -> None:
    with front.client() as client:
        for number in (1, 2):
            client.send(b"GET /old-kept/%d HTTP/1.0\r\nHost: app\r\nConnection: Keep-Alive\r\n\r\n" % number)
            reply = client.replies((b"GET",) * 2, number)[-1]
            assert reply.get(b"connection") == [b"keep-alive"]
    assert front.seen(b"/old-kept/1").connection == front.seen(b"/old-kept/2").connection


def test_old_client_gets_no_chunks(front: Front) -> None:
    """A body without a length ends with the connection."""
    reply = front.ask(b"/script/chunked", b"Connection: keep-alive", version=b"HTTP/1.0")
    assert (reply.status, reply.body, reply.closes) == (200, b"abc", True)
    assert not reply.get(b"transfer-encoding")


@pytest.mark.parametrize("script", [b"old-app", b"old-app-kept"])
def test_old_app(front: Front, script: bytes) -> None:
    """Its answers go on as HTTP/1.1, and the client's connection stays."""
    with front.client() as client:
        client.send(b"GET /script/%b HTTP/1.1\r\nHost: app\r\n\r\n" % script)
        client.replies((b"GET",), 1)
        client.send(b"GET /after-%b HTTP/1.1\r\nHost: app\r\n\r\n" % script)
        replies = client.replies((b"GET", b"GET"), 2)
    assert [(reply.status, reply.closes) for reply in replies] == [(200, False)] * 2
    kept = front.seen(b"/script/" + script).connection == front.seen(b"/after-" + script).connection
    assert kept == (script == b"old-app-kept")


# -- without a body ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "script", "status", "length"),
    [
        (b"HEAD", b"head", 200, [b"1000"]),
        (b"HEAD", b"head-chunked", 200, []),
        (b"GET", b"204", 204, []),
        (b"GET", b"304", 304, [b"1000"]),
        (b"GET", b"empty", 200, [b"0"]),
    ],
)
def test_answers_without_a_body(front: Front, method: bytes, script: bytes, status: int, length: list[bytes]) -> None:
    """The connection stays usable at both ends."""
    with front.client() as client:
        client.send(method + b" /script/" + script + b" HTTP/1.1\r\nHost: app\r\n\r\n")
        client.send(b"GET /after/" + script + b" HTTP/1.1\r\nHost: app\r\n\r\n")
        replies = client.replies((method, b"GET"), 2)
    assert [reply.status for reply in replies] == [status, 200]
    assert replies[0].get(b"content-length") == length
    assert replies[1].body == b"GET /after/" + script + b" 0"
    assert front.seen(b"/script/" + script).connection == front.seen(b"/after/" + script).connection
    assert front.record(b"/script/" + script)["bytes_sent"] == 0


def test_phrase_may_be_absent(front: Front) -> None:
    assert front.ask(b"/script/no-phrase").status == 299


# -- fields ------------------------------------------------------------------------------------------------------------


def test_case_and_order_of_answers_fields(front: Front) -> None:
    with front.client() as client:
        client.send(b"GET /script/cased HTTP/1.1\r\nHost: app\r\n\r\n")
        client.replies((b"GET",), 1)
        assert bytes(client.heard.raw) == _CASED


def test_case_and_order_of_requests_fields(front: Front) -> None:
    fields = [(b"uSER-aGENT", b"me"), (b"X-B", b"1"), (b"accept", b"*/*"), (b"X-A", b"2"), (b"x-b", b"3")]
    front.ask(b"/fields", *[name + b": " + value for name, value in fields])
    names = [field for field in front.seen(b"/fields").fields if field[0] in {name for name, _ in fields}]
    assert names == fields
    assert front.record(b"/fields")["user_agent"] == "me"


def test_hop_by_hop_fields_of_requests(front: Front) -> None:
    front.ask(
        b"/hops",
        b"Connection: x-gone, keep-alive",
        b"X-Gone: 1",
        b"X-Stays: 1",
        b"Keep-Alive: timeout=5",
        b"Proxy-Connection: keep-alive",
        b"TE: gzip",
        b"Upgrade: websocket",
    )
    request = front.seen(b"/hops")
    assert request.get(b"x-stays") == [b"1"]
    for name in (b"x-gone", b"keep-alive", b"proxy-connection", b"te", b"upgrade", b"connection"):
        assert not request.get(name), name


def test_hop_by_hop_fields_of_answers(front: Front) -> None:
    with front.client() as client:
        client.send(b"GET /script/hops HTTP/1.1\r\nHost: app\r\n\r\n")
        (reply,) = client.replies((b"GET",), 1)
    assert reply.fields == ((b"X-Stays", b"1"), (b"Content-Length", b"2"))


def test_request_id_is_kept(front: Front) -> None:
    front.ask(b"/id-kept", b"X-Request-ID: abc-1")
    assert front.seen(b"/id-kept").get(b"x-request-id") == [b"abc-1"]
    assert front.record(b"/id-kept")["request_id"] == "abc-1"


@pytest.mark.parametrize("sent", [b"", b'"', b"a b", b"x" * 129], ids=["none", "quote", "space", "long"])
def test_request_id_is_made(front: Front, sent: bytes) -> None:
    path = b"/id-made/%d" % len(sent) + sent[:1].hex().encode()
    front.ask(path, *([b"X-Request-ID: " + sent] if sent else []))
    (made,) = front.seen(path).get(b"x-request-id")
    assert re.fullmatch(rb"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", made)
    assert front.record(path)["request_id"] == made.decode()


def test_request_ids_differ(front: Front) -> None:
    for number in range(200):
        front.ask(b"/ids/%d" % number)
    assert len({front.seen(b"/ids/%d" % number).get(b"x-request-id")[0] for number in range(200)}) == 200
