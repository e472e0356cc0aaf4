"""nginx as the app, and h2load as a client that is in a hurry."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.peer.programs import Nginx, run
from tests.support.ports import held_port
from tests.support.process import SidecarProcess
from tests.support.raw import Client

CONFIG = """
    location = /small { return 200 "small"; }
    location = /none { return 204; }
    location = /closes { keepalive_timeout 0; return 200 "closes"; }
    location = /old { chunked_transfer_encoding off; ssi on; try_files /big.txt =404; }
    location = /chunked { ssi on; ssi_types text/plain; try_files /big.txt =404; }
    location / { keepalive_timeout 5s 5s; }
"""
BIG = b"".join(b"line %d of a longer file\n" % number for number in range(20_000))


@pytest.fixture(scope="module")
def nginx() -> Iterator[Nginx]:
    with held_port() as port, Nginx(port, CONFIG) as running:
        (running.root / "big.txt").write_bytes(BIG)
        (running.root / "empty.txt").write_bytes(b"")
        yield running


@pytest.fixture(scope="module")
def sidecar(nginx: Nginx) -> Iterator[SidecarProcess]:
    with SidecarProcess(nginx.port) as running:
        yield running


def test_all_kinds_on_one_connection(sidecar: SidecarProcess) -> None:
    asked = [
        (b"GET", b"/small", 200, b"small"),
        (b"GET", b"/big.txt", 200, BIG),
        (b"HEAD", b"/big.txt", 200, b""),
        (b"GET", b"/chunked", 200, BIG),
        (b"GET", b"/none", 204, b""),
        (b"GET", b"/empty.txt", 200, b""),
        (b"GET", b"/closes", 200, b"closes"),
        (b"GET", b"/missing", 404, None),
        (b"GET", b"/small", 200, b"small"),
    ]
    with Client(sidecar.inbound) as client:
        for method, path, _, _ in asked:
            client.send(b"%b %b HTTP/1.1\r\nHost: app\r\n\r\n" % (method, path))
        replies = client.replies([method for method, *_ in asked], len(asked))
    assert [reply.status for reply in replies] == [status for _, _, status, _ in asked]
    for reply, (_, path, _, body) in zip(replies, asked, strict=True):
        assert body is None or reply.body == body, path
        assert not reply.closes
    assert replies[3].get(b"transfer-encoding") == [b"chunked"]
    assert replies[1].get(b"content-length") == [b"%d" % len(BIG)]


def test_validators_and_ranges(sidecar: SidecarProcess) -> None:
    with Client(sidecar.inbound) as client:
        client.send(b"GET /big.txt HTTP/1.1\r\nHost: app\r\nRange: bytes=5-9\r\n\r\n")
        part = client.replies((b"GET",), 1)[0]
        assert (part.status, part.body) == (206, BIG[5:10])
        (etag,) = part.get(b"etag")
        client.send(b"GET /big.txt HTTP/1.1\r\nHost: app\r\nIf-None-Match: %b\r\n\r\n" % etag)
        assert client.replies((b"GET",) * 2, 2)[1].status == 304


@pytest.mark.parametrize(("path", "streams"), [("/small", 1), ("/chunked", 1), ("/small", 8)])
def test_h2load(sidecar: SidecarProcess, path: str, streams: int) -> None:
    """5,000 requests over 16 connections, also pipelined, without an error."""
    count = 5_000 if path == "/small" else 500
    url = f"http://127.0.0.1:{sidecar.inbound}{path}"
    text = run("h2load", "--h1", "-n", str(count), "-c", "16", "-m", str(streams), url)
    found = re.search(
        r"requests: (\d+) total, \d+ started, (\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored", text
    )
    assert found is not None, text
    assert [int(number) for number in found.groups()] == [count, count, count, 0, 0], text
