"""The names of kinds, as people write them: in any case, plural, or short. Pure."""

from __future__ import annotations

from typing import Final

from control.ctl.exit_codes import Exit, Failed

NAMES: Final[dict[str, tuple[str, ...]]] = {
    "Service": ("services", "svc"),
    "PeerAuthentication": ("peerauthentications", "pa"),
    "AuthorizationPolicy": ("authorizationpolicies", "authz"),
    "RateLimitPolicy": ("ratelimitpolicies", "rl"),
    "VirtualService": ("virtualservices", "vs"),
    "DestinationRule": ("destinationrules", "dr"),
    "BackendTrafficPolicy": ("backendtrafficpolicies", "btp"),
    "ServiceEntry": ("serviceentries", "se"),
    "WorkloadEntry": ("workloadentries", "we"),
    "Sidecar": ("sidecars",),
}
_BY_NAME: Final = {name: kind for kind, more in NAMES.items() for name in (kind.lower(), *more)}


def kind_of(text: str) -> str:
    """The kind as documents write it. Failed for what is none."""
    kind = _BY_NAME.get(text.lower())
    if kind is None:
        known = ", ".join(f"{kind} ({more[-1]})" if len(more) > 1 else kind for kind, more in NAMES.items())
        raise Failed(Exit.USAGE, f"{text!r} is not a kind; there are {known}")
    return kind


def spoken() -> list[str]:
    """What may be written for a kind; for completion."""
    return sorted(_BY_NAME)


def split(words: tuple[str, ...]) -> tuple[str, str]:
    """``KIND NAME``, ``KIND/NAME`` or ``KIND`` -> (kind, name); empty where not said. Failed where that can't be."""
    if not words:
        return "", ""
    kind, slash, name = words[0].partition("/")
    if slash and len(words) > 1:
        raise Failed(Exit.USAGE, f"{words[0]} has a name already; write KIND NAME or KIND/NAME")
    if len(words) > 2:
        raise Failed(Exit.USAGE, f"{words[2]}: one name at a time; write KIND NAME")
    return kind_of(kind), name if slash else (words[1] if len(words) > 1 else "")
