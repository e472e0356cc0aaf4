"""Authorization: the only maker of a :class:`Permit`, without which nothing is forwarded.

Pure: all inputs of a decision are arguments. What can't be decided is denied. A Permit is required before anything is
dialed and before any byte of the peer is forwarded, for HTTP, opaque bytes and clients that are silent. The cluster
that forwards compares it with its own name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from sidecar.errors import ProxyError, Reason

_KEY = object()


class Permit(msgspec.Struct, frozen=True, gc=False):
    """Permission to forward what ``peer`` sends to ``cluster``. ``rule`` allowed it; ``rule`` and ``note`` are for
    records.

    ``peer`` is the SPIFFE id that the caller has shown; empty if it has shown none. ``at`` is the place that the
    request names explicitly, in clusters whose endpoints are not known beforehand; None: any endpoint of the cluster.
    Only this module makes one.
    """

    key: object
    rule: str
    peer: str
    cluster: str
    at: object = None
    note: str = ""

    def __post_init__(self) -> None:
        if self.key is not _KEY:
            raise TypeError("only policy.authorize makes a Permit")


class Asked(msgspec.Struct, frozen=True, gc=False):
    """A peer's request or connection, as far as it is known: all that rules decide by.

    ``peer`` is its SPIFFE id, empty if it has shown none; ``client`` the address that the connection comes from,
    ``remote`` the one that trusted proxies report (the same if none does). ``protocol`` is HTTP, TLS or TCP. ``place``
    is the address and port at which the app is reached. The rest is empty if it does not apply, and for a client that
    is silent; ``path`` is the target as it was sent, ``fields`` are all that may be forwarded, ``route`` is the rule of
    a VirtualService that the request follows.
    """

    direction: str
    peer: str
    client: str
    cluster: str
    protocol: str
    method: bytes = b""
    path: bytes = b""
    authority: bytes = b""
    sni: bytes = b""
    remote: str = ""
    place: tuple[str, int] = ("", 0)
    fields: Sequence[tuple[bytes, bytes]] = ()
    route: str = ""


class Leave(msgspec.Struct, frozen=True, gc=False):
    """The rule that allowed it: ``rule`` is its name, empty if no policy document has a part; ``note`` has the results
    of audits and dry runs."""

    rule: str = ""
    note: str = ""


Rules = Callable[[Asked], Leave]
"""Judge a stream or a connection before anything is dialed for it: return what allows it, or raise ProxyError."""

_BY_DEFAULT: Final = Leave()


def allow_all(_: Asked) -> Leave:
    """Allow every peer: without policy documents, only the rest of this module limits it."""
    return _BY_DEFAULT


def authorize_inbound(rules: Rules, asked: Asked) -> Permit:
    """Return the permit to reach the app beside this proxy. Raises ProxyError if ``rules`` do."""
    return _permit(rules(asked), "the app beside this proxy", asked)


def _permit(leave: Leave, otherwise: str, asked: Asked, at: object = None) -> Permit:
    return Permit(_KEY, leave.rule or otherwise, asked.peer, asked.cluster, at, leave.note)


def refuse_own_listener(own: bool, *, app: bool = False) -> None:
    """Refuse to dial a listener of this proxy, whatever name led to it; ``app``: it was configured as the app. Raises
    ProxyError(OWN_LISTENER)."""
    if own:
        what = "the app's address is" if app else "the destination is"
        raise ProxyError(Reason.OWN_LISTENER, f"{what} a listener of this proxy; call the app itself")


def authorize_captured(*, redirected: bool, own_listener: bool, came_back: bool, local: bool) -> None:
    """Accept a connection at the inbound port, with --interception redirect, if all of these hold: the rules
    ``redirected`` it there; its original port is not one of our listeners'; it is not our own connection to the app;
    its original address is one of this pod. Raises ProxyError(NOT_REDIRECTED, OWN_LISTENER, NOT_THIS_POD)."""
    if not redirected:
        raise ProxyError(Reason.NOT_REDIRECTED, "it was made to the inbound port itself")
    if own_listener:
        raise ProxyError(Reason.OWN_LISTENER, "its original destination is a listener of this proxy")
    if came_back:
        raise ProxyError(Reason.OWN_LISTENER, "the proxy's own connection to the app came back: the rules have changed")
    if not local:
        raise ProxyError(Reason.NOT_THIS_POD, "its original destination is no address of this pod")


def authorize_caller(*, loopback: bool) -> None:
    """Refuse a caller that is not on loopback: it could call others in our name. Raises ProxyError(CALLER_REFUSED)."""
    if not loopback:
        raise ProxyError(Reason.CALLER_REFUSED, "the outbound proxy serves loopback clients only")


def authorize_service(rules: Rules, asked: Asked, at: object = None) -> Permit:
    """Return the permit to call a service of the mesh, which only its own workloads can serve; ``at`` as of ``Permit``.
    Raises ProxyError if ``rules`` do."""
    return _permit(rules(asked), "a service of the mesh", asked, at)


def authorize_outbound(
    rules: Rules,
    asked: Asked,
    at: object = None,
    *,
    destination_is_own: bool,
    allowed: bool = True,
    configured: bool = True,
) -> Permit:
    """Return the permit to send the app's bytes to the outside; ``allowed`` is the decision of the policy of
    ``egress``. Not ``configured``: the services of the mesh are not known yet, and none of them may be reached in
    plaintext.

    Raises ProxyError(OWN_LISTENER, NO_CONFIGURATION, BLACK_HOLE), or what ``rules`` do.
    """
    refuse_own_listener(destination_is_own)
    if not configured:
        raise ProxyError(
            Reason.NO_CONFIGURATION,
            "no configuration received yet; outbound calls are refused: look at what --control answers (/ready)",
        )
    if not allowed:
        raise ProxyError(
            Reason.BLACK_HOLE,
            "the outbound policy is REGISTRY_ONLY, and no service, service entry or --allow-host leads there",
        )
    return _permit(rules(asked), "outbound policy", asked, at)
