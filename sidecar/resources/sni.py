"""The server name by which one sidecar tells another which service port a connection is for. Pure.

``outbound_.<port>_.<subset>_.<service>.<namespace>.svc.<trust-domain>``, as Istio has it; the subset may be empty. The
form is the mesh's own: nobody looks it up, and what does not have it exactly is not it.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from certs.errors import IdentityError
from certs.spiffe import check_trust_domain

SNI_BYTES: Final = 512  # ours can be longer than a host name; no name that we make is longer than this

LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"  # a DNS label, in lower case
_SNI: Final = re.compile(
    rf"outbound_\.([1-9][0-9]{{0,4}})_\.({LABEL}|)_\.({LABEL})\.({LABEL})\.svc\.([a-z0-9._-]++)", re.ASCII
)


class Sni(msgspec.Struct, frozen=True, gc=False):
    """What such a name says. ``subset`` is empty where none is meant."""

    port: int
    subset: str
    service: str
    namespace: str
    trust_domain: str

    def __bytes__(self) -> bytes:
        return f"outbound_.{self.port}_.{self.subset}_.{self.service}.{self.namespace}.svc.{self.trust_domain}".encode()


def parse_sni(name: bytes) -> Sni | None:
    """What the name says; None for every name that does not have the form to the letter, in lower case."""
    if len(name) > SNI_BYTES or not name.isascii():
        return None
    found = _SNI.fullmatch(name.decode("ascii"))
    if found is None or int(found[1]) > 65535:
        return None
    try:
        check_trust_domain(found[5])
    except IdentityError:
        return None
    return Sni(int(found[1]), found[2], found[3], found[4], found[5])
