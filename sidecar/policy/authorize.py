"""Who may have something forwarded: the only maker of a :class:`Permit`, which forwarding demands.

Pure: what the decision rests on is handed in. Whatever can't be decided is denied.
"""

from __future__ import annotations

import msgspec

from sidecar.errors import ProxyError, Reason

_KEY = object()


class Permit(msgspec.Struct, frozen=True, gc=False):
    """Leave to forward. ``rule`` says why, for records. Nobody but this module constructs one."""

    key: object
    rule: str

    def __post_init__(self) -> None:
        if self.key is not _KEY:
            raise TypeError("only policy.authorize makes a Permit")


_INBOUND = Permit(_KEY, "the app beside this proxy")
_SERVICE = Permit(_KEY, "a service of the mesh")
_OUTBOUND = Permit(_KEY, "a client on loopback")


def authorize_inbound(*, upstream_is_own: bool) -> Permit:
    """Inbound, without policy documents, whoever connects may reach the app. Raises ProxyError(OWN_LISTENER)."""
    if upstream_is_own:
        raise ProxyError(Reason.OWN_LISTENER, "the app's address is a listener of this proxy")
    return _INBOUND


def authorize_captured(*, redirected: bool, own_listener: bool, came_back: bool, local: bool) -> None:
    """A connection at the inbound port, with --interception redirect: ``redirected`` there by the rules, on its way to
    another port than our listeners', not our own connection to the app, and to an address of this pod. Raises
    ProxyError(NOT_REDIRECTED, OWN_LISTENER, NOT_THIS_POD)."""
    if not redirected:
        raise ProxyError(Reason.NOT_REDIRECTED, "it was made to the inbound port itself")
    if own_listener:
        raise ProxyError(Reason.OWN_LISTENER, "its original destination is a listener of this proxy")
    if came_back:
        raise ProxyError(Reason.OWN_LISTENER, "the proxy's own connection to the app came back: the rules have changed")
    if not local:
        raise ProxyError(Reason.NOT_THIS_POD, "its original destination is no address of this pod")


def authorize_caller(*, loopback: bool) -> None:
    """Who else could reach the outbound port would call others in our name. Raises ProxyError(CALLER_REFUSED)."""
    if not loopback:
        raise ProxyError(Reason.CALLER_REFUSED, "the outbound proxy serves loopback clients only")


def authorize_service(*, known: bool) -> Permit:
    """A service of the mesh, which only its own workloads may serve. ``known``: its definition says who these are.
    Raises ProxyError(NO_ROUTE)."""
    if not known:
        raise ProxyError(Reason.NO_ROUTE, "nobody may serve this service: its definition names no service account")
    return _SERVICE


def authorize_outbound(
    *, loopback: bool, destination_is_own: bool, allowed: bool = True, configured: bool = True
) -> Permit:
    """What the app sends; ``allowed`` by the policy of ``egress``. Not ``configured``: nobody knows yet which services
    the mesh has, and none of them may be reached in plaintext. Raises ProxyError(CALLER_REFUSED, OWN_LISTENER,
    NO_CONFIGURATION, BLACK_HOLE)."""
    authorize_caller(loopback=loopback)
    if destination_is_own:
        raise ProxyError(Reason.OWN_LISTENER, "the destination is a listener of this proxy; call the app itself")
    if not configured:
        raise ProxyError(
            Reason.NO_CONFIGURATION,
            "this sidecar has no configuration yet, and calls nobody without: look at what --control answers (/ready)",
        )
    if not allowed:
        raise ProxyError(
            Reason.BLACK_HOLE,
            "the outbound policy is REGISTRY_ONLY, and no service, service entry or --allow-host leads there",
        )
    return _OUTBOUND
