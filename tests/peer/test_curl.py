"""curl as the client, inbound and through the explicit proxy."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peer.programs import run
from tests.proxy.front import Front
from tests.support.upstream import Connection, Step, close, hold, ok, send

_PACKED = gzip.compress(b"plain text " * 100)
_TRAILED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Check\r\n\r\n3\r\nabc\r\n0\r\nX-Check: 1\r\n\r\n"
)
UPLOAD = bytes(range(256)) * 8192  # 2 MiB: curl asks before it sends so much


def _take_upload(connection: Connection) -> bool:
    """Says 100, and answers once the body is there."""
    connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = b""
    while len(body) < len(UPLOAD) and (data := connection.sock.recv(65536)):
        body += data
    assert body == UPLOAD
    connection.write(ok(b"got %d" % len(body)))
    return False


SCRIPTS: dict[str, tuple[Step, ...]] = {
    "gzip": (
        send(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(_PACKED) + _PACKED),
    ),
    "chunked": (send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"),),
    "trailed": (send(_TRAILED),),
    "until-close": (send(b"HTTP/1.1 200 OK\r\n\r\nto the end"), close),
    "redirect": (send(b"HTTP/1.1 302 Found\r\nLocation: /redirected\r\nContent-Length: 0\r\n\r\n"),),
    "awaited": (_take_upload,),
    "unwanted": (send(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno"), hold),
    "cut": (send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"), close),
}


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    with Front(SCRIPTS) as running:
        yield running


def _curl(front: Front, path: str, *arguments: str, code: int = 0) -> str:
    return run("curl", "-sS", "-m", "10", *arguments, f"http://127.0.0.1:{front.sidecar.inbound}{path}", code=code)


def _through(front: Front, url: str, *arguments: str, code: int = 0) -> str:
    return run(
        "curl", "-sS", "-m", "10", "-x", f"http://127.0.0.1:{front.sidecar.outbound}", *arguments, url, code=code
    )


def test_get(front: Front) -> None:
    text = _curl(front, "/plain", "-i")
    assert text.startswith("HTTP/1.1 200 OK\r\n")
    assert text.endswith("\r\n\r\nGET /plain 0")


def test_http_1_0(front: Front) -> None:
    assert _curl(front, "/1.0", "--http1.0") == "GET /1.0 0"
    assert _curl(front, "/script/chunked", "--http1.0") == "abcde"


def test_head(front: Front) -> None:
    assert "Content-Length: 12\r\n" in _curl(front, "/head", "-I").replace("HEAD", "")  # "HEAD /head 0"


def test_compressed(front: Front) -> None:
    assert _curl(front, "/script/gzip", "--compressed") == "plain text " * 100


@pytest.mark.parametrize(("script", "body"), [("chunked", "abcde"), ("trailed", "abc"), ("until-close", "to the end")])
def test_framings(front: Front, script: str, body: str) -> None:
    assert _curl(front, f"/script/{script}") == body


def test_upload_that_waits_for_100(front: Front, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(UPLOAD)
    expect = ("-H", "Expect: 100-continue", "--expect100-timeout", "60")  # much more than curl has in all
    assert _curl(front, "/early/awaited", "-T", str(file), *expect) == f"got {len(UPLOAD)}"


def test_upload_that_is_not_wanted(front: Front, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(UPLOAD)
    expect = ("-H", "Expect: 100-continue", "--expect100-timeout", "9")
    text = _curl(front, "/early/unwanted", "-T", str(file), *expect, "-w", " %{http_code} %{size_upload}")
    assert text == "no 417 0"


def test_upload_of_unknown_length(front: Front, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 300_000)
    assert (
        _curl(front, "/stream", "-T", str(file), "-H", "Transfer-Encoding: chunked", "-H", "Expect:")
        == "PUT /stream 300000"
    )
    assert front.seen(b"/stream").chunked


def test_form(front: Front) -> None:
    _curl(front, "/form", "-F", "a=1", "-F", "b=2")
    assert front.seen(b"/form").body.count(b'name="a"\r\n\r\n1\r\n') == 1


def test_redirect_on_one_connection(front: Front) -> None:
    text = _curl(front, "/script/redirect", "-L", "-w", "%{num_connects} %{num_redirects}")
    assert text == "GET /redirected 01 1"


def test_many_on_one_connection(front: Front) -> None:
    text = _curl(front, "/many/[1-50]", "-w", " %{num_connects}\\n")
    assert text.splitlines() == [f"GET /many/{n} 0 {int(n == 1)}" for n in range(1, 51)]


def test_an_answer_that_is_cut_is_an_error(front: Front) -> None:
    run("curl", "-sS", f"http://127.0.0.1:{front.sidecar.inbound}/script/cut", code=56)


def test_problem_document(front: Front) -> None:
    text = _curl(
        front,
        "/x",
        "-H",
        "Transfer-Encoding: chunked",
        "-H",
        "Content-Length: 1",
        "-d",
        "x",
        "-w",
        "\\n%{content_type} %{http_code}",
    )
    body, last = text.rsplit("\n", 1)
    assert last == "application/problem+json 400"
    assert json.loads(body)["status"] == 400


def test_explicit_proxy(front: Front) -> None:
    assert _through(front, f"http://127.0.0.1:{front.app.port}/explicit") == "GET /explicit 0"
    assert front.record(b"/explicit")["direction"] == "outbound"
    assert front.seen(b"/explicit").host == b"127.0.0.1:%d" % front.app.port


def test_explicit_proxy_with_a_name(front: Front) -> None:
    assert _through(front, f"http://localhost:{front.app.port}/named") == "GET /named 0"


def test_tunnel(front: Front) -> None:
    url = f"http://localhost:{front.app.port}/tunnel/[1-3]"
    text = _through(front, url, "-p", "-w", " %{num_connects} %{http_connect}\\n")
    assert text.splitlines() == ["GET /tunnel/1 0 1 200", "GET /tunnel/2 0 0 000", "GET /tunnel/3 0 0 000"]
    assert front.record(b"/tunnel/2")["authority"] == f"localhost:{front.app.port}"


def test_own_listener_through_the_proxy(front: Front) -> None:
    url = f"http://localhost:{front.sidecar.admin}/quitquitquit"
    assert _through(front, url, "-X", "POST", "-w", "%{http_code}").endswith("403")
    assert "403" in _through(front, url, "-p", code=56)
