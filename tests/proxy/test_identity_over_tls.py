"""A proxy and a real control plane over TLS: whom the proxy trusts at first, and what it shows afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from certs import jointoken
from sidecar.control_url import CONTROL_ID
from sidecar.feed.wiring import control_caller, identity_feed
from sidecar.identity import Identity
from sidecar.settings import load
from tests.control.overtls import front, port, roots
from tests.control.plane import BILLING, Plane
from tests.proxy.fickle import Clock, Fed, Fickle


@asynccontextmanager
async def joined(plane: Plane, path: Path, token: str, **flags: str) -> AsyncIterator[Fed]:
    """A feed that joins with this token."""
    (path / "token").write_text(token)
    told = {
        "control": f"https://127.0.0.1:{port(plane)}", "token_file": str(path / "token"), "namespace": "shop",
        "service_account": "billing", "upstream": "127.0.0.1:1", **flags,
    }  # fmt: skip
    clock = Clock()
    identity = Identity(set(), clock)
    caller = control_caller(load(told, {}), identity, set(), clock, chance=lambda: 0.0)
    feed = identity_feed(load(told, {}), identity, caller)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed.run)
        yield Fed(Fickle(path / "unused"), identity, feed, caller, clock)
        nursery.cancel_scope.cancel()
    caller.close()


def callers(plane: Plane, what: str) -> list[str]:
    return [line["who"] for line in plane.audit() if line["what"] == what]


async def test_a_join_token_is_enough_and_then_the_certificate_is(tmp_path: Path) -> None:
    async with front(tmp_path) as plane:
        token = await plane.token(singleUse=True)
        async with joined(plane, tmp_path, token) as proxy:
            await proxy.until(lambda: proxy.feed.tally.lists_version)
            (tmp_path / "token").unlink()
            proxy.feed.renew_now()
            await proxy.renewed(2)
            assert not proxy.errors and proxy.identity.spiffe_id == BILLING
        asked = callers(plane, "certificates.issue")
        assert [who.partition(":")[0] for who in asked] == ["token", "spiffe"]


async def test_a_token_that_pins_another_root_is_not_sent_there(tmp_path: Path) -> None:
    async with front(tmp_path) as plane:
        token = str(replace(jointoken.parse(await plane.token()), pins=(b"\x00" * 32,)))
        async with joined(plane, tmp_path, token) as proxy:
            await proxy.until(lambda: ("certificate", "handshake_unknown_authority") in proxy.errors)
            assert proxy.identity.generation is None and not callers(plane, "certificates.issue")


async def test_a_control_plane_with_another_id_is_not_told_the_token(tmp_path: Path) -> None:
    async with front(tmp_path) as plane:
        token = str(replace(jointoken.parse(await plane.token()), control_id=CONTROL_ID + "-2"))
        async with joined(plane, tmp_path, token) as proxy:
            await proxy.until(lambda: ("certificate", "handshake_wrong_identity") in proxy.errors)
            assert proxy.identity.generation is None and not callers(plane, "certificates.issue")


async def test_a_token_of_another_account_is_told_with_who_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with front(tmp_path) as plane:
        async with joined(plane, tmp_path, await plane.token(), service_account="another") as proxy:
            await proxy.until(lambda: ("certificate", "unauthenticated") in proxy.errors)
    (line,) = (each for each in caplog.messages if "refuses this proxy" in each)
    assert (
        "/sa/another: that identity is revoked, or the token is void, or was made for another --namespace and" in line
    )


async def test_a_token_of_another_kind_goes_to_whom_the_ca_file_says(tmp_path: Path) -> None:
    """It is refused there, by a control plane that takes none of that kind; but it was the right one."""
    async with front(tmp_path) as plane:
        async with joined(plane, tmp_path, "eyJ.e30.x", control_ca=str(roots(plane))) as proxy:
            await proxy.until(lambda: ("certificate", "unauthenticated") in proxy.errors)
        async with joined(plane, tmp_path, "eyJ.e30.x") as proxy:
            await proxy.until(lambda: ("certificate", "no_trust") in proxy.errors)


@pytest.mark.parametrize("text", ["", "hello", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"])
async def test_a_ca_file_that_says_nothing_trusts_nobody(tmp_path: Path, text: str) -> None:
    async with front(tmp_path) as plane:
        (tmp_path / "ca.pem").write_text(text)
        async with joined(plane, tmp_path, await plane.token(), control_ca=str(tmp_path / "ca.pem")) as proxy:
            await proxy.until(lambda: ("certificate", "no_trust") in proxy.errors)


async def test_a_certificate_that_was_taken_back_is_replaced_by_the_token(tmp_path: Path) -> None:
    async with front(tmp_path) as plane:
        async with joined(plane, tmp_path, await plane.token()) as proxy:
            await proxy.until(lambda: proxy.feed.tally.lists_version)
            before = proxy.identity.require().credentials.chain[0].serial_number
            reply = await plane.ask("POST", "/v1/revocations", plane.operator, {"serial": f"{before:x}"})
            assert reply.status == 201
            await proxy.renewed(2)
            assert proxy.identity.require().credentials.chain[0].serial_number != before
        assert [who.partition(":")[0] for who in callers(plane, "certificates.issue")][-1] == "token"


async def test_a_rotation_reaches_the_proxy_and_its_next_certificate_is_of_the_new_root(tmp_path: Path) -> None:
    async with front(tmp_path) as plane:
        async with joined(plane, tmp_path, await plane.token()) as proxy:
            await proxy.until(lambda: proxy.feed.tally.lists_version)
            before = proxy.identity.require()
            reply = await plane.ask("POST", "/v1/ca:rotate", plane.operator, {"voidTokens": True, "deadline": "1h"})
            assert reply.status == 202
            await proxy.until(lambda: proxy.identity.require() is not before)
            assert [len(each.roots) for each in proxy.identity.require().credentials.bundles] == [2]
            # The control plane issues from it once this proxy has come back for what is newer than that bundle.
            await proxy.until(lambda: plane.control.authority.generations[-1].phase.value == "issuing")
            proxy.feed.renew_now()
            await proxy.renewed(2)
            after = proxy.identity.require().credentials.chain
            assert after[0].issuer != before.credentials.chain[0].issuer and not proxy.errors
