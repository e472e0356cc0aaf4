"""The sidecar with an identity that it did not ask for: ``python -m bench.with_identity KEY CHAIN ROOTS FLAGS...``.

Started by the scenarios of the mesh, and by the tests against others' proxies, in the place of ``python -m sidecar``. A
proxy gets its certificate from the control plane and from nobody else; here it is installed from three PEM files, so
that nothing but the two proxies has to run. All after that is the product's own.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from certs.bundle import Bundle, Bundles
from certs.facts import read
from certs.keys import key_from_pem
from certs.pem import from_pem
from certs.spiffe import parse
from sidecar import cli, mesh_runtime
from sidecar.identity import Credentials
from sidecar.net.connection import Connection
from sidecar.settings import Settings


def credentials(key: Path, chain: Path, roots: Path) -> Credentials:
    """What the control plane would have given."""
    certificates = from_pem(chain.read_bytes())
    facts = read(certificates[0])
    spiffe_id = parse(facts.uris[0])
    bundle = Bundle.from_pem(spiffe_id.trust_domain, roots.read_bytes())
    return Credentials(
        spiffe_id, certificates, key_from_pem(key.read_bytes()), Bundles.of(bundle),
        min(each.not_valid_after_utc.timestamp() for each in certificates),
    )  # fmt: skip


def install(given: Credentials) -> None:
    """From now on a proxy of this process begins with these, and asks nobody for others."""

    class Installed(mesh_runtime.MeshRuntime):
        def __init__(self, settings: Settings, connections: set[Connection]) -> None:
            super().__init__(settings, connections)
            self.identity.install(given)

    mesh_runtime.MeshRuntime = Installed  # type: ignore[misc]  # where ``app`` looks for it


def main(words: Sequence[str]) -> int:
    """Runs the sidecar with the FLAGS; returns its exit code."""
    key, chain, roots, *flags = words
    install(credentials(Path(key), Path(chain), Path(roots)))
    # Nobody is asked at that URL; without one there is no membership.
    return cli.main(["--control", "http://127.0.0.1:9", "--token-file", key, *flags])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
