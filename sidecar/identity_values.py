"""Texts of the options of identity -> values: names, the control plane's address, and which of them go together.

Who calls it: the table in ``sidecar.options``, and ``sidecar.settings``. Each raises ValueError with a clause for people.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from certs import spiffe
from certs.errors import IdentityError
from certs.spiffe import SpiffeId
from sidecar.addresses import Address, parse_host_port, parse_ip

CONTROL_ID = "spiffe://cluster.local/ns/sidecar-system/sa/sidecar-control"
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)


class ControlUrl(msgspec.Struct, frozen=True):
    """Where the control plane is. ``secure``: over TLS; else it is on loopback."""

    address: Address
    secure: bool

    def __str__(self) -> str:
        return f"{'https' if self.secure else 'http'}://{self.address}"


def control_url(text: str) -> ControlUrl | None:
    """``https://HOST:PORT``, or ``http://HOST:PORT`` where the host is a loopback address; ``none`` is None."""
    if text == "none":
        return None
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError(f"{text!r} is not https://HOST:PORT")
    if parts.path not in ("", "/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(f"{text!r} has more than a host and a port")
    address = parse_host_port(parts.netloc)
    local = address.host == "localhost" or (address.ip is not None and address.ip.is_loopback)
    if parts.scheme == "http" and not local:
        raise ValueError(f"{text!r} would send secrets in plaintext; http:// is for loopback, elsewhere it is https://")
    return ControlUrl(address, parts.scheme == "https")


def label(text: str) -> str:
    """A DNS label: what services and namespaces are called."""
    if not _LABEL.fullmatch(text):
        raise ValueError(f"{text!r} is not a DNS label (a-z, 0-9 and inner hyphens, at most 63)")
    return text


def label_or_none(text: str) -> str:
    """The same; ``none`` is the empty name."""
    return "" if text == "none" else label(text)


def service_account(text: str) -> str:
    """The name of a service account, a DNS subdomain."""
    try:
        spiffe.workload("cluster.local", "default", text)
    except IdentityError:
        raise ValueError(f"{text!r} is not a service account (DNS labels joined by dots)") from None
    return text


def spiffe_id(text: str) -> SpiffeId:
    """A SPIFFE id of a workload."""
    try:
        found = spiffe.parse(text)
    except IdentityError as error:
        raise ValueError(f"{text!r}: {error.detail}") from None
    if not found.path:
        raise ValueError(f"{text!r} is a trust domain, and no workload")
    return found


class Told(Protocol):
    """What is looked at of the settings."""

    @property
    def control(self) -> ControlUrl | None: ...
    @property
    def control_ca(self) -> str: ...
    @property
    def identity_dir(self) -> str: ...
    @property
    def mesh(self) -> str: ...
    @property
    def mtls(self) -> str: ...
    @property
    def mtls_told(self) -> bool: ...
    @property
    def token_file(self) -> str: ...


def contradictions(told: Told) -> Iterator[tuple[str, str]]:
    """Values that are right alone and wrong together: (the field to name, what is wrong; what to do)."""
    if told.control is None:
        for field in ("token_file", "control_ca", "identity_dir"):
            if getattr(told, field):
                yield field, "means nothing without a control plane; add --control https://HOST:15012, or leave it out"
        if told.mtls_told and told.mtls != "disable" and not told.mesh:
            yield "mtls", f"{told.mtls} needs an identity; add --control https://HOST:15012, or leave it out"
        return
    if not told.token_file:
        yield "control", "gives a certificate only to who has a token; add --token-file PATH"
    if told.control_ca and not told.control.secure:
        yield "control_ca", f"has nothing to check: {told.control} is not TLS; leave it out, or write https://"


def oddities(told: Told) -> Iterator[str]:
    """What is odd and yet no reason not to start."""
    if told.mesh and told.control is None:
        yield "--mesh: without --control this sidecar has no identity, so it reaches no service that the file names"
