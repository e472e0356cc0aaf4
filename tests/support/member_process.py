"""The sidecar as a member of a mesh, fed by a test: ``python -m tests.support.member_process SOCKET KEY CHAIN ROOTS
FLAGS...``.

A proxy gets its certificate from the control plane; here it comes from PEM files, and what follows (a renewal, a list
of what is revoked, another time on the clock) from whoever connects to the unix SOCKET: one JSON object on a line for
each order, one line in answer. All after that is the product's own.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import time
from typing import Any

import trio
from OpenSSL import SSL

from certs.bundle import Bundle, Bundles
from certs.facts import read
from certs.keys import key_from_pem
from certs.pem import from_pem
from certs.revocation import RevocationList, Revocations
from certs.spiffe import parse
from sidecar import cli, mesh_runtime
from sidecar.identity import Credentials, Identity
from sidecar.net.connection import Connection
from sidecar.resources.incremental_compile import Compiled, compile_slices
from sidecar.resources.snapshot import Node
from sidecar.settings import Settings


class Clock:
    """The wall clock, ``ahead`` seconds from the real one."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time() + self.ahead


CLOCK = Clock()


def credentials(key: str, chain: str, roots: Sequence[str]) -> Credentials:
    """What the control plane would have given. ``roots`` are files, or ``DOMAIN=FILE`` for another trust domain's."""
    certificates = from_pem(Path(chain).read_bytes())
    spiffe_id = parse(read(certificates[0]).uris[0])
    named = [each.rpartition("=")[::2] for each in roots]
    bundles = [Bundle.from_pem(domain or spiffe_id.trust_domain, Path(file).read_bytes()) for domain, file in named]
    ends = min(each.not_valid_after_utc.timestamp() for each in certificates)
    return Credentials(spiffe_id, certificates, key_from_pem(Path(key).read_bytes()), Bundles.of(*bundles), ends)


def install(given: Credentials, socket: str) -> None:
    """From now on a proxy of this process begins with these, and takes orders at ``socket``."""

    class Told(mesh_runtime.MeshRuntime):
        def __init__(self, settings: Settings, connections: set[Connection]) -> None:
            super().__init__(settings, connections)
            self.identity.install(given)

        async def run(self) -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(super().run)
                nursery.start_soon(_listen, socket, self)

    # Where ``mesh_runtime`` and ``app`` look for them.
    setattr(mesh_runtime, "Identity", lambda connections: Identity(connections, CLOCK))  # noqa: B010
    setattr(mesh_runtime, "MeshRuntime", Told)  # noqa: B010


async def _listen(path: str, told: mesh_runtime.MeshRuntime) -> None:
    listener = trio.socket.socket(trio.socket.AF_UNIX)
    with listener:
        await listener.bind(path)
        listener.listen(4)
        while True:
            sock, _ = await listener.accept()
            with sock:
                await _obey(trio.SocketStream(sock), told)


async def _obey(stream: trio.SocketStream, told: mesh_runtime.MeshRuntime) -> None:
    pending = b""
    async for data in stream:
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            order: dict[str, Any] = json.loads(line)
            answer = ORDERS[order.pop("do")](told, **order)
            await stream.send_all(json.dumps(answer).encode() + b"\n")


def _install(told: mesh_runtime.MeshRuntime, key: str, chain: str, roots: list[str]) -> None:
    told.identity.install(credentials(key, chain, roots))


def _revoke(told: mesh_runtime.MeshRuntime, serials: list[tuple[str, int]]) -> None:
    """``serials`` are pairs: whose key signed it (SHA-256 of it, in hex), and its number."""
    lists = {key: frozenset(serial for signer, serial in serials if signer == key) for key, _ in serials}
    told.identity.revoke(
        Revocations(tuple(RevocationList(bytes.fromhex(key), 1, 0.0, 2e9, found) for key, found in lists.items()))
    )


def _take(told: mesh_runtime.MeshRuntime, document: dict[str, object], namespace: str = "shop") -> list[str]:
    """Takes a mesh as the control plane would have sent it to a proxy of ``namespace``; returns what is wrong with
    it."""
    steps = compile_slices(json.dumps(document).encode(), Node(namespace=namespace), "control")
    while True:
        try:
            next(steps)
        except StopIteration as end:
            compiled: Compiled = end.value
            break
    if compiled.snapshot is not None:
        told.current.take(compiled.snapshot, CLOCK())
    return list(compiled.problems)


def _clock(told: mesh_runtime.MeshRuntime, ahead: float) -> None:
    CLOCK.ahead = ahead


def _breaks(told: mesh_runtime.MeshRuntime, where: str) -> None:
    """From now on a callback of the TLS library's raises."""

    def broken(*_: object) -> bool:
        raise RuntimeError("a callback that raises")

    generation = told.identity.generation
    assert generation is not None
    server, client = generation.server(), generation.client()
    if where == "verify":
        server.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, broken)
        client.set_verify(SSL.VERIFY_PEER, broken)
    else:
        server.set_alpn_select_callback(broken)  # type: ignore[arg-type]


def _look(told: mesh_runtime.MeshRuntime) -> dict[str, object]:
    gc.collect()
    generation = told.identity.generation
    return {
        "outcomes": told.acceptor.outcomes,
        "groups": told.acceptor.groups,
        "cut": {reason.word: times for reason, times in told.identity.cut.items()},
        "under_way": told.acceptor.under_way,
        "generation": 0 if generation is None else generation.number,
        "contexts": sum(type(each) is SSL.Context for each in gc.get_objects()),
    }


ORDERS: dict[str, Callable[..., object]] = {
    "install": _install, "revoke": _revoke, "clock": _clock, "break": _breaks, "look": _look, "take": _take,
}  # fmt: skip


def main(words: Sequence[str]) -> int:
    """Runs the sidecar with the FLAGS; returns its exit code."""
    socket, key, chain, roots, *flags = words
    install(credentials(key, chain, roots.split(",")), socket)
    # No server is called at that URL; without one there is no mesh_runtime.
    return cli.main(["--control", "http://127.0.0.1:9", "--token-file", key, *flags])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
