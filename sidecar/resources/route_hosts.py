"""Hosts that routes speak of: their full names, how they are written, and what stands for one. Pure.

A host without a dot is a service of the document's namespace. Documents (``virtual_service_rules``, ``routing_lint``)
and what makes a proxy's configuration of them use :func:`full_host` alike, so that both mean the same host.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from sidecar.addresses import parse_ip
from sidecar.resources.names import is_host
from sidecar.resources.validation import shown

ANY: Final = "*"


def full_host(host: str, namespace: str, trust_domain: str) -> str:
    """Return the full name of ``host``, in lower case: a name without a dot is ``HOST.NAMESPACE.svc.TRUST-DOMAIN``.

    Names with a dot, ``*``, ``*.NAME`` and IP addresses are taken as they are written.
    """
    host = host.lower()
    if host == ANY or "." in host or ":" in host:
        return host
    return f"{host}.{namespace}.svc.{trust_domain}"


def host_problem(host: str) -> str:
    """Return why this is no host of a document, neither a name nor ``*.`` and a name; empty if it is one.

    Istio's ``ValidateWildcardDomain``, without its ``*-name``, and with the inner underscores that hosts have in
    practice. Case does not count.
    """
    name = host.lower()
    if not host:
        return "is empty; write a host"
    if name.startswith("*") and name != ANY and not name.startswith("*."):
        return f"{shown(host)} is not supported yet: a * stands for whole labels; write *. and a name"
    if name != ANY and not is_host(name.removeprefix("*.")):
        if parse_ip(host) is not None:
            return f"{host} is an address; write the name of a service or of a ServiceEntry"
        return f"{shown(host)} is no host: a name without a dot at its end, or *. and a name"
    return ""


def covering(host: str) -> Iterator[str]:
    """Yield what stands for ``host``, in lower case: itself, ``*.`` and each of its endings, and ``*``."""
    host = host.lower()
    yield host
    rest = host.removeprefix("*.")
    while "." in rest:
        rest = rest.partition(".")[2]
        yield f"*.{rest}"
    if host != ANY:
        yield ANY
