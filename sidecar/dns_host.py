"""What ``--dns-host`` says: a name, and an address that it has. Pure; read long before anything of DNS is imported."""

from __future__ import annotations

import re

import msgspec

from sidecar.addresses import parse_ip

_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", re.ASCII)
_LONGEST_NAME = 253  # RFC 1035 section 2.3.4, as text without the final dot


class DnsHost(msgspec.Struct, frozen=True):
    """``name`` is in lower case, without a final dot; ``address`` an IP literal without brackets."""

    name: str
    address: str

    def __str__(self) -> str:
        return f"{self.name}={self.address}"


def parse_dns_hosts(text: str) -> tuple[DnsHost, ...]:
    """``NAME=ADDR``, with commas between several; ``none`` is the empty tuple.

    The addresses of a name that stands there again add up, each once. Raises ValueError with a clause that says what
    is wrong.
    """
    hosts = () if text == "none" else tuple(_dns_host(part.strip()) for part in text.split(","))
    return tuple(dict.fromkeys(hosts))


def _dns_host(text: str) -> DnsHost:
    name, equals, address = text.partition("=")
    bare = name.removesuffix(".").lower()
    if not equals or len(bare) > _LONGEST_NAME or not all(_LABEL.fullmatch(label) for label in bare.split(".")):
        raise ValueError(f"{text!r} is not a name with an address")
    if parse_ip(bare) is not None:
        raise ValueError(f"{name!r} is an address, which nobody looks up")
    found = parse_ip(address.removeprefix("[").removesuffix("]") if address.startswith("[") else address)
    if found is None:
        raise ValueError(f"{address!r} is not an IP address")
    return DnsHost(bare, str(found))
