"""The two forms of a path: the one that is forwarded, and the one that policy judges.

The forwarded form is normalized by RFC 3986 (section 6.2.2: dot-segments removed, unreserved characters decoded) and
otherwise as it was sent: an app that needs ``%2F`` or ``;x=y`` gets them. The judged form is decoded as far as any
server may decode it, so that a path that an app could take for ``/admin`` never looks different to a rule. Pure.
"""

from __future__ import annotations

import re
from typing import Final

from sidecar.errors import ProxyError, Reason

_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
# NUL, CR and LF, and sequences that are an overlong form of a shorter one (RFC 3629 section 3).
_REFUSED_ESCAPE: Final = re.compile(
    rb"%(?:00|0[aAdD]|[cC][01]%[89abAB][0-9A-Fa-f]|[eE]0%[89][0-9A-Fa-f]|[fF]0%8[0-9A-Fa-f]"
    rb"|[fF]8%8[0-7]|[fF][cC]%8[0-3])"  # five and six bytes long: RFC 2279 had them, and old decoders still read them
)
# After any character that an app may take for a slash.
_DOT_AND_PARAMETER: Final = re.compile(rb"(?:[/\\]|%2[fF]|%5[cC])\.{1,2};")
_SLASHES: Final = re.compile(rb"/{2,}")


def forwarded(target: bytes) -> bytes:
    """Return the origin-form target (path and query) to forward. Raises ProxyError(BAD_REQUEST) if it is refused.

    ``target`` begins with a slash and holds visible ASCII only (the grammar of the head saw to it).
    """
    if b"%" not in target and b"/." not in target and b"\\" not in target:
        return target
    path, mark, query = target.partition(b"?")
    if b"%" in path:
        _refuse_escapes(path)
        path = _ESCAPE.sub(_decode_unreserved, path)
    if _DOT_AND_PARAMETER.search(path):
        raise ProxyError(Reason.BAD_REQUEST, "a dot-segment of the path has a parameter")
    if b"/." in path:
        path = _remove_dot_segments(path)
    return path + mark + query


def judged(target: bytes) -> frozenset[bytes]:
    """Return the forms that rules judge: decoded in full, slashes merged both after and before dot-segments go.

    ``target`` is the target as it was sent. The forwarded form is judged too: if a back-slash or ``%2f`` stands beside
    dot-segments, an app that decodes the forwarded form may arrive at another path than from the sent one. Raises as
    :func:`forwarded`.
    """
    sent = target.partition(b"?")[0]
    forms, goes_on = _forms(sent), forwarded(sent)
    return forms if goes_on == sent else forms | _forms(goes_on)


def _forms(path: bytes) -> frozenset[bytes]:
    path = _ESCAPE.sub(_decode_judged, path).replace(b"\\", b"/")
    path = b"/".join([segment.partition(b";")[0] for segment in path.split(b"/")])
    merged_after = _SLASHES.sub(b"/", _remove_dot_segments(path))
    merged_before = _remove_dot_segments(_SLASHES.sub(b"/", path))
    return frozenset({merged_after, merged_before})


def _refuse_escapes(path: bytes) -> None:
    if _BAD_ESCAPE.search(path):
        raise ProxyError(Reason.BAD_REQUEST, "the path has a percent sign without two hexadecimal digits")
    if _REFUSED_ESCAPE.search(path):
        raise ProxyError(Reason.BAD_REQUEST, "the path has an escaped NUL, CR, LF or overlong UTF-8")


def _decode_unreserved(match: re.Match[bytes]) -> bytes:
    byte = int(match[1], 16)
    return bytes((byte,)) if byte in _UNRESERVED else match[0]


def _decode_judged(match: re.Match[bytes]) -> bytes:
    byte = int(match[1], 16)
    return bytes((byte,)) if byte in _UNRESERVED or byte in b"/\\" else match[0]


def _remove_dot_segments(path: bytes) -> bytes:
    """Apply RFC 3986 section 5.2.4 to a path that begins with a slash."""
    kept: list[bytes] = []
    segments = path.split(b"/")[1:]
    last = segments[-1]
    for segment in segments:
        if segment == b"..":
            if kept:
                kept.pop()
        elif segment != b".":
            kept.append(segment)
    if last in (b".", b".."):
        kept.append(b"")
    return b"/" + b"/".join(kept)
