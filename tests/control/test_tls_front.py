"""The port for sidecars (15012): who gets in, as whom, and what can't be smuggled past the API. CTL-1 over TLS."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
import trio

from certs import jointoken, pem
from certs.bundle import Bundle, Bundles
from certs.facts import key_id_of
from certs.issue import new_root
from certs.keys import key_to_pem, new_key, new_serial
from certs.revocation import Revocations
from certs.verify import verify_peer
from certs.xfcc import element
from control import rate_limits
from control.routes import CALLS
from tests.control.overtls import Papers, ask, curl, enrol, front, port, s_client, said, secured
from tests.control.plane import BILLING, ORDERS, Plane, csr, exchange, with_another_secret
from tests.control.test_certificates import HOSTILE
from tests.control.test_roles import MAY
from tests.support.papers import Authority, web_certificate

UNAUTHENTICATED = {"type": "about:blank", "title": "Unauthenticated", "status": 401}


def opaque(told: dict[str, object]) -> dict[str, object]:
    """What is told beside the request's id, by which the audit log is searched."""
    assert told.pop("request_id")
    return told


def outcomes(plane: Plane) -> dict[str, int]:
    text = plane.control.figures.render().decode()
    return {word: int(float(n)) for word, n in re.findall(r'tls_handshakes\{outcome="(\w+)"\} (\S+)', text)}


# -- who gets in ---------------------------------------------------------------------------------------------------


async def test_a_token_is_enough_over_tls_and_nothing_less(tmp_path: Path) -> None:
    async with front(tmp_path) as plane:
        token = await plane.token()
        status, body, _ = await curl(plane, "/v1/bundle", "--header", f"authorization: Bearer {token}")
        assert status == 200 and "BEGIN CERTIFICATE" in body
        status, body, _ = await curl(plane, "/v1/bundle")
        assert (status, opaque(json.loads(body))) == (401, UNAUTHENTICATED)
        assert plane.audit()[-1]["reason"] == "neither a token nor a certificate"
        made = await ask(plane, "POST", "/v1/certificates", csr(), token=token)
        assert made.status == 201
        line = plane.audit()[-1]
        assert line["who"] == f"token:{jointoken.parse(token).id}" and line["peer"] == "127.0.0.1"
        assert outcomes(plane) == {"ok": 3}


async def test_a_certificate_is_who_its_holder_is(tmp_path: Path) -> None:
    async with front(tmp_path) as plane:
        papers = await enrol(plane, tmp_path)
        status, _, _ = await curl(plane, "/v1/crl", papers=papers)
        assert status == 200
        made = await ask(plane, "POST", "/v1/certificates", csr(), papers=papers)
        assert made.status == 201
        line = plane.audit()[-1]
        assert line["who"] == str(BILLING) and line["subject"].startswith(f"{BILLING} serial ")
        status, _, _ = await curl(plane, "/v1/tokens", papers=papers)  # an operator's call
        assert status == 403


async def test_openssl_finds_the_root_that_a_token_names(tmp_path: Path) -> None:
    async with front(tmp_path) as plane:
        ran = await s_client(plane, "-showcerts", "-alpn", "http/1.1")
        assert ran.code == 0 and "Verify return code: 0 (ok)" in ran.out
        assert "Protocol  : TLSv1.3" in ran.out or "TLSv1.3" in ran.out
        chain = pem.from_pem("".join(re.findall(r"-----BEGIN C.*?-----END CERTIFICATE-----\n", ran.out, re.DOTALL)))
        shown = jointoken.parse(await plane.token())
        assert key_id_of(chain[-1]) in shown.pins
        bundles = Bundles.of(Bundle("cluster.local", chain[-1:]))
        peer = verify_peer(
            chain[:-1], bundles, Revocations(), plane.clock(), expected=frozenset({plane.control.control_id})
        )
        assert str(peer.spiffe_id) == shown.control_id
        ran = await s_client(plane, "-tls1_2")
        assert ran.code != 0


async def test_a_root_that_issues_itself_is_in_the_chain_too(tmp_path: Path) -> None:
    key, chain = tmp_path / "ca.key", tmp_path / "ca.pem"
    own_ca(key, chain)
    async with front(tmp_path, ca_cert=str(chain), ca_key=str(key)) as plane:
        granted = await plane.control.authority.issue_own(new_key().public_key())
        assert pem.from_pem(granted.chain)[-1:] == pem.from_pem(chain.read_text())
        assert len(pem.from_pem(granted.chain)) == 2


def own_ca(key: Path, chain: Path) -> None:
    """A root that is its own issuer, as one brings it."""
    made = new_key()
    root = new_root("cluster.local", made, new_serial(), time.time(), 86400.0)
    key.touch(mode=0o600)
    key.write_bytes(key_to_pem(made))
    chain.write_text(pem.to_pem([root.certificate]))


