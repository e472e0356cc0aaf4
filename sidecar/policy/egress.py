"""The app's allowed destinations, by ``--outbound-policy``, ``--allow-host`` and documents. Pure: addresses are passed
in.

A host's name proves nothing by itself: a captured connection goes to the address that the app chose, whatever name it
sends there. So a name counts only together with an address that the name resolves to. A connection that sends no name
(a database's protocol, TLS without SNI) is allowed by its address alone.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from sidecar.addresses import parse_host_port, parse_ip
from sidecar.resources.snapshot import Policy


class AllowedHost(msgspec.Struct, frozen=True):
    """A name in lower case, or an IP address; port 0 is any."""

    host: str
    port: int = 0


class Egress(msgspec.Struct, frozen=True):
    """``closed``: only ``hosts`` may be reached (REGISTRY_ONLY); otherwise anything (ALLOW_ANY)."""

    closed: bool = False
    hosts: tuple[AllowedHost, ...] = ()

    def allows(self, host: str, port: int) -> bool:
        """Return whether this name or IP address, without a look-up, may be reached at this port."""
        return not self.closed or AllowedHost(_plain(host)) in self._at(port)

    def allows_as(self, name: str, resolved: Iterable[str], address: str, port: int) -> bool:
        """Return whether a connection that names ``name``, which resolves to the addresses ``resolved``, may reach this
        IP address at this port."""
        if self.allows(address, port):
            return True
        return self.allows(name, port) and _plain(address) in map(_plain, resolved)

    def _at(self, port: int) -> set[AllowedHost]:
        return {AllowedHost(each.host) for each in self.hosts if each.port in (0, port)}


OPEN = Egress()


def effective(told: Egress, document: Policy | None) -> Egress:
    """Return the policy in force: the stricter of the command line's (``told``) and a document's (None: it has none).
    Return ``told`` itself if the document adds nothing to it."""
    return told if told.closed or document != "REGISTRY_ONLY" else Egress(True, told.hosts)


def parse_allowed(text: str) -> tuple[AllowedHost, ...]:
    """Parse ``HOST[:PORT]``, with commas between several; ``none`` is the empty tuple. Raises ValueError with a
    clause."""
    return () if text == "none" else tuple(_allowed(part.strip()) for part in text.split(","))


def _allowed(text: str) -> AllowedHost:
    if parse_ip(text) is not None:
        return AllowedHost(_plain(text))
    bare = text.endswith("]") or ":" not in text
    found = parse_host_port(f"{text}:0" if bare else text, lowest_port=0 if bare else 1)
    if parse_ip(found.host) is None and found.host.rstrip(".").rpartition(".")[2].isdigit():
        raise ValueError(f"{found.host!r} is neither a name nor an IPv4 address")
    return AllowedHost(_plain(found.host), found.port)


def _plain(host: str) -> str:
    """Return the canonical spelling: no brackets, no dot at the end, lower case, the canonical form of an address."""
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    address = parse_ip(bare)
    return str(address) if address is not None else bare.lower().removesuffix(".")
