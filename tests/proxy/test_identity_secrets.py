"""TLS-19: a key is in its process, on tmpfs where that was asked for, and nowhere else; CTL-7 for the admin port."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from certs.keys import key_from_pem
from sidecar.admin.routes import ADMIN
from sidecar.feed.identity_dir import NAME
from tests.proxy.fickle import plane_at
from tests.support.modules import among, loaded_by
from tests.support.process import ROOT, SidecarProcess
from tests.support.upstream import wait_until

STREAMS = {"/events", "/tap"}


@pytest.fixture
def memory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="identity-") as path:
        yield Path(path)


def forms(pem: str) -> list[bytes]:
    """What a key looks like: its number, and its encodings, raw, in hex and in base 64 at any offset."""
    key = key_from_pem(pem.encode())
    number = key.private_numbers().private_value.to_bytes(32, "big")
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    raw = [number, der]
    texts = [base64.b64encode(number[skip:])[:-4] for skip in range(3)]
    lines = [line.encode() for line in pem.splitlines() if not line.startswith("-")][:2]
    decimal = str(int.from_bytes(number, "big")).encode()
    return [*raw, number.hex().encode(), number.hex().upper().encode(), *texts, *lines, decimal]


def found_in(places: dict[str, bytes], pem: str) -> set[str]:
    return {name for name, data in places.items() if any(form in data for form in forms(pem))}


def places_of(process: SidecarProcess, *directories: Path) -> dict[str, bytes]:
    """Everything that can be read of it: logs, files, its environment and words, and each page of the admin port."""
    pid = process.process.pid
    places = {
        "stderr": "\n".join(process.errors).encode(),
        "environ": Path(f"/proc/{pid}/environ").read_bytes(),
        "cmdline": Path(f"/proc/{pid}/cmdline").read_bytes(),
    }
    for path, route in ADMIN.items():
        if not route.mutates and not route.asks and path not in STREAMS and not route.rest:
            places[path] = process.admin_get(path)[1].encode()
    for directory in (Path(process.directory.name), *directories):
        places |= {str(each): each.read_bytes() for each in directory.rglob("*") if each.is_file()}
    return places


def looked(port: int, token: Path, memory: Path, plain: Path) -> None:
    flags = (
        "--control", f"http://127.0.0.1:{port}", "--token-file", str(token), "--namespace", "shop",
        "--service-account", "billing", "--identity-dir", str(memory), "--log-level", "debug",
    )  # fmt: skip
    with SidecarProcess(1, *flags) as process:
        wait_until(lambda: "no certificate" not in process.admin_get("/ready")[1], "it has a certificate")
        wait_until(lambda: "trust" in process.admin_get("/certs")[1], "it shows it")
        pem = str(json.loads((memory / NAME).read_text())["key"])
        kept = str(memory / NAME)
        assert found_in(places_of(process, memory, plain), pem) == {kept}
        for form in forms(pem):  # the search sees what there is
            (plain / "planted").write_bytes(b"x" + form + b"x")
            assert found_in(places_of(process, memory, plain), pem) == {kept, str(plain / "planted")}
        secret = token.read_text().split(".")[2].encode()
        places = places_of(process, memory)
        assert [name for name, data in places.items() if secret in data] == []
        limits = Path(f"/proc/{process.process.pid}/limits").read_text()
        assert [line.split()[4:6] for line in limits.splitlines() if "core file" in line] == [["0", "0"]]
        shown = json.loads(process.admin_get("/certs")[1])
        ours = shown["certificates"][0]
        assert ours["spiffe_id"] == "spiffe://cluster.local/ns/shop/sa/billing" and len(ours["cert_chain"]) == 2
        assert ours["cert_chain"][0]["subject_alt_names"] == [{"uri": ours["spiffe_id"]}]
        assert shown["renewal"]["next"] < ours["expiration_time"] and shown["renewal"]["outcomes"] == {"ok": 1}
        assert json.loads(process.admin_get("/server_info")[1])["spiffe_id"] == ours["spiffe_id"]
        metrics = process.admin_get("/metrics")[1]
        assert 'sidecar_certificate_renewals_total{outcome="ok"} 1.0' in metrics
        assert "sidecar_certificate_expiry_timestamp_seconds 1." in metrics


async def test_tls_19_a_key_is_nowhere(tmp_path: Path, memory: Path) -> None:
    plain = tmp_path / "disk"
    await trio.Path(plain).mkdir()
    async with plane_at(tmp_path) as plane:
        await trio.to_thread.run_sync(looked, plane.port, plane.token_file, memory, plain)


def not_ready(port: int, token: Path) -> None:
    flags = ("--control", f"http://127.0.0.1:{port}", "--token-file", str(token), "--service-account", "billing")
    with SidecarProcess(1, *flags) as process:
        wait_until(lambda: any("status_503" in process.admin_get(p)[1] for p in ["/metrics"]), "it has asked")
        status, words = process.admin_get("/ready")
        assert status == 503 and "no certificate" in words
        assert json.loads(process.admin_get("/certs")[1])["certificates"] == []


async def test_without_a_certificate_it_is_not_ready(tmp_path: Path) -> None:
    async with plane_at(tmp_path) as plane:
        plane.wrong["/v1/certificates"] = lambda _: (503, b"")
        await trio.to_thread.run_sync(not_ready, plane.port, plane.token_file)


def test_tls_19_nobody_else_looks_into_the_process() -> None:
    """PR_GET_DUMPABLE is 0: no core dump, and no ptrace by another process of this user."""
    code = (
        "import ctypes; from sidecar.os_limits import keep_memory_private; keep_memory_private();"
        "print(ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=dict(os.environ))
    assert ran.stdout == "0\n", ran.stderr


def test_a_proxy_without_a_control_plane_imports_nothing_of_it() -> None:
    """Memory: OpenSSL and the certificates' code take 15 MB."""
    loaded = loaded_by("import sidecar.app")
    assert among(loaded, "OpenSSL", "cryptography", "sidecar.feed", "sidecar.mesh_runtime") == []
