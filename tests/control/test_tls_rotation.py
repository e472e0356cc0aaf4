"""The port for sidecars as time goes by: its certificate follows the root and the clock, and its end is orderly."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import trio

from certs import jointoken, pem
from certs.errors import IdentityError, Refusal
from certs.facts import key_id_of
from certs.keys import PublicKey
from control.certificate_authority import Granted
from control.store import StoreFailed
from sidecar.addresses import Address
from sidecar.errors import StartError
from tests.control.overtls import ask, enrol, front, port, s_client, secured
from tests.control.plane import Plane, csr, exchange, running
from tests.control.test_ca_rotation import eventually


async def shown(plane: Plane) -> tuple[int, bytes]:
    """The serial number of the certificate that a new connection sees, and its root's key."""
    async with secured(plane) as stream:
        der = stream.getpeercert(binary_form=True)
    ran = await s_client(plane, "-showcerts")
    chain = pem.from_pem("".join(re.findall(r"-----BEGIN C.*?-----END CERTIFICATE-----\n", ran.out, re.DOTALL)))
    assert der is not None
    return chain[0].serial_number, key_id_of(chain[-1])


async def test_another_root_makes_another_certificate_at_once(tmp_path: Path) -> None:
    async with front(tmp_path) as plane:
        papers = await enrol(plane, tmp_path)
        before, root = await shown(plane)
        async with secured(plane, papers) as old:
            fields = [("host", "sidecar-control")]
            bundle = (await exchange(old, "GET", "/v1/bundle", fields)).json["version"]
            rotated = await plane.ask("POST", "/v1/ca:rotate", plane.operator, {"voidTokens": True, "deadline": "1s"})
            assert rotated.status < 300, rotated
            published = await exchange(old, "GET", f"/v1/bundle?version={bundle}&wait=10s", fields)
            assert published.headers.get("connection") == "close"  # a connection of the certificate before

        async def another() -> bool:
            return (await shown(plane))[1] != root

        await eventually(another)
        serial, now = await shown(plane)
        assert serial != before
        assert now in jointoken.parse(await plane.token()).pins
        # Who belongs to the old root is known as long as that is trusted.
        assert (await ask(plane, "POST", "/v1/certificates", csr(), papers=papers)).status == 201


async def test_its_certificate_is_renewed_at_half_of_its_life(tmp_path: Path) -> None:
    async with front(tmp_path, leaf_ttl=2.0) as plane:
        first, root = await shown(plane)

        async def renewed() -> bool:
            return (await shown(plane))[0] != first

        await eventually(renewed)
        assert (await shown(plane))[1] == root


async def test_a_renewal_that_fails_is_tried_again_and_the_old_one_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("control.server_certificate.RETRY_SECONDS", 0.05)
    async with front(tmp_path, leaf_ttl=2.0) as plane:
        authority, failures = plane.control.authority, [IdentityError(Refusal.EXPIRED, "ended"), StoreFailed("full")]
        issue_own = authority.issue_own

        async def failing(key: PublicKey) -> Granted:
            if failures:
                raise failures.pop(0)
            return await issue_own(key)

        first, _ = await shown(plane)
        monkeypatch.setattr(authority, "issue_own", failing)

        async def renewed() -> bool:
            return (await shown(plane))[0] != first

        await eventually(renewed)
        assert not failures
        assert caplog.text.count("--tls-listen: no new certificate, tried again in 0.05 s: ") == 2


async def test_the_end_is_orderly(tmp_path: Path) -> None:
    """A call that waits is answered, the connection is closed, and nobody gets in afterwards."""
    async with front(tmp_path) as plane:
        token = await plane.token()
        fields = [("host", "a"), ("authorization", f"Bearer {token}")]
        async with secured(plane) as stream:
            version = (await exchange(stream, "GET", "/v1/bundle", fields)).json["version"]
            answers = []

            async def wait() -> None:
                answers.append(await exchange(stream, "GET", f"/v1/bundle?version={version}&wait=60s", fields))

            async def waiting() -> bool:
                return plane.control.waiters.waiting == 1

            with trio.fail_after(10):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(wait)
                    await eventually(waiting)
                    plane.control.closing.set()
        assert [(reply.status, reply.headers.get("connection")) for reply in answers] == [(304, "close")]


async def test_a_port_that_is_taken_is_told_by_its_flag(tmp_path: Path) -> None:
    async with front(tmp_path) as plane:
        other = tmp_path / "other"
        other.mkdir()
        with pytest.raises(StartError, match=r"^--tls-listen: cannot listen on 127\.0\.0\.1:"):
            async with running(other, tls_listen=(Address("127.0.0.1", port(plane)),)):
                pass