async def refused(plane: Plane, papers: Papers, rule: str) -> None:
    """A certificate that is shown and bad is refused in the handshake, a good token beside it or not."""
    token = await plane.token()
    before = outcomes(plane).get(rule, 0)
    for words in ([], ["--header", f"authorization: Bearer {token}"]):
        status, _, ran = await curl(plane, "/v1/bundle", *words, papers=papers)
        assert status == 0 and ran.code in (16, 35, 55, 56), ran
    assert outcomes(plane)[rule] == before + 2, outcomes(plane)


async def test_another_authoritys_certificate_is_refused(tmp_path: Path) -> None:
    async with front(tmp_path) as plane:
        strange = Authority(tmp_path).issue("billing")
        await refused(plane, Papers(strange.key, strange.chain), "unknown_authority")
        elsewhere = Authority(tmp_path, "elsewhere").issue("billing")
        await refused(plane, Papers(elsewhere.key, elsewhere.chain), "unknown_authority")
        key, chain = web_certificate(tmp_path, "billing")
        await refused(plane, Papers(key, chain), "unknown_authority")


async def test_an_expired_certificate_is_refused(tmp_path: Path) -> None:
    async with front(tmp_path, leaf_ttl=2.0) as plane:
        papers = await enrol(plane, tmp_path)
        end = pem.from_pem(papers.chain.read_text())[0].not_valid_after_utc.timestamp()
        await trio.sleep(max(0.0, end - plane.clock()) + 0.05)  # what is waited for is that instant itself
        await refused(plane, papers, "expired")


async def test_a_revoked_certificate_is_refused_and_its_connection_cut(tmp_path: Path) -> None:
    async with front(tmp_path) as plane:
        papers, other = await enrol(plane, tmp_path), await enrol(plane, tmp_path, ORDERS)
        async with secured(plane, papers) as stream:
            fields = [("host", "sidecar-control")]
            assert (await exchange(stream, "GET", "/v1/bundle", fields)).status == 200
            made = await plane.ask("POST", "/v1/revocations", plane.operator, {"spiffeId": str(BILLING)})
            assert made.status == 201
            with trio.fail_after(5):
                assert await stream.receive_some() == b""
        await refused(plane, papers, "revoked")
        assert (await ask(plane, "GET", "/v1/bundle", papers=other)).status == 200


# -- who one can't be ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x-forwarded-client-cert", "X_Forwarded_Client_Cert", "x-forwarded_client-cert"])
async def test_nobody_says_who_he_is_by_a_header(tmp_path: Path, name: str) -> None:
    async with front(tmp_path) as plane:
        forged = element(plane.control.control_id, "00" * 32, "", ORDERS)
        status, _, _ = await curl(plane, "/v1/bundle", "--header", f"{name}: {forged}")
        assert status == 401
        assert plane.audit()[-1]["who"] == "nobody"
        papers = await enrol(plane, tmp_path)
        made = await ask(plane, "POST", "/v1/certificates", csr(), papers=papers, headers={name: forged})
        assert made.status == 201 and plane.audit()[-1]["who"] == str(BILLING)
        asked = await ask(plane, "POST", "/v1/certificates", csr(ORDERS), papers=papers, headers={name: forged})
        assert asked.status == 401


async def test_nobody_says_where_he_is_nor_what_his_request_is_called(tmp_path: Path) -> None:
    async with front(tmp_path) as plane:
        forged = {"x-forwarded-for": "203.0.113.9", "x-real-ip": "203.0.113.9", "x-request-id": "mine"}
        for papers in (None, await enrol(plane, tmp_path)):
            reply = await ask(plane, "POST", "/v1/tokens", {"role": "reader"}, papers=papers, headers=forged)
            assert reply.status in (401, 403) and reply.headers["x-request-id"] != "mine"
            line = plane.audit()[-1]
            assert line["peer"] == "127.0.0.1" and line["id"] == reply.headers["x-request-id"]


async def test_an_identity_in_trailers_counts_for_nothing(tmp_path: Path) -> None:
    async with front(tmp_path) as plane:
        forged = element(plane.control.control_id, "00" * 32, "", ORDERS)
        heard = await said(
            plane,
            b"POST /v1/certificates HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n"
            b"trailer: x-forwarded-client-cert\r\n\r\n2\r\n{}\r\n0\r\nx-forwarded-client-cert: "
            + forged.encode() + b"\r\n\r\n",
        )  # fmt: skip
        assert heard.startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("what", HOSTILE)
async def test_ctl1_requests_for_more_than_ones_own_are_refused_alike(tmp_path: Path, what: str) -> None:
    async with front(tmp_path) as plane:
        papers = await enrol(plane, tmp_path)
        asked = await ask(plane, "POST", "/v1/certificates", {"csr": HOSTILE[what]()}, papers=papers)
        assert (asked.status, opaque(asked.json)) == (401, UNAUTHENTICATED)
        assert plane.audit()[-1]["verdict"] == "refused"


