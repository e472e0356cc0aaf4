"""The authority of a request: HOST or HOST:PORT, as in Host and ``:authority``. Pure."""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from sidecar.errors import ProxyError, Reason

_AUTHORITY: Final = re.compile(
    rb"(?:[A-Za-z0-9_](?:[A-Za-z0-9_.~-]{0,254})|\[([0-9A-Fa-f:.]{2,45})\])(?::([1-9][0-9]{0,4}))?"
)
_KNOWN_GOOD: Final = 1024  # bound of the memo below, which peers can fill: of 256 bytes at most, by the pattern
_GOOD: set[bytes] = set()


def check_authority(authority: bytes) -> None:
    """Raise ProxyError(BAD_REQUEST) unless it is host[:port] by RFC 3986 section 3.2, without user info."""
    if authority in _GOOD:
        return
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise ProxyError(Reason.BAD_REQUEST, "Host is not HOST or HOST:PORT")
    literal, port = match.groups()
    if port is not None and int(port) > 65_535:
        raise ProxyError(Reason.BAD_REQUEST, "Host has a port above 65535")
    if literal is not None:
        try:
            ipaddress.IPv6Address(literal.decode("ascii"))
        except ValueError:
            raise ProxyError(Reason.BAD_REQUEST, "Host has brackets without an IPv6 address") from None
    if len(_GOOD) < _KNOWN_GOOD:
        _GOOD.add(authority)


def canonical_authority(authority: bytes) -> bytes:
    """Return the authority in lower case, without a trailing dot or a default port. Routes and policies compare it."""
    host = authority.lower().removesuffix(b":80")
    name, colon, port = host.rpartition(b":") if not host.endswith(b"]") else (host, b"", b"")
    if not colon:
        name, port = host, b""
    return name.removesuffix(b".") + colon + port


def authority_parts(authority: bytes) -> tuple[str, int]:
    """Return the host without brackets, and the port, 0 if none is named. The authority must have been checked."""
    host, colon, port = authority.rpartition(b":") if not authority.endswith(b"]") else (authority, b"", b"")
    if not colon:
        host, port = authority, b""
    return host.decode("ascii", "replace").removeprefix("[").removesuffix("]"), int(port or b"0")
