"""Every call with every kind of caller at the port for sidecars, by real handshakes: the same table as on loopback.

What a caller shows there may be a certificate, a token, or both; a token that is shown decides alone. Two workloads are
there: what one may do for itself it may not do for the other.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from certs.spiffe import SpiffeId
from control.routes import CALLS, Call
from tests.control import kubeapi, test_roles
from tests.control.overtls import Papers, ask, enrol, front
from tests.control.plane import BILLING, ORDERS, Plane, with_another_secret
from tests.control.test_roles import EVERYONE, OPEN, OPERATOR, OWN, READER, prepared

WORKLOAD = EVERYONE | OPEN | test_roles.WORKLOAD
NOBODY = (OPEN, {401})
# What is shown, for whom a certificate is asked for: what it may do, and what the rest is answered.
CALLERS: dict[str, tuple[set[str], set[int]]] = {
    "nothing": NOBODY,
    "billing's certificate": (WORKLOAD, {403}),
    "billing's certificate, for orders": (WORKLOAD - OWN, {401, 403}),
    "billing's certificate and its token": (WORKLOAD, {403}),
    "billing's certificate and orders' token": (WORKLOAD - OWN, {401, 403}),
    "billing's certificate and orders' token, for orders": (WORKLOAD, {403}),
    "billing's certificate and a wrong token": NOBODY,
    "billing's token": (WORKLOAD, {403}),
    "billing's token, for orders": (WORKLOAD - OWN, {401, 403}),
    "billing's token of the cluster": (WORKLOAD, {403}),
    "billing's token of the cluster, for orders": (WORKLOAD - OWN, {401, 403}),
    "an operator's token": (EVERYONE | OPEN | OPERATOR | READER, {403}),
    "billing's certificate and an operator's token": (EVERYONE | OPEN | OPERATOR | READER, {403}),
    "a reader's token": (EVERYONE | OPEN | READER, {403}),
    "billing's certificate and a reader's token": (EVERYONE | OPEN | READER, {403}),
    "a wrong token": NOBODY,
    "a token that was deleted": NOBODY,
    "a token of a revoked identity": NOBODY,
}


async def token_of(plane: Plane, who: str) -> str:
    """The token that this caller shows; empty where it shows none."""
    if "wrong token" in who:
        return with_another_secret(plane.operator)
    if "operator's token" in who:
        return plane.operator
    if "reader's token" in who:
        made = await plane.ask("POST", "/v1/tokens", plane.operator, {"role": "reader"})
        return str(made.json["token"])
    if "token of the cluster" in who:
        return kubeapi.token()
    if "token that was deleted" in who:
        token = await plane.token()
        gone = await plane.ask("DELETE", f"/v1/tokens/{token.split('.')[1]}", plane.operator)
        assert gone.status < 300, gone
        return token
    if "revoked identity" in who:
        token = await plane.token()
        made = await plane.ask("POST", "/v1/revocations", plane.operator, {"spiffeId": str(BILLING)})
        assert made.status == 201, made
        return token
    return await plane.token(ORDERS if "orders' token" in who else BILLING) if "token" in who else ""


async def status_of(plane: Plane, call: Call, wanted: SpiffeId, papers: Papers | None, token: str) -> int:
    path, body = await prepared(plane, call, wanted)
    return (await ask(plane, call.method, path, body, papers=papers, token=token)).status


@pytest.mark.parametrize("who", CALLERS)
async def test_a_caller_can_do_what_its_role_lists_and_nothing_else(tmp_path: Path, who: str) -> None:
    keys = tmp_path / "jwks.json"
    keys.write_bytes(kubeapi.jwks())
    may, refusals = CALLERS[who]
    async with front(tmp_path, kube_jwks=str(keys), kube_audience=kubeapi.AUDIENCE) as plane:
        papers = await enrol(plane, tmp_path) if "billing's certificate" in who else None
        token = await token_of(plane, who)
        wanted = ORDERS if who.endswith("for orders") else BILLING
        got = {call.name: await status_of(plane, call, wanted, papers, token) for call in CALLS}
    assert {name for name, status in got.items() if status < 400} == may
    assert {status for name, status in got.items() if name not in may} <= refusals


async def test_another_workloads_things_are_out_of_reach(tmp_path: Path) -> None:
    """Calls that name a thing by its id: it does not help to know the id, nor does it show whether there is one."""
    async with front(tmp_path) as plane:
        papers = await enrol(plane, tmp_path)
        theirs = (await plane.token(ORDERS)).split(".")[1]
        entry = await plane.ask("POST", "/v1/revocations", plane.operator, {"serial": "01"})
        for there, none in (
            (f"/v1/tokens/{theirs}", "/v1/tokens/0123456789abcdef"),
            (f"/v1/revocations/{entry.json['id']}", "/v1/revocations/id-00"),
        ):
            refused = [await ask(plane, "DELETE", path, papers=papers) for path in (there, none)]
            assert [each.status for each in refused] == [403, 403]
            assert refused[0].told == refused[1].told
        tokens = (await plane.ask("GET", "/v1/tokens", plane.operator)).json["tokens"]
        assert theirs in {each["id"] for each in tokens}
