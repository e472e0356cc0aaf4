"""Who may talk to the admin server. Pure: judges what a request says about where it comes from.

Who calls it: ``admin.server``, before a route is looked up. Three ways in are shut (CTL-5):

- another machine: the peer must be on loopback;
- a page whose name resolves to 127.0.0.1 (DNS rebinding): its requests carry the page's name as Host, and Host must be
  a name that only this machine has;
- a page of another site that posts a form here: browsers send its Origin, and Sec-Fetch-Site. Another port of
  localhost is another origin too: it may be anybody's app.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sidecar.addresses import parse_ip

Fields = Sequence[tuple[bytes, bytes]]  # names in lower case, as h11 has them

_HOST_PORT = re.compile(rb"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9.-]{1,253})(?::[0-9]{1,5})?")
_LOCALHOST = re.compile(r"(?:[a-z0-9-]{1,63}\.)*localhost")


@dataclass(frozen=True, slots=True)
class Refusal:
    """A status and a sentence for the one who asked; it repeats nothing that they sent."""

    status: int
    text: str


def judge(peer: str, fields: Fields) -> Refusal | None:
    """The verdict on a request to the admin server from ``peer`` (an address, with or without its port); None: let it
    in."""
    if not is_loopback_peer(peer):
        return Refusal(403, "the admin server answers this machine only")
    hosts = [value for name, value in fields if name == b"host"]
    if len(hosts) != 1 or not is_loopback_host(hosts[0]):
        return Refusal(421, "Host must be one loopback name: localhost, 127.0.0.1 or [::1]")
    for name, value in fields:
        if name == b"origin" and value.lower() != b"http://" + hosts[0].lower():
            return Refusal(403, "requests from pages of another origin are refused")
        if name == b"sec-fetch-site" and value not in (b"same-origin", b"none"):
            return Refusal(403, "requests from pages of another site are refused")
    return None


def is_loopback_peer(peer: str) -> bool:
    """Whether a peer's address is on loopback, IPv4-mapped ones unwrapped; False for what is not an address."""
    if peer.startswith("["):
        text = peer[1:].partition("]")[0]
    elif peer.count(":") == 1:
        text = peer.partition(":")[0]
    else:
        text = peer
    address = parse_ip(text)
    return address is not None and address.is_loopback


def is_loopback_host(host: bytes) -> bool:
    """Whether a Host field names this machine and cannot be made to name another (RFC 6761 section 6.3): localhost and
    names below it, 127.0.0.0/8, [::1]; any port."""
    found = _HOST_PORT.fullmatch(host)
    if found is None:
        return False
    name = found[1].decode("ascii").lower()
    if name.startswith("["):
        address = parse_ip(name[1:-1])
        return address is not None and address.is_loopback
    if _LOCALHOST.fullmatch(name):
        return True
    address = parse_ip(name)
    return address is not None and address.is_loopback
