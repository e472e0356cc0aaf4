"""RateLimitPolicy at the app's sidecar, over mutual TLS: each caller has its own buckets, by the identity it shows."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sidecar.resources.documents import read_documents
from sidecar.resources.kinds import RateLimitPolicy
from sidecar.resources.rate_limit_rules import limit_policy_of
from tests.support.member import PORTS, Shop
from tests.support.raw import Client, Reply
from tests.support.secure import OPAQUE
from tests.support.upstream import ok, send

LONG = bytes(range(256)) * 600


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with Shop(scripts={"plain": (send(ok()),), "long": (send(ok(LONG)),)}, mode="permissive") as running:
        yield running


def obey(shop: Shop, *limits: dict[str, Any], authorization: list[Any] | None = None, **spec: Any) -> None:
    """From now on these limits hold at web's sidecar, and no others."""
    service = {
        "name": "web", "namespace": "shop", "serviceAccounts": ["web"],
        "endpoints": [{"address": "127.0.0.1", "port": shop.web.inbound, "mode": "direct"}],
        "ports": [{"port": port, "name": f"any-{port}"} for port in PORTS.values()],
    }  # fmt: skip
    policy = {"name": "few", "namespace": "shop", "limits": list(limits), **spec}
    document = {
        "schema": "1.3", "version": "1.1", "proxy": shop.papers["web"].spiffe_id, "issued": 1.0,
        "trustDomain": "cluster.local", "services": [service], "authorization": authorization or [],
        "rateLimits": [policy] if limits else [], "peerAuthentication": {"mtls": {"mode": "PERMISSIVE"}},
    }  # fmt: skip
    assert shop.web.tell("take", document=document) == []


def ask(client: Client, method: bytes = b"GET") -> Reply:
    client.send(b"%b /script/plain HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n" % method)
    (reply,) = client.replies((method,), 1)
    return reply


def statuses(shop: Shop, papers: Any, count: int) -> list[int]:
    found = []
    for _ in range(count):
        with shop.stranger(papers) as client:
            found.append(ask(client).status)
    return found


def test_each_caller_has_its_own_bucket(shop: Shop) -> None:
    obey(shop)
    obey(shop, {"name": "each", "key": ["source.principal"], "rate": {"requests": 2, "per": "1h"}})
    assert statuses(shop, shop.papers["caller"], 3) == [200, 200, 429]
    assert statuses(shop, shop.authority.issue("other"), 3) == [200, 200, 429]
    assert statuses(shop, shop.papers["caller"], 1) == [429]


def test_a_caller_of_the_mesh_learns_the_limit_and_a_stranger_does_not(shop: Shop) -> None:
    obey(shop)
    obey(shop, {"name": "each", "key": ["source.principal"], "rate": {"requests": 1, "per": "1h"}})
    statuses(shop, shop.papers["caller"], 1)
    with shop.stranger(shop.papers["caller"]) as client:
        problem = json.loads(ask(client).body)
    assert problem["detail"] == "beyond limit each of RateLimitPolicy shop/few"
    for status in (200, 429):
        with Client(shop.web.inbound) as stranger:
            reply = ask(stranger)
            assert reply.status == status
    assert json.loads(reply.body)["detail"] == "too many requests; try again later"
    record = shop.web.record_of(stranger.heard.port)
    assert (record["response_code_details"], record["response_flags"]) == ("rate_limited", "RL")


def test_what_authorization_refuses_takes_no_token(shop: Shop) -> None:
    obey(shop)
    policy = {"name": "reads", "namespace": "shop", "rules": [{"to": [{"operation": {"methods": ["GET"]}}]}]}
    obey(shop, {"name": "one", "rate": {"requests": 1, "per": "1h"}}, authorization=[policy])
    for _ in range(3):
        with shop.stranger(shop.papers["caller"]) as client:
            assert ask(client, b"DELETE").status == 403
    assert statuses(shop, shop.papers["caller"], 2) == [200, 429]


def test_connections_are_counted_by_identity_after_their_handshake(shop: Shop) -> None:
    obey(shop)
    obey(shop, {"name": "open", "key": ["source.principal"], "connections": {"max": 1}})
    with shop.stranger(shop.papers["caller"]) as first:
        first.send(b"GET /script/plain HTTP/1.1\r\nHost: web\r\n\r\n")
        assert first.replies((b"GET",), 1)[0].status == 200
        with shop.stranger(shop.papers["caller"]) as second:
            second.send(b"GET /script/plain HTTP/1.1\r\nHost: web\r\n\r\n")
            assert second.replies((b"GET",), 1) == []
        assert statuses(shop, shop.authority.issue("other"), 1) == [200]
        with shop.stranger(shop.papers["caller"], alpn=OPAQUE) as third:
            assert third.replies((b"GET",), 1) == []


def test_bytes_of_one_caller_are_slowed_down_over_tls_and_none_is_lost(shop: Shop) -> None:
    """Two connections share the rate: what one could not send in full is not cut short by what the other takes."""
    obey(shop)
    obey(shop, {"name": "pace", "key": ["source.principal"], "bytesPerSecond": {"sent": 150_000}})
    with shop.stranger(shop.papers["caller"]) as one, shop.stranger(shop.papers["caller"]) as other:
        began = time.monotonic()
        for client in (one, other):
            client.send(b"GET /script/long HTTP/1.1\r\nHost: web\r\n\r\n")
        for client in (one, other):
            assert client.replies((b"GET",), 1)[0].body == LONG
        assert time.monotonic() - began >= 2 * len(LONG) / 150_000 * 0.7


def until_refused(shop: Shop, papers: Any) -> tuple[int, float]:
    """How many requests were admitted before the first that was not, and the seconds that took."""
    client = shop.stranger(papers)
    began = time.monotonic()
    with client:
        for admitted in range(1000):
            client.send(b"GET /script/plain HTTP/1.1\r\nHost: web\r\n\r\n")
            if client.replies((b"GET",) * (admitted + 1), admitted + 1)[-1].status == 429:
                return admitted, time.monotonic() - began
    raise AssertionError("never refused")


MISSION = Path(__file__).parent / "data" / "limits.yaml"


def test_the_document_of_the_mission_does_what_it_says(shop: Shop) -> None:
    """100 a minute for each caller, 50 a second for checkout, 5 a second for reports, and 100 a minute by address."""
    read = read_documents(MISSION.read_bytes(), "limits.yaml")
    assert read.problems == ()
    document = read.documents[0].document
    assert isinstance(document.spec, RateLimitPolicy)
    spec = msgspec.to_builtins(limit_policy_of(document.metadata, document.spec))
    by_caller, by_address = spec["limits"]
    obey(shop)
    obey(shop, by_caller, namespace="shop")
    for account, burst, rate in (("reports", 5, 5.0), ("checkout", 50, 50.0), ("other", 100, 100 / 60)):
        admitted, seconds = until_refused(shop, shop.authority.issue(account))
        assert burst <= admitted <= burst + rate * seconds + 1, account
    obey(shop)
    obey(shop, by_address)
    admitted, seconds = until_refused(shop, shop.papers["caller"])
    assert 100 <= admitted <= 100 + seconds / 60 * 100 + 1
    assert statuses(shop, shop.authority.issue("other"), 1) == [429]  # it has the same address
