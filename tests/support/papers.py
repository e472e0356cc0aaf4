"""An authority in a directory of its own: certificates for our proxies and for those of others, as files.

Others read their certificates from files; what is here is what our own control plane would give them. Nothing is kept
in the repository: each run makes its own root and forgets it.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from time import time

from certs.issue import leaf, new_intermediate, new_root
from certs.keys import key_to_pem, new_key, new_serial
from certs.pem import to_pem
from certs.spiffe import SpiffeId, parse

_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Papers:
    """One workload's: its id, and the files of its key, its chain (leaf and intermediate) and the roots it trusts."""

    spiffe_id: str
    key: Path
    chain: Path
    roots: Path

    @property
    def words(self) -> list[str]:
        """As ``bench.with_identity`` takes them."""
        return [str(self.key), str(self.chain), str(self.roots)]


class Authority:
    """A root, an intermediate below it, and what they issue, for one trust domain."""

    def __init__(self, directory: Path, trust_domain: str = "cluster.local") -> None:
        self._directory = directory
        root = new_root(trust_domain, new_key(), new_serial(), time(), 30 * _DAY)
        self._issuer = new_intermediate(root, new_key(), new_serial(), time(), 20 * _DAY)
        self.trust_domain = trust_domain
        self.roots = directory / f"roots-{root.certificate.serial_number:x}.pem"
        self.roots.write_text(to_pem([root.certificate]))

    def issue(self, service_account: str, namespace: str = "shop", *, ttl: float = _DAY) -> Papers:
        """Key and certificate for ``spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT``."""
        return self.issue_id(parse(f"spiffe://{self.trust_domain}/ns/{namespace}/sa/{service_account}"), ttl=ttl)

    def issue_id(self, spiffe_id: SpiffeId, *, ttl: float = _DAY) -> Papers:
        """Key and certificate for an id of this trust domain, whatever its path."""
        key, serial = new_key(), new_serial()
        certificate = leaf(self._issuer, key.public_key(), spiffe_id, serial, time(), ttl)
        stem = self._directory / f"{spiffe_id.path.rpartition('/')[2]}-{serial:x}"
        papers = Papers(str(spiffe_id), stem.with_suffix(".key"), stem.with_suffix(".pem"), self.roots)
        papers.key.touch(mode=0o600)
        papers.key.write_bytes(key_to_pem(key))
        papers.chain.write_text(to_pem([certificate, *self._issuer.intermediates]))
        return papers


def web_certificate(directory: Path, name: str) -> tuple[Path, Path]:
    """A certificate of the web's kind, which is its own issuer and has no SPIFFE id: key and certificate."""
    key, certificate = directory / f"{name}.key", directory / f"{name}.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-keyout", str(key), "-out",
         str(certificate)],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    return key, certificate
