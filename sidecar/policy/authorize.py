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
_OUTBOUND = Permit(_KEY, "a client on loopback")


def authorize_inbound(*, upstream_is_own: bool) -> Permit:
    """Inbound, without policy documents, whoever connects may reach the app. Raises ProxyError(OWN_LISTENER)."""
    if upstream_is_own:
        raise ProxyError(Reason.OWN_LISTENER, "the app's address is a listener of this proxy")
    return _INBOUND


def authorize_caller(*, loopback: bool) -> None:
    """Who else could reach the outbound port would call others in our name. Raises ProxyError(CALLER_REFUSED)."""
    if not loopback:
        raise ProxyError(Reason.CALLER_REFUSED, "the outbound proxy serves loopback clients only")


def authorize_outbound(*, loopback: bool, destination_is_own: bool) -> Permit:
    """An explicit proxy request. Raises ProxyError(CALLER_REFUSED, OWN_LISTENER)."""
    authorize_caller(loopback=loopback)
    if destination_is_own:
        raise ProxyError(Reason.OWN_LISTENER, "the destination is a listener of this proxy; call the app itself")
    return _OUTBOUND
