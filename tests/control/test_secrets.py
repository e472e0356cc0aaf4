"""What is secret is where it belongs, and nowhere else; the search is tried on something that it must find."""

from __future__ import annotations

import base64
import logging
import os
from pathlib import Path

import pytest

from certs import jointoken
from certs.keys import key_to_pem
from control.issued_certificates import Ledger
from tests.control import kubeapi
from tests.control.plane import BILLING, SOCKET, Plane, csr, running

BELONGS = {"authority.json", "operator-token"}


def forms(secret: bytes) -> set[bytes]:
    """How a secret may be written."""
    plain = base64.b64encode(secret)
    return {secret, secret.hex().encode(), plain.rstrip(b"="), base64.urlsafe_b64encode(secret).rstrip(b"=")}


def places(plane: Plane, secret: bytes, told: bytes) -> set[str]:
    """Where it is: names of files, "answers", "log"."""
    data = {path.name: path.read_bytes() for path in plane.directory.parent.rglob("*") if path.is_file()}
    data |= {"answers": b"".join(plane.seen), "log": told}
    return {name for name, content in data.items() if any(form in content for form in forms(secret))}


async def everything(plane: Plane) -> list[bytes]:
    """Calls that bring secrets near everything that writes; returns the secrets."""
    token = await plane.token()
    single = await plane.token(singleUse=True)
    kube = kubeapi.token()
    for shown in (token, single, kube, token + "x", kube + "x", "sct1." + token):
        await plane.ask("POST", "/v1/certificates", shown, csr())
        await plane.ask("POST", "/v1/tokens", shown, {"role": shown})
        await plane.ask("GET", f"/v1/bundle?version={shown}", plane.operator)
        await plane.ask("DELETE", f"/v1/tokens/{shown}", plane.operator)
        await plane.ask("POST", "/v1/tokens", plane.operator, {"role": "reader", "ttl": shown[:8]})
        await plane.ask("POST", "/v1/certificates", shown, {"csr": shown})
        await plane.ask("GET", "/v1/bundle", door=SOCKET, headers={"x-forwarded-client-cert": shown})
    await plane.ask("POST", "/v1/certificates", body=csr(), door=SOCKET, peer=BILLING)
    await plane.ask("POST", "/v1/ca:rotate", plane.operator, {"voidTokens": True, "deadline": "1h"})
    for path in ("/v1/tokens", "/v1/ca", "/v1/revocations", "/metrics", "/healthz", "/readyz"):
        await plane.ask("GET", path, plane.operator)
    keys = [key_to_pem(one.issuer.key).splitlines()[1] for one in plane.control.authority.generations]
    return [jointoken.parse(token).secret, jointoken.parse(single).secret, kube.encode(), *keys]


async def test_no_secret_is_anywhere_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    keys = tmp_path / "jwks.json"
    keys.write_bytes(kubeapi.jwks())
    async with running(tmp_path, kube_jwks=str(keys), kube_audience=kubeapi.AUDIENCE) as plane:
        secrets = await everything(plane)
        told = caplog.text.encode() + repr(plane.control.authority.generations).encode()
        assert places(plane, jointoken.parse(plane.operator).secret, told) == {"operator-token"}
        for secret in secrets:
            assert places(plane, secret, told) <= BELONGS
        assert any("authority.json" in places(plane, secret, told) for secret in secrets), "the search finds keys"
        told += base64.b64encode(secrets[0])
        assert "log" in places(plane, secrets[0], told), "and what was logged"


async def test_with_a_ca_in_memory_no_key_is_on_the_disk(tmp_path: Path) -> None:
    async with running(tmp_path, ca="memory") as plane:
        await plane.ask("POST", "/v1/certificates", await plane.token(), csr())
        key = key_to_pem(plane.control.authority.issuer.key).splitlines()[1]
        assert places(plane, key, b"") == set()


async def test_the_audit_log_says_who_did_what_and_what_came_of_it(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        token = await plane.token()
        made = await plane.ask("POST", "/v1/certificates", token, csr())
        refused = await plane.ask("GET", "/v1/ca", token)
        await plane.ask("GET", "/v1/bundle", token)
        lines = plane.audit()
        assert [(line["what"], line["verdict"], line["status"]) for line in lines] == [
            ("tokens.create", "granted", 201),
            ("certificates.issue", "granted", 201),
            ("ca.get", "refused", 403),
        ]
        assert lines[1]["subject"].startswith(f"{BILLING} serial ")
        assert lines[1]["who"] == f"token:{jointoken.parse(token).id}" and lines[1]["peer"] == "127.0.0.1"
        assert [lines[1]["id"], lines[2]["id"]] == [made.headers["x-request-id"], refused.headers["x-request-id"]]
        assert lines[2]["reason"] == "not for the role workload"


async def test_what_can_not_be_written_down_is_not_granted(tmp_path: Path) -> None:
    full = os.open("/dev/full", os.O_WRONLY)  # every write fails, as on a full disk
    async with running(tmp_path) as plane:
        token = await plane.token()
        descriptor, plane.control.audit._descriptor = plane.control.audit._descriptor, full
        reply = await plane.ask("POST", "/v1/certificates", token, csr())
        plane.control.audit._descriptor = descriptor
        os.close(full)
        assert reply.status == 503 and b"BEGIN" not in reply.body
        assert (await plane.ask("POST", "/v1/certificates", token, csr())).status == 201


async def test_a_log_that_was_moved_away_goes_on_in_a_new_file(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        await plane.token()
        (tmp_path / "audit.jsonl").rename(tmp_path / "audit.1")
        plane.control.audit.reopen()
        await plane.token()
        assert len(plane.audit()) == 1 and len((tmp_path / "audit.1").read_bytes().splitlines()) == 1


async def test_figures_tell_how_many_and_not_why(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        await plane.ask("POST", "/v1/certificates", "sct1.x", csr())
        await plane.ask("POST", "/v1/certificates", await plane.token(), csr())
        text = (await plane.ask("GET", "/metrics")).body.decode()
        assert 'sidecar_control_calls_total{call="certificates.issue",verdict="refused"} 1.0' in text
        assert 'sidecar_control_calls_total{call="certificates.issue",verdict="granted"} 1.0' in text
        assert "sidecar_control_certificates 1.0" in text
        assert str(BILLING) not in text


async def test_a_mistake_of_ours_is_500_and_tells_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def mistake(ledger: Ledger) -> None:
        raise LookupError("what nobody thought of")

    monkeypatch.setattr(Ledger, "ping", mistake)
    async with running(tmp_path) as plane:
        reply = await plane.ask("GET", "/readyz")
        assert reply.status == 500
        told = {"type": "about:blank", "title": "Internal Server Error", "status": 500}
        assert reply.json == told | {"request_id": reply.headers["x-request-id"]}
        assert "what nobody thought of" in caplog.text
        assert (await plane.ask("GET", "/healthz")).status == 200
