"""What the flags on identity say: where the control plane is, and who it must be. Pure; read before anything of TLS is
imported."""

from __future__ import annotations

import re

import msgspec

from certs.errors import IdentityError
from certs.spiffe import parse
from sidecar import ports
from sidecar.addresses import parse_host_port, parse_ip

CONTROL_ID = "spiffe://cluster.local/ns/sidecar-system/sa/sidecar-control"
_URL = re.compile(r"(https?)://([^/?#@]+)/?")
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")


class ControlUrl(msgspec.Struct, frozen=True):
    """``secure``: https. ``host`` is a name or an IP literal without brackets."""

    secure: bool
    host: str
    port: int

    @property
    def authority(self) -> str:
        """As Host has it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{'https' if self.secure else 'http'}://{self.authority}"


def parse_control(text: str) -> ControlUrl | None:
    """``https://HOST[:15012]``, or ``http://`` for loopback; ``none`` is None. Raises ValueError with a clause."""
    if text == "none":
        return None
    found = _URL.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is not https://HOST:PORT without a path")
    secure = found[1] == "https"
    bare = found[2].endswith("]") or ":" not in found[2]
    place = f"{found[2]}:{ports.CONTROL_TLS if secure else ports.CONTROL}" if bare else found[2]
    address = parse_host_port(place)
    ip = parse_ip(address.host)
    if not secure and address.host != "localhost" and (ip is None or not ip.is_loopback):
        raise ValueError(f"{text!r} would send a token in the clear; http:// is for loopback alone")
    return ControlUrl(secure, address.host, address.port)


def parse_spiffe_id(text: str) -> str:
    """A SPIFFE id in its one spelling."""
    try:
        return str(parse(text))
    except IdentityError as error:
        raise ValueError(f"{text!r} is not a SPIFFE id ({error.detail})") from None


def parse_label(text: str) -> str:
    """A name as Kubernetes has them (a DNS label, RFC 1123)."""
    if not _LABEL.fullmatch(text):
        raise ValueError(f"{text!r} is not a name of lower-case letters, digits and hyphens")
    return text


def parse_label_or_none(text: str) -> str:
    """As ``parse_label``; ``none`` is the empty one."""
    return "" if text == "none" else parse_label(text)
