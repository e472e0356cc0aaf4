"""The header operations of routes, judged: which fields may be changed, and to what. Pure.

Called by ``http_route_rules``. Names are RFC 9110 tokens. A field that frames a message, is for one hop or is set by
the mesh alone is not an operator's to change: a route can't open what the proxy closes. In values ``%%`` stands for a
percent sign, as in Envoy; its command operators (``%REQ(x)%``) are not supported yet, and named.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from sidecar.resources.validation import Path, Problem, shown
from sidecar.resources.virtual_service import HeaderOperations, Headers

Found = Iterator[Problem]

TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)  # RFC 9110 section 5.6.2
AUTHORITY_NAMES: Final = frozenset({"host", ":authority"})
ONE_HOP: Final = frozenset(
    {
        "connection", "http2-settings", "keep-alive", "proxy-authorization", "proxy-connection", "te", "trailer",
        "transfer-encoding", "upgrade",
    }
)  # fmt: skip
FRAMING: Final = frozenset({"content-length", "expect"})
_MESH_NAMES: Final = frozenset({"x-b3-flags-internal", "x-forwarded-client-cert"})
_MESH_PREFIXES: Final = ("x-envoy-", "l5d-", "x-source-", "x-istio-", "x-sidecar-")
_NOTHING: Final = Headers()
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_OPERATOR: Final = re.compile(r"%%|%[^%]*(?:%|$)")
_AUTHORITY: Final = re.compile(r"(?:[A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?", re.ASCII)


def header_value(text: str) -> str:
    """Return the value that a header operation means: ``%%`` is a percent sign."""
    return text.replace("%%", "%")


def check_headers(headers: Headers, at: Path) -> Found:
    """All that is wrong with the changes to requests and responses, which are at ``at``."""
    if headers != _NOTHING:
        yield from _operations(headers.request, (*at, "request"), request=True)
        yield from _operations(headers.response, (*at, "response"), request=False)


def authority_of(operations: HeaderOperations) -> str | None:
    """Return the authority that operations on requests set; None if they leave it."""
    return next((text for name, text in operations.set.items() if name.lower() in AUTHORITY_NAMES), None)


def check_authority(text: str, at: Path) -> Found:
    """What is wrong with an authority: a host, and a port if there is one."""
    if not _AUTHORITY.fullmatch(text):
        yield Problem(at, f"{shown(text)} is no authority; write HOST or HOST:PORT")


def name_problem(name: str) -> str:
    """Return why this is no name of a field; empty if it is one."""
    if not name:
        return "a name of a header is empty"
    return "" if TOKEN.fullmatch(name) else f"{shown(name)} is not a name of a header"


def _operations(operations: HeaderOperations, at: Path, *, request: bool) -> Found:
    for field, values in (("set", operations.set), ("add", operations.add)):
        seen: set[str] = set()
        for name, text in values.items():
            where: Path = (*at, field, name)
            authority = name.lower() in AUTHORITY_NAMES
            if not (authority and request and field == "set"):
                yield from _name(name, where)
            if ("host" if authority else name.lower()) in seen:
                yield Problem(where, f"{shown(name)} stands here twice: case does not count")
            seen.add("host" if authority else name.lower())
            value = list(_value(text, where))
            yield from value or (check_authority(header_value(text), where) if authority else ())
    for index, name in enumerate(operations.remove):
        yield from _name(name, (*at, "remove", index))


def _name(name: str, at: Path) -> Found:
    folded = name.lower().replace("_", "-")
    if folded in AUTHORITY_NAMES:
        yield Problem(at, f"{name} can only be in request.set")
    elif name.startswith(":"):
        yield Problem(at, f"{shown(name)} is not a header; rewrite.uri changes the path")
    elif why := name_problem(name):
        yield Problem(at, why)
    elif folded in ONE_HOP:
        yield Problem(at, f"{name} is for one hop, and the proxy's own to set")
    elif folded in FRAMING:
        yield Problem(at, f"{name} frames the message, and is the proxy's own to set")
    elif folded in _MESH_NAMES or folded.startswith(_MESH_PREFIXES):
        yield Problem(at, f"{name} is set by the mesh alone")


def _value(text: str, at: Path) -> Found:
    if _CONTROL.search(text):
        yield Problem(at, f"{shown(text)} has a control character, which no header can have")
    for found in _OPERATOR.findall(text):
        if found != "%%":
            whole = len(found) > 1 and found.endswith("%")
            what = f"the command operator {shown(found)}, which is not supported yet" if whole else "a single %"
            yield Problem(at, f"{shown(text)} has {what}; for a percent sign write %%")
            break
