"""CTL-1: who gets a certificate, for whom, and that whoever does not learns nothing from the refusal."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from certs import pem, spiffe
from certs.bundle import Bundle, Bundles
from certs.keys import new_key
from certs.revocation import Revocations
from certs.verify import check_own, verify_peer
from tests.control.plane import BILLING, ORDERS, SOCKET, Plane, csr, running, with_another_secret


def request(
    *extensions: x509.ExtensionType, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | None = None, uri: str = ""
) -> x509.CertificateSigningRequest:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if uri:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), False)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=True)
    return builder.sign(key or new_key(), hashes.SHA256())


def text(made: x509.CertificateSigningRequest) -> str:
    return made.public_bytes(serialization.Encoding.PEM).decode()


def badly_signed() -> str:
    der = bytearray(request(uri=str(BILLING)).public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    return text(x509.load_der_x509_csr(bytes(der)))


USAGE = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
HOSTILE = {
    "another identity": lambda: text(request(uri=str(ORDERS))),
    "the control plane's identity": lambda: text(request(uri="spiffe://cluster.local/ns/sidecar-system/sa/sidecar-control")),
    "another trust domain": lambda: text(request(uri="spiffe://evil/ns/shop/sa/billing")),
    "a DNS name": lambda: text(request(x509.SubjectAlternativeName([x509.DNSName("billing")]))),
    "CA:true": lambda: text(request(x509.BasicConstraints(ca=True, path_length=0), uri=str(BILLING))),
    "keyCertSign": lambda: text(request(USAGE, uri=str(BILLING))),
    "a bad self-signature": badly_signed,
    "an RSA key": lambda: text(request(key=rsa.generate_private_key(65537, 2048), uri=str(BILLING))),
    "not PEM": lambda: "hello",
    "two requests": lambda: text(request(uri=str(BILLING))) * 2,
    "nothing": lambda: "",
}  # fmt: skip


async def judged(plane: Plane, chain: str, roots: str) -> str:
    """Whom the chain belongs to, as a peer would see it."""
    bundles = Bundles.of(Bundle.from_pem("cluster.local", roots))
    return str(verify_peer(pem.from_pem(chain), bundles, Revocations(), plane.clock(), expected=None).spiffe_id)


@pytest.mark.parametrize("with_id", [True, False], ids=["that names itself", "that names nobody"])
async def test_a_workload_gets_its_own_identity(tmp_path: Path, with_id: bool) -> None:
    async with running(tmp_path) as plane:
        key = new_key()
        asked = csr(BILLING, key) if with_id else {"csr": text(request(key=key))}
        reply = await plane.ask("POST", "/v1/certificates", await plane.token(), asked)
        assert reply.status == 201
        chain = pem.from_pem(reply.json["chain"])
        bundles = Bundles.of(Bundle.from_pem("cluster.local", reply.json["bundle"]))
        peer = check_own(chain, key.public_key(), BILLING, bundles, plane.clock())
        assert peer.not_after - plane.clock() == pytest.approx(24 * 3600, abs=5)
        assert len(chain) == 2  # the leaf and the authority; the root is in the bundle
        assert reply.json["expires"].endswith("Z")


async def test_a_certificate_is_renewed_by_the_certificate_before_it(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        reply = await plane.ask("POST", "/v1/certificates", body=csr(BILLING), door=SOCKET, peer=BILLING)
        assert reply.status == 201
        assert await judged(plane, reply.json["chain"], reply.json["bundle"]) == str(BILLING)


@pytest.mark.parametrize("name", HOSTILE)
async def test_ctl_1_a_request_for_more_is_refused(tmp_path: Path, name: str) -> None:
    async with running(tmp_path) as plane:
        token = await plane.token(singleUse=True)
        reply = await plane.ask("POST", "/v1/certificates", token, {"csr": HOSTILE[name]()})
        assert (reply.status, reply.told) == await refusal(plane)
        line = plane.audit()[-2]
        assert (line["what"], line["verdict"], line["status"]) == ("certificates.issue", "refused", 401)
        assert line["who"].startswith("token:") and line["reason"].startswith("its request: ")
        # What was refused has not spent the token either.
        assert (await plane.ask("POST", "/v1/certificates", token, csr())).status == 201


async def refusal(plane: Plane) -> tuple[int, bytes]:
    """What a caller gets that shows nothing at all."""
    reply = await plane.ask("POST", "/v1/certificates", body=csr())
    return reply.status, reply.told


async def unknown(plane: Plane) -> str:
    token = await plane.token()
    prefix, _, rest = token.split(".", 2)
    return ".".join([prefix, secrets.token_hex(8), rest])


async def expired(plane: Plane) -> str:
    token = await plane.token(ttl="10m")
    plane.clock.ahead += 601
    return token


async def spent(plane: Plane) -> str:
    token = await plane.token(singleUse=True)
    assert (await plane.ask("POST", "/v1/certificates", token, csr())).status == 201
    return token


async def deleted(plane: Plane) -> str:
    token = await plane.token()
    await plane.ask("DELETE", f"/v1/tokens/{token.split('.')[1]}", plane.operator)
    return token


async def revoked(plane: Plane) -> str:
    token = await plane.token()
    assert (await plane.ask("POST", "/v1/revocations", plane.operator, {"spiffeId": str(BILLING)})).status == 201
    return token


async def wrong(plane: Plane) -> str:
    return with_another_secret(await plane.token())


async def garbled(plane: Plane) -> str:
    return "sct1.x"


async def somebody_elses(plane: Plane) -> str:
    return "eyJhbGciOiJub25lIn0.e30."


@pytest.mark.parametrize("make", [unknown, expired, spent, deleted, revoked, wrong, garbled, somebody_elses])
async def test_ctl_1_a_token_that_is_not_good_is_refused_like_none(tmp_path: Path, make) -> None:
    async with running(tmp_path) as plane:
        token = await make(plane)
        reply = await plane.ask("POST", "/v1/certificates", token, csr())
        assert (reply.status, reply.told) == await refusal(plane)
        assert reply.headers["www-authenticate"] == "Bearer"
        bundle = await plane.ask("GET", "/v1/bundle", token)
        assert (bundle.status, bundle.told) == (reply.status, reply.told)
        reasons = [line["reason"] for line in plane.audit() if line["verdict"] == "refused"]
        assert len(set(reasons)) == 2, "the audit log tells the two apart"


@pytest.mark.parametrize(
    "headers",
    [
        {"x-forwarded-client-cert": "By=spiffe://evil/a;Hash=" + "0" * 64 + ';Subject="";URI=' + str(BILLING)},
        {"x-forwarded-client-cert": f"URI={BILLING}"},
        {"x-forwarded-client-cert": ""},
    ],
    ids=["by somebody else", "half", "empty"],
)
async def test_an_identity_that_our_inbound_did_not_write_is_refused(tmp_path: Path, headers: dict[str, str]) -> None:
    async with running(tmp_path) as plane:
        reply = await plane.ask("POST", "/v1/certificates", body=csr(), door=SOCKET, headers=headers)
        assert reply.status == 401
        # A good token does not help: what stands in front is not what we trust.
        again = await plane.ask("GET", "/v1/bundle", plane.operator, door=SOCKET, headers=headers)
        assert again.status == 401


async def test_two_identities_are_none(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        second = {"X-Forwarded-Client-Cert": "x"}
        reply = await plane.ask("GET", "/v1/bundle", door=SOCKET, peer=BILLING, headers=second)
        assert reply.status == 401


@pytest.mark.parametrize(
    "identity",
    ["spiffe://other/ns/shop/sa/billing", "spiffe://cluster.local/x", "spiffe://cluster.local/ns/sidecar-system/sa/sidecar-control"],
)  # fmt: skip
async def test_a_certificate_of_somebody_who_is_no_workload_here_is_refused(tmp_path: Path, identity: str) -> None:
    async with running(tmp_path) as plane:
        who = spiffe.parse(identity)
        reply = await plane.ask("POST", "/v1/certificates", body=csr(who), door=SOCKET, peer=who)
        assert (reply.status, reply.told) == await refusal(plane)


async def test_a_bad_token_is_not_mended_by_a_good_certificate(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        reply = await plane.ask("GET", "/v1/bundle", "sct1.x", door=SOCKET, peer=BILLING)
        assert reply.status == 401


async def test_a_revoked_certificate_is_no_caller(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        made = await plane.ask("POST", "/v1/certificates", await plane.token(), csr())
        leaf = pem.from_pem(made.json["chain"])[0]
        fingerprint = leaf.fingerprint(hashes.SHA256()).hex()
        assert (await plane.ask("GET", "/v1/crl", door=SOCKET, peer=BILLING, fingerprint=fingerprint)).status == 200
        await plane.ask("POST", "/v1/revocations", plane.operator, {"serial": f"{leaf.serial_number:X}"})
        assert (await plane.ask("GET", "/v1/crl", door=SOCKET, peer=BILLING, fingerprint=fingerprint)).status == 401


async def test_what_was_made_for_somebody_else_is_not_taken_from_the_subject(tmp_path: Path) -> None:
    """A request's subject is ignored: the certificate has none."""
    async with running(tmp_path) as plane:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "orders")])
        builder = x509.CertificateSigningRequestBuilder().subject_name(name)
        made = builder.sign(new_key(), hashes.SHA256())
        reply = await plane.ask("POST", "/v1/certificates", await plane.token(), {"csr": text(made)})
        assert reply.status == 201
        assert not list(pem.from_pem(reply.json["chain"])[0].subject)
