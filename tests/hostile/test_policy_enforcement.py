"""Paths, hosts and fields against policies: one resource has one verdict, however it is spelled, in plaintext and over
mutual TLS. The app sees no byte of what is refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.hostile.coverage import covers
from tests.mesh.test_authorization import obey
from tests.support.member import Shop
from tests.support.raw import Client

DENY: Final[dict[str, Any]] = {
    "name": "no-admin", "namespace": "shop", "action": "DENY",
    "rules": [{"to": [{"operation": {"paths": ["/admin", "/admin/*", "/app/admin", "/app/admin/*"]}}]}],
}  # fmt: skip
ALLOW: Final[dict[str, Any]] = {
    "name": "app", "namespace": "shop", "rules": [{"to": [{"operation": {"paths": ["/app", "/app/*", "/admin*"]}}]}],
}  # fmt: skip
SERVED, DENIED, BAD = 200, 403, 400

PATHS: Final = {
    b"/app": SERVED,
    b"/app/": SERVED,
    b"/app?x=/admin": SERVED,
    b"/admin": DENIED,
    b"/admin?x": DENIED,
    b"/app/../admin": DENIED,
    b"/app/%2E./admin": DENIED,
    b"/app/%2e%2e/admin": DENIED,
    b"/app//": SERVED,
    b"/app%2f/": DENIED,  # forwarded as it was sent, and so it is not below /app/ for every server
    b"/app\\admin": DENIED,
    b"/%2Fapp%5cadmin%5Cabc": DENIED,
    b"/app//../admin": DENIED,
    b"/admin;a=b": DENIED,
    b"/;/admin": DENIED,
    b"/adm%69n": DENIED,
    b"//admin": DENIED,
    b"/./admin": DENIED,
    b"/app/0x2e0x2e": SERVED,
    b"/app/%252e%252e": SERVED,
    b"/app/...": SERVED,
    b"/app/....": SERVED,
    b"/Admin": DENIED,  # no ALLOW rule has it
    b"/app/..;x/admin": BAD,
    b"/app/%00": BAD,
    b"/app/%0d%0a": BAD,
    b"/app/%c0%ae": BAD,
    b"/app#/admin": BAD,
    b"/app/\xc3\xa9": BAD,
}
HOSTS: Final = (b"web.test", b"WEB.test", b"web.test.", b"web.test:80", b"web.test.:80", b"web.test:8080")
FIELDS: Final = (
    (b"X-Role: guest",),
    (b"X-Role: admin", b"X-Role: guest"),
    (b"X-Role: guest", b"X-Role: admin"),
    (b"X-Role: guest, admin",),
    (b"X-Role: guest,admin",),
    (b"x-role:  admin ",),
    (b"X-Role: admin\x85",),
    (b"X-Role: \xa0admin",),
    (b"X-Role: admin\xff",),
)


def policy(name: str, *rules: dict[str, Any], action: str = "ALLOW") -> dict[str, Any]:
    return {"name": name, "namespace": "shop", "action": action, "rules": list(rules)}


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with Shop(mode="permissive", strict=False) as running:
        yield running


@pytest.fixture(params=["plaintext", "mtls"])
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def status(shop: Shop, way: str, path: bytes, host: bytes = b"web.test", fields: tuple[bytes, ...] = ()) -> int:
    """What a request gets; of one that is refused no byte has come to the app."""
    before = shop.seen()
    client = Client(shop.web.inbound) if way == "plaintext" else shop.stranger(shop.papers["caller"])
    with client:
        lines = [b"GET %b HTTP/1.1" % path, b"Host: %b" % host, b"Connection: close", *fields, b"", b""]
        client.send(b"\r\n".join(lines))
        (reply,) = client.replies((b"GET",), 1)
    if reply.status != SERVED:
        assert shop.seen() == before, (path, host, fields)
    return reply.status


@covers("POL-1", "POL-2", "POL-3")
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.decode("latin-1"))
def test_a_path_has_one_verdict(shop: Shop, way: str, path: bytes) -> None:
    obey(shop, DENY, ALLOW)
    assert status(shop, way, path) == PATHS[path]


@covers("POL-4")
def test_a_host_has_one_verdict(shop: Shop, way: str) -> None:
    rule = [{"to": [{"operation": {"hosts": ["web.test"]}}]}]
    for action, expected in (("DENY", DENIED), ("ALLOW", SERVED)):
        obey(shop, {"name": "host", "namespace": "shop", "action": action, "rules": rule})
        assert {host: status(shop, way, b"/app", host) for host in HOSTS} == dict.fromkeys(HOSTS, expected)
        other = SERVED if expected == DENIED else DENIED
        assert status(shop, way, b"/app", b"web.test.evil") == other
    rule = [{"to": [{"operation": {"hosts": ["[::1]"]}}]}]
    obey(shop, {"name": "host", "namespace": "shop", "action": "DENY", "rules": rule})
    for host in (b"[::1]", b"[::1]:80", b"[0:0::1]", b"[0000::0001]:8080"):
        assert status(shop, way, b"/app", host) == DENIED, host


@covers("POL-5")
@pytest.mark.parametrize("fields", FIELDS, ids=lambda fields: b" ".join(fields).decode("latin-1"))
def test_a_field_that_is_denied_is_denied_however_it_is_sent(shop: Shop, way: str, fields: tuple[bytes, ...]) -> None:
    rule = [{"when": [{"key": "request.headers[x-role]", "values": ["admin"]}]}]
    obey(shop, {"name": "role", "namespace": "shop", "action": "DENY", "rules": rule})
    harmless = fields == FIELDS[0]
    assert status(shop, way, b"/app", fields=fields) in ((SERVED,) if harmless else (DENIED, BAD))


@covers("POL-6")
def test_a_principal_is_compared_as_text(shop: Shop) -> None:
    principals = ["cluster.local/ns/shop/sa/a.b", "cluster.local/ns/shop/sa/c*"]
    obey(shop, policy("dot", {"from": [{"source": {"principals": principals}}]}))
    for account, expected in (("a.b", SERVED), ("axb", DENIED), ("caller", SERVED), ("xc", DENIED)):
        with shop.stranger(shop.authority.issue(account)) as client:
            client.send(b"GET /app HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
            (reply,) = client.replies((b"GET",), 1)
        assert reply.status == expected, account


@covers("POL-8")
@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        ([], SERVED),
        ([policy("nothing")], DENIED),
        ([policy("all", {})], SERVED),
        ([policy("all", {}), policy("deny", action="DENY")], SERVED),
        ([policy("all", {}), policy("deny", {}, action="DENY")], DENIED),
        ([policy("audit", {}, action="AUDIT")], SERVED),
    ],
    ids=["none", "allows nothing", "allows all", "denies nothing", "denies all", "audits"],
)
def test_sets_of_policies(shop: Shop, way: str, policies: list[dict[str, Any]], expected: int) -> None:
    obey(shop, *policies)
    assert status(shop, way, b"/app") == expected
