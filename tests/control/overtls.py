"""Callers of the control plane's port for sidecars: curl, openssl, and one by the standard library's ``ssl``."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import trio

from certs import pem
from certs.keys import key_to_pem, new_key
from certs.spiffe import SpiffeId
from sidecar.addresses import Address
from tests.control.plane import BILLING, Plane, Reply, csr, exchange, running


@dataclass(frozen=True, slots=True)
class Papers:
    """A workload's key and chain, as files."""

    key: Path
    chain: Path


@asynccontextmanager
async def front(path: Path, **told: object) -> AsyncIterator[Plane]:
    """A control plane with the port for sidecars."""
    async with running(path, tls_listen=(Address("127.0.0.1", 0),), **told) as plane:
        yield plane


def port(plane: Plane) -> int:
    return plane.control.tls_listening[0].port


def url(plane: Plane, path: str) -> str:
    return f"https://127.0.0.1:{port(plane)}{path}"


async def enrol(plane: Plane, directory: Path, identity: SpiffeId = BILLING) -> Papers:
    """A certificate by a join token, in ``directory``."""
    key = new_key()
    made = await plane.ask("POST", "/v1/certificates", await plane.token(identity), csr(identity, key))
    assert made.status == 201, made
    stem = directory / f"{pem.from_pem(made.json['chain'])[0].serial_number:x}"
    papers = Papers(stem.with_suffix(".key"), stem.with_suffix(".pem"))
    papers.key.write_bytes(key_to_pem(key))
    papers.chain.write_text(made.json["chain"])
    return papers


def roots(plane: Plane) -> Path:
    return plane.directory / "root.pem"


@dataclass
class Ran:
    """What a program came to."""

    code: int
    out: str
    errors: str


async def program(*command: str, stdin: bytes = b"") -> Ran:
    with trio.fail_after(20):
        done = await trio.run_process(command, stdin=stdin, capture_stdout=True, capture_stderr=True, check=False)
    return Ran(done.returncode, done.stdout.decode("latin-1"), done.stderr.decode("latin-1"))


async def curl(plane: Plane, path: str, *words: str, papers: Papers | None = None) -> tuple[int, str, Ran]:
    """(status or 0, body, all of it). The server's name is a SPIFFE id, which curl can't check: ``openssl`` does."""
    shown = ["--cert", str(papers.chain), "--key", str(papers.key)] if papers else []
    ran = await program(
        "curl", "--silent", "--show-error", "--insecure", "--max-time", "15", "--write-out", "\n%{http_code}",
        *shown, *words, url(plane, path),
    )  # fmt: skip
    body, _, status = ran.out.rpartition("\n")
    return int(status or 0), body, ran


async def s_client(plane: Plane, *words: str, say: bytes = b"") -> Ran:
    """openssl's client, which trusts our root alone."""
    return await program(
        "openssl", "s_client", "-connect", f"127.0.0.1:{port(plane)}", "-CAfile", str(roots(plane)),
        "-verify_return_error", "-servername", "sidecar-control", *words, stdin=say,
    )  # fmt: skip


def context(papers: Papers | None = None, alpn: str = "http/1.1") -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    if papers is not None:
        made.load_cert_chain(papers.chain, papers.key)
    made.set_alpn_protocols([alpn])
    return made


@asynccontextmanager
async def secured(plane: Plane, papers: Papers | None = None) -> AsyncIterator[trio.SSLStream[trio.SocketStream]]:
    """A connection to the port, shaken hands over."""
    raw = await trio.open_tcp_stream("127.0.0.1", port(plane))
    stream = trio.SSLStream(raw, context(papers), https_compatible=True)
    try:
        await stream.do_handshake()
        yield stream
    finally:
        await trio.aclose_forcefully(stream)


async def ask(
    plane: Plane,
    method: str,
    path: str,
    body: object = None,
    *,
    papers: Papers | None = None,
    token: str = "",
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """One call, on a connection of its own."""
    fields = [("host", "sidecar-control")] + list((headers or {}).items())
    if token:
        fields.append(("authorization", f"Bearer {token}"))
    data = b"" if body is None else msgspec.json.encode(body)
    if data:
        fields.append(("content-length", str(len(data))))
    async with secured(plane, papers) as stream:
        return await exchange(stream, method, path, fields, data)


async def said(plane: Plane, data: bytes) -> bytes:
    """What comes back for these bytes on a secured connection, to its end."""
    heard = b""
    with trio.fail_after(20):
        async with secured(plane) as stream:
            try:
                await stream.send_all(data)
            except trio.BrokenResourceError:
                pass  # it has answered and closed already
            try:
                async for piece in stream:
                    heard += piece
            except trio.BrokenResourceError:
                heard += b"(broken)"
    return heard
