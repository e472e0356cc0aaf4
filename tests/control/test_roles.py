"""Every call with every kind of caller: the table of calls is walked, and nothing outside it can be reached."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from certs.spiffe import SpiffeId
from control.routes import CALLS, Call, Role
from tests.control.plane import BILLING, ORDERS, PLAIN, SOCKET, Plane, csr, running, with_another_secret

SERVICE: dict[str, Any] = {
    "apiVersion": "sidecar/v1",
    "kind": "Service",
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": {"ports": [{"port": 80}], "serviceAccounts": ["web"]},
}

# Who may do what, written down a second time: the table can't be changed without this.
OPERATOR = {
    "revocations.list", "revocations.add", "revocations.lift", "ca.rotate", "ca.get",
    "tokens.create", "tokens.list", "tokens.delete",
    "resources.put", "resources.delete", "resources.apply", "resources.check", "resources.rollback",
    "services.put", "services.delete", "backup.get",
}  # fmt: skip
READER = {
    "resources.list", "resources.of", "resources.get", "resources.history", "proxies.list",
    "services.list", "services.get",
}  # fmt: skip
OWN = {"certificates.issue", "endpoints.put", "endpoints.heartbeat", "endpoints.delete"}  # for one identity alone
WORKLOAD = OWN | {"snapshot.get", "snapshot.status"}
EVERYONE = {"bundle.get", "crl.get"}
OPEN = {"healthz", "readyz", "metrics", "openapi.get"}
MAY = {
    "workload by token": EVERYONE | OPEN | WORKLOAD,
    "workload by certificate": EVERYONE | OPEN | WORKLOAD,
    "operator": EVERYONE | OPEN | OPERATOR | READER,
    "reader": EVERYONE | OPEN | READER,
    "nobody": OPEN,
    "nobody on the socket": OPEN,
    "a certificate at the plain door": OPEN,
    "a wrong token": OPEN,
}


def test_every_call_is_in_the_second_table() -> None:
    assert {call.name for call in CALLS} == OPERATOR | READER | EVERYONE | OPEN | WORKLOAD


async def prepared(plane: Plane, call: Call, identity: SpiffeId) -> tuple[str, object]:
    """Path and body of a request that is right in all but its caller; ``identity`` is whose certificate it asks for."""
    body: object = None
    path = call.path
    if call.name == "certificates.issue":
        body = csr(identity)
    elif call.name == "snapshot.status":
        body = {"version": "1.1", "accepted": True}
    elif call.name == "tokens.create":
        body = {"role": "reader"}
    elif call.name == "revocations.add":
        body = {"serial": "01"}
    elif call.name == "revocations.lift":
        entry = await plane.ask(
            "POST", "/v1/revocations", plane.operator, {"spiffeId": "spiffe://cluster.local/ns/a/sa/b"}
        )
        path = path.replace("{id}", entry.json["id"])
    elif call.name == "tokens.delete":
        made = await plane.ask("POST", "/v1/tokens", plane.operator, {"role": "reader"})
        path = path.replace("{id}", made.json["id"])
    elif call.name == "ca.rotate":
        body = {"voidTokens": True}
    elif call.name.startswith("endpoints."):
        return await prepared_endpoint(plane, call, identity)
    elif call.name.startswith(("resources.", "services.")):
        return await prepared_document(plane, call)
    return path, body


async def prepared_endpoint(plane: Plane, call: Call, identity: SpiffeId) -> tuple[str, object]:
    """Likewise, for an endpoint of a service that this identity alone may serve."""
    namespace, account = identity.workload() or ("", "")
    service = {"ports": [{"port": 80}], "serviceAccounts": [account]}
    there = await plane.ask("PUT", f"/v1/services/{namespace}/{account}", plane.operator, service)
    assert there.status < 300, there
    path = call.path.replace("{namespace}", namespace).replace("{name}", account).replace("{id}", "one")
    return path, {"healthy": True} if call.method != "DELETE" else None


async def prepared_document(plane: Plane, call: Call) -> tuple[str, object]:
    """Likewise, for calls about a document, which is there."""
    there = await plane.ask("PUT", "/v1/services/shop/web", plane.operator, SERVICE["spec"])
    assert there.status < 300, there
    path = call.path.replace("{kind}", "Service").replace("{namespace}", "shop").replace("{name}", "web")
    if call.name == "resources.rollback":
        return path, {"kind": "Service", "namespace": "shop", "name": "web", "generation": there.json["generation"]}
    if call.name == "services.put":
        return path, SERVICE["spec"]
    return path, SERVICE if call.name in ("resources.put", "resources.apply", "resources.check") else None


async def ask_as(plane: Plane, who: str, call: Call) -> int:
    """The status that this caller gets, for a request that is right in all else."""
    path, body = await prepared(plane, call, ORDERS if who == "workload by certificate" else BILLING)
    token, door, peer, headers = "", PLAIN, None, {"x-forwarded-for": "192.0.2.7"}  # as our inbound says it
    if who == "workload by token":
        token = await plane.token()
    elif who == "workload by certificate":
        door, peer = SOCKET, ORDERS
    elif who == "operator":
        token = plane.operator
    elif who == "reader":
        made = await plane.ask("POST", "/v1/tokens", plane.operator, {"role": "reader"})
        token = made.json["token"]
    elif who == "nobody on the socket":
        door = SOCKET
    elif who == "a certificate at the plain door":
        peer = BILLING
    elif who == "a wrong token":
        token = with_another_secret(plane.operator)
    return (await plane.ask(call.method, path, token, body, door=door, peer=peer, headers=headers)).status


@pytest.mark.parametrize("who", MAY)
async def test_a_caller_can_do_what_its_role_lists_and_nothing_else(tmp_path: Path, who: str) -> None:
    async with running(tmp_path) as plane:
        got = {call.name: await ask_as(plane, who, call) for call in CALLS}
    allowed = {name for name, status in got.items() if status < 400}
    assert allowed == MAY[who]
    refused = {status for name, status in got.items() if name not in MAY[who]}
    assert refused <= ({403} if who in ("operator", "reader") or who.startswith("workload") else {401})


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/nothing"), ("PUT", "/v1/tokens"), ("GET", "/v1/bundle/")])
async def test_what_is_in_no_row_is_refused_and_only_callers_learn_how(tmp_path: Path, method: str, path: str) -> None:
    async with running(tmp_path) as plane:
        assert (await plane.ask(method, path)).status == 401
        assert (await plane.ask(method, path, plane.operator)).status == (405 if method == "PUT" else 404)


def test_roles_are_three() -> None:
    assert [role.value for role in Role] == ["workload", "operator", "reader"]
