"""Whom the admin port refuses (CTL-5): other machines, rebound names, pages of other origins, GET on a mutation."""

from __future__ import annotations

import pytest

from sidecar.admin.access_guard import is_loopback_host, is_loopback_peer
from tests.proxy.adminport import get, port


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ("127.0.0.1:5000", 200),
        ("127.9.9.9:5000", 200),
        ("[::1]:5000", 200),
        ("[::ffff:127.0.0.1]:5000", 200),
        ("::1", 200),
        ("10.0.0.7:5000", 403),
        ("[2001:db8::1]:5000", 403),
        ("[::ffff:10.0.0.7]:5000", 403),
        ("[fe80::1%lo]:5000", 403),
        ("0.0.0.0:5000", 403),
        ("unix", 403),
        ("", 403),
    ],
)
async def test_ctl_5_only_this_machine_is_answered(peer: str, expected: int) -> None:
    async with port() as admin:
        assert (await admin.ask(get("/live"), peer)).status == expected
    assert is_loopback_peer(peer) == (expected == 200)


LOOPBACK_HOSTS = [
    b"localhost",
    b"LocalHost:1",
    b"app.localhost:15000",
    b"127.0.0.1:15000",
    b"127.1.2.3",
    b"[::1]",
    b"[::1]:15000",
    b"[::ffff:127.0.0.1]:15000",
]
FOREIGN_HOSTS = [
    b"evil.example",
    b"evil.example:15000",
    b"127.0.0.1.evil.example",
    b"localhost.evil.example",
    b"evillocalhost",
    b".localhost",
    b"10.0.0.7",
    b"0.0.0.0",
    b"[::]",
    b"[2001:db8::1]:15000",
    b"[::1",
    b"::1",
    b"127.1",
    b"2130706433",
    b"0x7f.0.0.1",
    b"localhost:",
    b"localhost:123456",
    b"localhost:80@evil.example",
    b"localhost@evil.example",
    b"user@localhost",
    b"localhost, evil.example",
    b"localhost/",
    b"",
]


@pytest.mark.parametrize("host", LOOPBACK_HOSTS, ids=bytes.decode)
async def test_ctl_5_a_loopback_name_as_host_is_let_in(host: bytes) -> None:
    async with port() as admin:
        assert (await admin.ask(b"GET /live HTTP/1.1\r\nHost: %b\r\n\r\n" % host)).status == 200


@pytest.mark.parametrize("host", FOREIGN_HOSTS, ids=lambda host: host.decode() or "empty")
async def test_ctl_5_a_foreign_host_is_refused_as_by_dns_rebinding(host: bytes) -> None:
    assert not is_loopback_host(host)
    async with port() as admin:
        for path in (b"GET /memory", b"POST /quitquitquit"):
            reply = await admin.ask(b"%b HTTP/1.1\r\nHost: %b\r\n\r\n" % (path, host))
            assert reply.status in (400, 421)  # 400: what h11 itself does not take for a host
            assert b"evil" not in reply.body
        assert admin.process.quits == 0


@pytest.mark.parametrize(
    ("version", "hosts", "expected"),
    [
        (b"1.0", b"", 421),
        (b"1.1", b"", 400),
        (b"1.1", b"Host: localhost\r\nHost: localhost\r\n", 400),
        (b"1.0", b"Host: localhost\r\nHost: evil.example\r\n", 400),
    ],
)
async def test_ctl_5_host_must_be_there_once(version: bytes, hosts: bytes, expected: int) -> None:
    async with port() as admin:
        assert (await admin.ask(b"GET /live HTTP/%b\r\n%b\r\n" % (version, hosts))).status == expected


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (b"Origin: http://localhost:15000\r\n", 200),
        (b"Origin: HTTP://LOCALHOST:15000\r\n", 200),
        (b"Sec-Fetch-Site: same-origin\r\n", 200),
        (b"Sec-Fetch-Site: none\r\n", 200),
        (b"Origin: http://evil.example\r\n", 403),
        (b"Origin: https://localhost:15000\r\n", 403),
        (b"Origin: http://localhost:3000\r\n", 403),
        (b"Origin: http://127.0.0.1:15000\r\n", 403),
        (b"Origin: http://localhost:15000.evil.example\r\n", 403),
        (b"Origin: null\r\n", 403),
        (b"Origin: \r\n", 403),
        (b"Origin: http://localhost:15000\r\nOrigin: http://evil.example\r\n", 403),
        (b"Sec-Fetch-Site: cross-site\r\n", 403),
        (b"Sec-Fetch-Site: same-site\r\n", 403),
        (b"Sec-Fetch-Site: none\r\nSec-Fetch-Site: cross-site\r\n", 403),
    ],
)
async def test_ctl_5_a_page_of_another_origin_is_refused(more: bytes, expected: int) -> None:
    async with port() as admin:
        assert (await admin.ask(get("/live", more))).status == expected
        form = b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 3\r\n"
        head = b"POST /quitquitquit HTTP/1.1\r\nHost: localhost:15000\r\n%b%b\r\na=b" % (more, form)
        assert (await admin.ask(head)).status == expected
        assert admin.process.quits == (expected == 200)


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"PUT", b"OPTIONS"])
async def test_ctl_5_a_mutation_is_a_post(method: bytes) -> None:
    async with port() as admin:
        reply = await admin.ask(b"%b /quitquitquit HTTP/1.1\r\nHost: localhost\r\n\r\n" % method)
        assert (reply.status, reply.headers["allow"]) == (405, "POST")
        assert admin.process.quits == 0


@pytest.mark.parametrize("method", [b"POST", b"DELETE", b"OPTIONS", b"TRACE"])
async def test_ctl_5_what_reads_is_a_get(method: bytes) -> None:
    async with port() as admin:
        reply = await admin.ask(b"%b /memory HTTP/1.1\r\nHost: localhost\r\n\r\n" % method)
        assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "line", [b"CONNECT evil.example:80", b"GET http://localhost/live", b"OPTIONS *", b"GET live", b"GET //"]
)
async def test_ctl_5_it_is_not_a_proxy(line: bytes) -> None:
    async with port() as admin:
        reply = await admin.ask(b"%b HTTP/1.1\r\nHost: localhost\r\n\r\n" % line)
        assert reply.status == (404 if line == b"GET //" else 400)


async def test_ctl_5_no_reply_lets_a_page_read_it() -> None:
    async with port() as admin:
        for request in (get("/memory"), get("/nothing"), get("/memory", b"Origin: http://evil.example\r\n")):
            reply = await admin.ask(request)
            assert reply.headers["x-content-type-options"] == "nosniff"
            assert reply.headers["cache-control"] == "no-store"
            assert not [name for name in reply.headers if name.startswith("access-control")]
