"""Routes that no request reaches, since one before them takes all that they would. Pure. Called by ``routing_lint``.

Only what is certain is told: a route without conditions, the same conditions twice, and a path below a prefix that a
route before takes whatever else the request has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

import msgspec

from sidecar.resources.kinds import VirtualService
from sidecar.resources.validation import Path, shown
from sidecar.resources.virtual_service import MESH, HTTPMatchRequest, L4MatchAttributes, TLSMatchAttributes

Match = TypeVar("Match", HTTPMatchRequest, L4MatchAttributes, TLSMatchAttributes)

LONGEST_PATH: Final = 256  # characters; longer ones are not held against prefixes


def unreached(spec: VirtualService) -> Iterator[tuple[Path, str]]:
    """All routes and matches of a VirtualService that nothing reaches; paths are from its ``spec``."""
    yield from _routes("http", [route.match for route in spec.http], "request")
    yield from _routes("tls", [route.match for route in spec.tls], "connection")
    yield from _routes("tcp", [route.match for route in spec.tcp], "connection")


def _routes(kind: str, routes: Sequence[Sequence[Match]], what: str) -> Iterator[tuple[Path, str]]:
    seen: dict[bytes, tuple[int, int]] = {}
    prefixes: dict[str, tuple[int, int]] = {}
    for number, matches in enumerate(routes):
        for index, match in enumerate(matches):
            at: Path = (kind, number, "match", index)
            known = seen.setdefault(_conditions(match), (number, index))
            if known[0] != number:
                yield at, f"is never reached: {kind}[{known[0]}].match[{known[1]}] is the same, and comes first"
            elif isinstance(match, HTTPMatchRequest):
                wide = _prefix_of(match, prefixes)
                if wide and prefixes[wide][0] != number:
                    first = prefixes[wide]
                    why = f"is never reached: {kind}[{first[0]}].match[{first[1]}] takes all paths below {shown(wide)}"
                    yield at, why
                if (own := _unconditional_prefix(match)) is not None:
                    prefixes.setdefault(own, (number, index))
        if number + 1 < len(routes) and (not matches or any(map(_takes_all, matches))):
            last = len(routes) - 1
            rest = f"{kind}[{number + 1}]" if last == number + 1 else f"{kind}[{number + 1}] to {kind}[{last}]"
            verb = "is" if last == number + 1 else "are"
            yield (kind, number + 1), f"{rest} {verb} never reached: {kind}[{number}] takes every {what}"
            return


def _conditions(match: HTTPMatchRequest | L4MatchAttributes | TLSMatchAttributes) -> bytes:
    if isinstance(match, HTTPMatchRequest):
        match = msgspec.structs.replace(match, name="")
    return msgspec.json.encode(match, order="sorted")


def _takes_all(match: HTTPMatchRequest | L4MatchAttributes | TLSMatchAttributes) -> bool:
    if isinstance(match, HTTPMatchRequest):
        return _unconditional_prefix(match) in ("", "/")
    return isinstance(match, L4MatchAttributes) and match in (L4MatchAttributes(), L4MatchAttributes(gateways=[MESH]))


def _unconditional_prefix(match: HTTPMatchRequest) -> str | None:
    """The prefix of all paths that a match takes, if the path is its only condition."""
    uri = match.uri
    rest = msgspec.structs.replace(match, name="", uri=None, ignore_uri_case=False, gateways=[])
    if rest != HTTPMatchRequest() or (match.gateways and MESH not in match.gateways):
        return None
    if uri is None or (uri.exact, uri.prefix, uri.regex) in ((None, None, None), (None, None, ".*")):
        return ""
    return uri.prefix if not match.ignore_uri_case or uri.prefix in ("", "/") else None


def _prefix_of(match: HTTPMatchRequest, prefixes: dict[str, tuple[int, int]]) -> str:
    """The shortest of these prefixes that takes all paths of a match; empty if none does."""
    text = "" if match.uri is None or match.ignore_uri_case else match.uri.exact or match.uri.prefix or ""
    if not prefixes or len(text) > LONGEST_PATH:
        return ""
    return next((text[:end] for end in range(1, len(text) + 1) if text[:end] in prefixes), "")