async def test_ctl1_a_token_that_is_not_good_gets_nothing_over_tls_either(tmp_path: Path) -> None:
    async with front(tmp_path) as plane:
        once = await plane.token(singleUse=True)
        assert (await ask(plane, "POST", "/v1/certificates", csr(), token=once)).status == 201
        short = await plane.token(ttl="1h")
        for token in (once, with_another_secret(await plane.token()), "eyJhbGciOiJub25lIn0.e30.", "sct1.a.b.c.d"):
            refusal = await ask(plane, "POST", "/v1/certificates", csr(), token=token)
            assert (refusal.status, opaque(refusal.json)) == (401, UNAUTHENTICATED)
        plane.clock.ahead = 3601.0
        assert (await ask(plane, "POST", "/v1/certificates", csr(), token=short)).status == 401


@pytest.mark.parametrize("who", ["workload by certificate", "workload by token", "operator", "reader", "nobody"])
async def test_over_tls_a_caller_can_do_what_its_role_lists_and_nothing_else(tmp_path: Path, who: str) -> None:
    async with front(tmp_path) as plane:
        papers, token = None, ""
        if who == "workload by certificate":
            papers = await enrol(plane, tmp_path)
        elif who == "workload by token":
            token = await plane.token()
        elif who == "operator":
            token = plane.operator
        elif who == "reader":
            token = (await plane.ask("POST", "/v1/tokens", plane.operator, {"role": "reader"})).json["token"]
        allowed = set()
        for call in CALLS:
            body = csr() if call.name == "certificates.issue" else {} if call.method == "POST" else None
            path = call.path.replace("{id}", "nothing")
            reply = await ask(plane, call.method, path, body, papers=papers, token=token)
            if reply.status not in (401, 403):
                allowed.add(call.name)
        assert allowed == MAY[who]


# -- what is not spoken --------------------------------------------------------------------------------------------

HEAD = b"host: a\r\nauthorization: Bearer x\r\n"
SWITCHES = {
    "h2c": (b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\n"
            b"http2-settings: AAMAAABkAAQAAP__\r\n\r\n", b"400"),
    "websocket": (b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
                  b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n", b"400"),
    "tls": (b"OPTIONS * HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: TLS/1.0\r\n\r\n", b"400"),
    "without connection": (b"GET /healthz HTTP/1.1\r\nhost: a\r\nupgrade: h2c\r\n\r\n", b"400"),
    "connect": (b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nhost: 127.0.0.1:22\r\n\r\n", b"405"),
    "prior knowledge": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", b"505"),
}  # fmt: skip


@pytest.mark.parametrize("how", SWITCHES)
async def test_a_connection_stays_http_1(tmp_path: Path, how: str) -> None:
    sent, status = SWITCHES[how]
    async with front(tmp_path) as plane:
        heard = await said(plane, sent + b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")
        assert heard.startswith(b"HTTP/1.1 " + status + b" ")
        assert len(re.findall(rb"^HTTP/", heard, re.MULTILINE)) == 1, heard


async def test_a_client_that_speaks_http_2_alone_is_refused(tmp_path: Path) -> None:
    async with front(tmp_path) as plane:
        ran = await s_client(plane, "-alpn", "h2")
        assert ran.code != 0 and "no application protocol" in ran.errors
        ran = await s_client(plane, "-alpn", "sidecar-tcp,istio")
        assert ran.code != 0 and "no application protocol" in ran.errors
        status, _, _ = await curl(plane, "/healthz", "--http2")  # offers both
        assert status == 200


@pytest.mark.parametrize("first", [b"GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\n", b"\0" * 64])
async def test_plaintext_is_reset(tmp_path: Path, first: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with front(tmp_path) as plane:
        stream = await trio.open_tcp_stream("127.0.0.1", port(plane))
        await stream.send_all(first)
        with trio.fail_after(5), pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        await stream.aclose()
        assert "--tls-listen: plaintext_refused: 127.0.0.1:" in caplog.text


# -- bounds --------------------------------------------------------------------------------------------------------


async def test_what_is_too_large_does_not_reach_the_api(tmp_path: Path) -> None:
    async with front(tmp_path) as plane:
        written = len(plane.audit()) if (tmp_path / "audit.jsonl").exists() else 0
        large = rate_limits.APPLY_BODY_BYTES + 1
        head = b"POST /v1/resources:apply HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % large
        assert (await said(plane, head)).startswith(b"HTTP/1.1 413 ")
        assert (await said(plane, b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"x" * 40_000)).startswith(b"HTTP/1.1 431 ")
        assert len(plane.audit()) == written
