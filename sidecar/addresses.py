"""Where things are: typed addresses for the edges, so that a client's is never taken for a destination's.

Pure: imports no socket. Text forms put IPv6 literals in brackets, as RFC 3986 section 3.2.2 has them.
"""

from __future__ import annotations

import ipaddress
import re

import msgspec

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,252}[A-Za-z0-9])?\.?\Z")


class Address(msgspec.Struct, frozen=True, gc=False):
    """A host (name or IP literal without brackets) and a port in [0, 65535]."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The host as an IP address (IPv4-mapped IPv6 unwrapped), or None where it is a name."""
        return parse_ip(self.host)


class ClientAddr(Address, frozen=True, gc=False):
    """Who connected to us."""


class OriginalDst(Address, frozen=True, gc=False):
    """Where a captured or explicit connection wanted to go."""


class Endpoint(Address, frozen=True, gc=False):
    """Where we dial."""


def parse_ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """An IP literal without brackets or zone, IPv4-mapped IPv6 unwrapped; None for anything else."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address):
        if found.scope_id is not None:
            return None
        return found.ipv4_mapped or found
    return found


def parse_port(text: str, *, lowest: int = 1) -> int:
    """A decimal port in [lowest, 65535]; raises ValueError with a sentence for people."""
    if not re.fullmatch(r"[0-9]{1,5}", text, re.ASCII) or not lowest <= int(text) <= 65535:
        raise ValueError(f"{text!r} is not a port from {lowest} to 65535")
    return int(text)


def parse_host_port(text: str, *, lowest_port: int = 1) -> Address:
    """``HOST:PORT`` or ``[IPv6]:PORT``; raises ValueError with a sentence for people."""
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        raise ValueError(f"{text!r} is not HOST:PORT")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if not isinstance(_ip_literal(host), ipaddress.IPv6Address):
            raise ValueError(f"{text!r}: what stands in brackets is not an IPv6 address")
    elif ":" in host:
        raise ValueError(f"{text!r}: write an IPv6 address in brackets, as [::1]:8080")
    elif _ip_literal(host) is None and not _HOST.match(host):
        raise ValueError(f"{text!r}: {host!r} is not a host name or an address")
    return Address(host, parse_port(port, lowest=lowest_port))


def _ip_literal(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
