"""Policies in a line each, and the request that tests of them judge."""

from __future__ import annotations

import msgspec

from sidecar.policy.authorize import Asked
from sidecar.policy.rbac import Judgement
from sidecar.resources.authorization import PolicySpec
from tests.support.rbac_drawing import compiled

TRUST_DOMAIN = "mesh.test"
GET = Asked(
    "inbound", "spiffe://mesh.test/ns/shop/sa/web", "10.1.2.3", "app", "HTTP", b"GET", b"/app/x?q=1", b"app.shop:8080",
    b"app.shop", "203.0.113.9", ("192.168.0.7", 8080), ((b"x-user", b"ann"), (b"X-Role", b"dev")),
)  # fmt: skip
OPAQUE = Asked("inbound", GET.peer, GET.client, "app", "TCP", remote=GET.client, place=GET.place)
ANYONE: list[dict] = [{}]


def policy(action: str, rules: list, name: str = "p", **fields: object) -> PolicySpec:
    return msgspec.convert(
        {"name": name, "namespace": "shop", "action": action, "rules": rules, **fields}, PolicySpec, strict=True
    )


def source(**fields: list[str]) -> dict:
    return {"from": [{"source": fields}]}


def operation(**fields: list[str]) -> dict:
    return {"to": [{"operation": fields}]}


def when(key: str, *values: str, **fields: list[str]) -> dict:
    return {"when": [{"key": key, "values": list(values), **fields}]}


def changed(asked: Asked = GET, **fields: object) -> Asked:
    return msgspec.structs.replace(asked, **fields)


def judge(*policies: PolicySpec, asked: Asked = GET) -> Judgement:
    return compiled(policies, TRUST_DOMAIN).judge(asked)


ALL_DENY, ALL_ALLOW = policy("DENY", ANYONE, "deny"), policy("ALLOW", ANYONE, "allow")
