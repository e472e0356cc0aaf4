"""The bundle and the lists are waited for: by whoever is there, woken by the change itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import trio

from certs import pem
from certs.bundle import Bundle
from certs.revocation import read_crl
from control.problems import Refused
from control.watchable import Waiters
from tests.control.plane import BILLING, SOCKET, Plane, Reply, csr, running


async def until(true: Callable[[], bool]) -> None:
    """Looks again and again: what is waited for happens in the process under test."""
    with trio.fail_after(20):
        while not true():  # noqa: ASYNC110
            await trio.sleep(0.01)


async def test_a_change_ends_the_wait(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        version = (await plane.ask("GET", "/v1/crl", plane.operator)).json["version"]
        replies: list[Reply] = []

        async def wait() -> None:
            path = f"/v1/crl?version={version}&wait=60s"
            replies.append(await plane.ask("GET", path, door=SOCKET, peer=BILLING))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            await until(lambda: plane.control.waiters.waiting == 1)
            with trio.fail_after(10):
                await plane.ask("POST", "/v1/revocations", plane.operator, {"serial": "2A"})
                await until(lambda: bool(replies))
        assert await revoked(plane, replies[0]) == {0x2A}
        assert plane.control.waiters.waiting == 0


async def revoked(plane: Plane, reply: Reply) -> set[int]:
    """The serial numbers in the lists, each of which is checked as a proxy does."""
    bundle = Bundle.from_pem("cluster.local", (await plane.ask("GET", "/v1/bundle", plane.operator)).json["bundle"])
    lists = [read_crl(one["crl"], pem.from_pem(one["chain"]), bundle, plane.clock()) for one in reply.json["lists"]]
    return {serial for one in lists for serial in one.serials}


async def test_a_wait_that_ends_is_304_without_a_body(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        version = (await plane.ask("GET", "/v1/bundle", plane.operator)).json["version"]
        for wait in ("", "&wait=0", "&wait=50ms"):
            reply = await plane.ask("GET", f"/v1/bundle?version={version}{wait}", plane.operator)
            assert (reply.status, reply.body) == (304, b"")


async def test_another_version_is_answered_at_once(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        with trio.fail_after(10):
            for version in ("1.1", "99999999999999.1", f"{plane.control.authority.bundle.version.epoch}.99999"):
                reply = await plane.ask("GET", f"/v1/bundle?version={version}&wait=60s", plane.operator)
                assert reply.status == 200 and reply.json["trustDomain"] == "cluster.local"


@pytest.mark.parametrize("query", ["version=1", "version=a.b", "version=1.1&wait=-1", "wait=soon", "wait=1_0"])
async def test_a_question_that_is_none_is_told(tmp_path: Path, query: str) -> None:
    async with running(tmp_path) as plane:
        reply = await plane.ask("GET", f"/v1/bundle?{query}", plane.operator)
        assert reply.status == 400 and reply.json["detail"].startswith(query.rpartition("&")[2].partition("=")[0])


async def test_who_goes_away_waits_no_longer(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        version = (await plane.ask("GET", "/v1/bundle", plane.operator)).json["version"]
        stream = await plane.connect(SOCKET)
        path = f"/v1/bundle?version={version}&wait=60s"
        head = f"GET {path} HTTP/1.1\r\nhost: c\r\nauthorization: Bearer {plane.operator}\r\n\r\n"
        await stream.send_all(head.encode())
        await until(lambda: plane.control.waiters.waiting == 1)
        await stream.aclose()
        await until(lambda: plane.control.waiters.waiting == 0)


async def test_who_can_not_wait_is_told_to_come_later_and_loses_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        plane.control.waiters.most = 0
        version = (await plane.ask("GET", "/v1/bundle", plane.operator)).json["version"]
        reply = await plane.ask("GET", f"/v1/bundle?version={version}&wait=60s", plane.operator)
        assert reply.status == 503 and reply.headers["retry-after"] == "5"
        assert (await plane.ask("GET", "/v1/bundle", plane.operator)).status == 200


def test_no_caller_takes_more_than_its_share_of_the_room() -> None:
    waiters = Waiters(8)
    with waiters.one("a"), waiters.one("a"):
        with pytest.raises(Refused), waiters.one("a"):
            raise AssertionError("a third one waits")
        with waiters.one("b"):
            assert waiters.waiting == 3
    assert waiters.waiting == 0


async def test_the_end_of_the_process_ends_all_waits(tmp_path: Path) -> None:
    replies: list[Reply] = []
    async with running(tmp_path) as plane:
        version = (await plane.ask("GET", "/v1/bundle", plane.operator)).json["version"]

        async def wait() -> None:
            replies.append(await plane.ask("GET", f"/v1/bundle?version={version}&wait=60s", plane.operator))

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await until(lambda: plane.control.waiters.waiting == 1)
                plane.control.closing.set()
    assert replies[0].status == 304


async def test_an_identity_that_is_revoked_takes_its_certificates_with_it(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        token = await plane.token()
        first = await plane.ask("POST", "/v1/certificates", token, csr())
        serial = pem.from_pem(first.json["chain"])[0].serial_number
        made = await plane.ask("POST", "/v1/revocations", plane.operator, {"spiffeId": str(BILLING)})
        again = await plane.ask("POST", "/v1/revocations", plane.operator, {"spiffeId": str(BILLING)})
        assert again.json == made.json
        assert await revoked(plane, await plane.ask("GET", "/v1/crl", plane.operator)) == {serial}
        assert (await plane.ask("POST", "/v1/certificates", token, csr())).status == 401
        assert (await plane.ask("POST", "/v1/certificates", body=csr(), door=SOCKET, peer=BILLING)).status == 401

        lifted = await plane.ask("DELETE", f"/v1/revocations/{made.json['id']}", plane.operator)
        assert lifted.status == 204
        second = await plane.ask("POST", "/v1/certificates", token, csr())
        assert second.status == 201
        # What was issued before stays revoked: whoever has its key has it still.
        assert await revoked(plane, await plane.ask("GET", "/v1/crl", plane.operator)) == {serial}
        gone = await plane.ask("DELETE", f"/v1/revocations/{made.json['id']}", plane.operator)
        assert gone.status == 404


@pytest.mark.parametrize(
    "body",
    [{}, {"serial": "1", "spiffeId": str(BILLING)}, {"serial": "xyz"}, {"serial": "0"}, {"spiffeId": "billing"},
     {"spiffeId": "spiffe://other/ns/a/sa/b"}, {"spiffeId": "spiffe://cluster.local/ns/sidecar-system/sa/sidecar-control"}],
)  # fmt: skip
async def test_a_revocation_that_can_not_be_is_told(tmp_path: Path, body: object) -> None:
    async with running(tmp_path) as plane:
        reply = await plane.ask("POST", "/v1/revocations", plane.operator, body)
        assert reply.status == 400 and reply.json["detail"]
        assert (await plane.ask("GET", "/v1/revocations", plane.operator)).json == {"revocations": []}


async def test_a_certificate_that_was_revoked_stays_so(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        made = await plane.ask("POST", "/v1/revocations", plane.operator, {"serial": "0A:0b"})
        assert made.json["serial"] == "a0b"
        reply = await plane.ask("DELETE", f"/v1/revocations/{made.json['id']}", plane.operator)
        assert reply.status == 409 and "stays so" in reply.json["detail"]
