"""A root is replaced: nobody meets a certificate whose root it does not know, and what was voided is void."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from certs import facts, jointoken, pem
from certs.bundle import Bundle, Bundles
from certs.keys import new_key
from certs.revocation import Revocations
from certs.verify import verify_peer
from tests.control.plane import BILLING, ORDERS, SOCKET, Plane, csr, running


async def eventually(true: Callable[[], Awaitable[bool]]) -> None:
    with trio.fail_after(20):
        while not await true():  # noqa: ASYNC110 - it is asked over HTTP
            await trio.sleep(0.02)


async def phases(plane: Plane) -> list[str]:
    ca = (await plane.ask("GET", "/v1/ca", plane.operator)).json
    return sorted(root["phase"] for root in ca["roots"])


async def test_tokens_that_pin_the_old_root_are_named_and_void_after_a_yes(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        token, operator = await plane.token(), plane.operator
        assert (await plane.ask("POST", "/v1/certificates", token, csr())).status == 201  # somebody to wait for
        asked = await plane.ask("POST", "/v1/ca:rotate", operator)
        assert asked.status == 409 and "voidTokens" in asked.json["detail"]
        assert [named["id"] for named in asked.json["tokens"]] == [token.split(".")[1]]
        assert await phases(plane) == ["issuing"]

        done = await plane.ask("POST", "/v1/ca:rotate", operator, {"voidTokens": True, "deadline": "60s"})
        assert done.status == 202
        assert (await plane.ask("POST", "/v1/certificates", token, csr())).status == 401
        # The operator's own file has the same secret, and both roots.
        before, after = jointoken.parse(operator), jointoken.parse(plane.operator)
        assert (before.id, before.secret) == (after.id, after.secret)
        assert after.pins[0] == before.pins[0] and len(after.pins) == 2
        # A token that is made meanwhile is good before and after the new root issues.
        assert jointoken.parse(await plane.token()).pins == after.pins


async def test_a_root_issues_when_every_proxy_has_confirmed_it(tmp_path: Path) -> None:
    async with running(tmp_path, leaf_ttl=3600.0) as plane:
        for identity in (BILLING, ORDERS):
            made = await plane.ask("POST", "/v1/certificates", await plane.token(identity), csr(identity))
            assert made.status == 201
        old = (await plane.ask("GET", "/v1/bundle", plane.operator)).json
        await plane.ask("POST", "/v1/ca:rotate", plane.operator, {"voidTokens": True, "deadline": "1h"})
        new = (await plane.ask("GET", "/v1/bundle", plane.operator)).json
        assert len(pem.from_pem(new["bundle"])) == 2 and new["version"] != old["version"]
        again = await plane.ask("POST", "/v1/ca:rotate", plane.operator, {"voidTokens": True})
        assert again.status == 409 and "under way" in again.json["detail"]

        confirm = f"/v1/bundle?version={new['version']}"
        ca = (await plane.ask("GET", "/v1/ca", plane.operator)).json
        assert ca["unconfirmed"] == [str(BILLING), str(ORDERS)]
        await plane.ask("GET", confirm, door=SOCKET, peer=BILLING)
        ca = (await plane.ask("GET", "/v1/ca", plane.operator)).json
        assert ca["unconfirmed"] == [str(ORDERS)] and await phases(plane) == ["issuing", "published"]
        # A replica that was heard of and holds the old one is waited for as well.
        await plane.ask("GET", f"/v1/bundle?version={old['version']}", door=SOCKET, peer=BILLING, fingerprint="11" * 32)
        await plane.ask("GET", confirm, door=SOCKET, peer=ORDERS)
        assert await phases(plane) == ["issuing", "published"]
        await plane.ask("GET", confirm, door=SOCKET, peer=BILLING, fingerprint="11" * 32)

        async def switched() -> bool:
            return await phases(plane) == ["issuing", "retiring"]

        await eventually(switched)
        made = await plane.ask("POST", "/v1/certificates", body=csr(), door=SOCKET, peer=BILLING)
        assert pem.from_pem(made.json["bundle"])[0] != pem.from_pem(old["bundle"])[0]


async def test_the_whole_way_and_through_a_restart(tmp_path: Path) -> None:
    """Deadline, issue, retire, drop; the process ends in the middle of each, and goes on."""
    async with running(tmp_path, leaf_ttl=3.0) as plane:
        first = await plane.ask("POST", "/v1/certificates", await plane.token(), csr())
        await plane.ask("POST", "/v1/ca:rotate", plane.operator, {"voidTokens": True, "deadline": "1s"})
        assert await phases(plane) == ["issuing", "published"]
    async with running(tmp_path, leaf_ttl=3.0) as plane:

        async def switched() -> bool:
            return await phases(plane) == ["issuing", "retiring"]

        await eventually(switched)
        second = await plane.ask("POST", "/v1/certificates", body=csr(), door=SOCKET, peer=BILLING)
        bundles = Bundles.of(Bundle.from_pem("cluster.local", second.json["bundle"]))
        for made in (first, second):  # both are good wherever the bundle has arrived
            chain = pem.from_pem(made.json["chain"])
            at = chain[0].not_valid_before_utc.timestamp() + 301
            assert verify_peer(chain, bundles, Revocations(), at, expected=frozenset({BILLING})).spiffe_id == BILLING
        lists = (await plane.ask("GET", "/v1/crl", plane.operator)).json["lists"]
        assert len(lists) == 2
    async with running(tmp_path, leaf_ttl=3.0) as plane:

        async def alone() -> bool:
            return await phases(plane) == ["issuing"]

        await eventually(alone)
        bundle = (await plane.ask("GET", "/v1/bundle", plane.operator)).json["bundle"]
        assert pem.from_pem(bundle) == pem.from_pem(second.json["bundle"])[:1]
        assert (tmp_path / "ca" / "root.pem").read_text() == bundle


async def test_the_control_planes_own_certificate_comes_with_the_root(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        key = new_key()
        granted = await plane.control.authority.issue_own(key.public_key())
        chain = pem.from_pem(granted.chain)
        bundles = Bundles.of(Bundle.from_pem("cluster.local", granted.roots))
        own = frozenset({plane.control.control_id})
        verify_peer(chain[:-1], bundles, Revocations(), plane.clock(), expected=own)
        assert chain[-1:] == pem.from_pem(granted.roots)


async def test_a_deadline_that_is_none_is_told(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        for deadline in ("soon", "0s", "100000h"):
            reply = await plane.ask("POST", "/v1/ca:rotate", plane.operator, {"deadline": deadline, "voidTokens": True})
            assert reply.status == 400 and reply.json["detail"].startswith("deadline: ")


async def test_a_rotation_right_after_a_revocation_was_lifted_waits_for_nobody_that_is_gone(tmp_path: Path) -> None:
    """The clock stands still: who is waited for until nobody has heard of it for a while is waited for for ever."""
    async with running(tmp_path, leaf_ttl=3600.0) as plane:
        plane.clock.stop()
        token, operator = await plane.token(), plane.operator

        async def certificate() -> str:
            made = await plane.ask("POST", "/v1/certificates", token, csr())
            assert made.status == 201
            return facts.read(pem.from_pem(made.json["chain"])[0]).digest.hex()

        version = (await plane.ask("GET", "/v1/bundle", operator)).json["version"]
        held, before = f"/v1/bundle?version={version}", await certificate()
        assert (await plane.ask("GET", held, door=SOCKET, peer=BILLING, fingerprint=before)).status == 304
        revoked = (await plane.ask("POST", "/v1/revocations", operator, {"spiffeId": str(BILLING)})).json
        assert (await plane.ask("DELETE", f"/v1/revocations/{revoked['id']}", operator)).status == 204
        plane.clock.ahead += 1.0  # what is issued at the very moment of the lift is taken back as well
        assert (await plane.ask("GET", held, token)).status == 304  # as a sidecar does whose certificate is refused
        after = await certificate()
        assert (await plane.ask("GET", held, door=SOCKET, peer=BILLING, fingerprint=after)).status == 304

        await plane.ask("POST", "/v1/ca:rotate", operator, {"voidTokens": True, "deadline": "1h"})
        fresh = (await plane.ask("GET", "/v1/bundle", operator)).json["version"]
        assert (await plane.ask("GET", "/v1/ca", operator)).json["unconfirmed"] == [str(BILLING)]
        confirm = f"/v1/bundle?version={fresh}"
        assert (await plane.ask("GET", confirm, door=SOCKET, peer=BILLING, fingerprint=after)).status == 304

        async def switched() -> bool:
            return await phases(plane) == ["issuing", "retiring"]

        await eventually(switched)


async def test_a_rotation_goes_on_when_whom_it_waits_for_is_revoked(tmp_path: Path) -> None:
    async with running(tmp_path, leaf_ttl=3600.0) as plane:
        assert (await plane.ask("POST", "/v1/certificates", await plane.token(), csr())).status == 201
        await plane.ask("POST", "/v1/ca:rotate", plane.operator, {"voidTokens": True, "deadline": "1h"})
        assert await phases(plane) == ["issuing", "published"]
        await plane.ask("POST", "/v1/revocations", plane.operator, {"spiffeId": str(BILLING)})

        async def switched() -> bool:
            return await phases(plane) == ["issuing", "retiring"]

        await eventually(switched)
