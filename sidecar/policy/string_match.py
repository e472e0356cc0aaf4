"""Conditions on one text, compiled: exact, prefix, RE2, or that it is there. Pure.

Called by ``policy.route_conditions`` for requests, and by the proxy for origins and for rewrites of a path.

Regexes are RE2: they run in linear time, whatever the document or the client writes (POL-10). They are compiled as
UTF-8, RE2's own default and so Envoy's: documents are UTF-8, in which ``é`` is one character of a class, and a byte of
a request that is no UTF-8 is matched by nothing, not by ``.`` either. RE2 is imported with the first regex.

Sources: Istio's reference of VirtualService ("StringMatch"); Envoy's ``StringMatcher`` and ``regex_rewrite``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, Protocol

from sidecar.errors import ProxyError, Reason
from sidecar.resources.virtual_service import StringMatch

Match = Callable[[bytes], bool]

ANYTHING: Final = "*"  # no RE2: Istio takes it for presence
_LITERAL: Final = 256  # bytes of a regex's beginning that are looked at
_DIGITS: Final = frozenset(b"0123456789")
MOST_BYTES: Final = 32 * 1024  # of a rewritten target: as many as a whole head may have that comes in


class Found(Protocol):
    """What a regex found."""

    def span(self) -> tuple[int, int]: ...

    def __getitem__(self, group: int) -> bytes | None: ...


class Regex(Protocol):
    """A compiled RE2, for bytes."""

    @property
    def groups(self) -> int: ...

    def fullmatch(self, text: bytes) -> Found | None: ...

    def finditer(self, text: bytes) -> Iterator[Found]: ...

    def possiblematchrange(self, maxlen: int) -> tuple[bytes, bytes]: ...


def compile_string(match: StringMatch, *, ignore_case: bool = False) -> Match:
    """Return the function that tells whether a value matches. ``ignore_case`` (ASCII) holds for exact and prefix.

    Without exact, prefix and regex, or with the regex ``*``, every value does. Raises ValueError for what is no RE2.
    """
    if match.exact is not None:
        return _exact(match.exact.encode(), ignore_case)
    if match.prefix is not None:
        return _prefix(match.prefix.encode(), ignore_case)
    if is_presence(match):
        return _anything
    assert match.regex is not None
    full_match = compile_regex(match.regex).fullmatch
    return lambda value: full_match(value) is not None


def is_presence(match: StringMatch) -> bool:
    """Return whether a condition only asks for a value to be there."""
    return match.exact is None and match.prefix is None and (match.regex is None or match.regex == ANYTHING)


def compile_regex(pattern: str, *, groups: bool = False) -> Regex:
    """Return the compiled form, for bytes. Raises ValueError for what is no RE2, or too large for it."""
    import re2  # only if a document has a regex

    options = re2.Options()
    options.log_errors = False  # it would write to stderr
    options.never_capture = not groups
    try:
        regex: Regex = re2.compile(pattern.encode(), options)
    except re2.error as problem:
        reason = problem.args[0]
        text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise ValueError(f"regex {pattern!r}: {text}") from None
    return regex


def literal_prefix(pattern: str) -> bytes:
    """Return a text that every match of a regex begins with; empty if there is none. Raises as :func:`compile_regex`.

    All matches lie between two texts, by their bytes: what these have in common at their beginning, all matches have.
    """
    import re2

    try:
        least, most = compile_regex(pattern).possiblematchrange(_LITERAL)
    except re2.error:
        return b""  # it may begin with anything
    end = 0
    for one, other in zip(least, most, strict=False):
        if one != other:
            break
        end += 1
    return least[:end]


def compile_regex_rewrite(match: str, rewrite: str) -> Callable[[bytes], bytes]:
    """Return the function that replaces all that ``match`` finds in a path. ``\\0`` to ``\\9`` in ``rewrite`` stand for
    the whole match and its groups, ``\\\\`` for a backslash.

    The function raises ProxyError(REQUEST_LINE_TOO_LONG) for a path that grows beyond MOST_BYTES. As in Envoy, a
    rewrite that names a group which ``match`` does not have changes nothing. Raises ValueError for what is no RE2, and
    for any other backslash.
    """
    pieces = _pieces(rewrite)
    regex = compile_regex(match, groups=True)
    if any(isinstance(piece, int) and piece > regex.groups for piece in pieces):
        return lambda path: path

    def rewritten(path: bytes) -> bytes:
        made: list[bytes] = []
        copied = size = 0
        last_end = -1
        for found in regex.finditer(path):
            begin, end = found.span()
            if begin == end == last_end:
                continue  # RE2 replaces no empty match right after another
            new = [piece if isinstance(piece, bytes) else found[piece] or b"" for piece in pieces]
            size += begin - copied + sum(map(len, new))
            check_length(size)
            made += [path[copied:begin], *new]
            copied = last_end = end
        return b"".join(made) + path[copied:]

    return rewritten


def check_length(size: int) -> None:
    """Raise ProxyError(REQUEST_LINE_TOO_LONG) for a rewritten target of this size, if no server has to take it."""
    if size > MOST_BYTES:
        raise ProxyError(Reason.REQUEST_LINE_TOO_LONG, f"the route rewrites the path to more than {MOST_BYTES} bytes")


def _pieces(rewrite: str) -> list[bytes | int]:
    """Return the parts of a rewrite: texts, and the numbers of groups."""
    pieces: list[bytes | int] = []
    head, *escaped = rewrite.encode().split(b"\\")
    pieces.append(head)
    rest = iter(escaped)
    for part in rest:
        if part[:1] and part[0] in _DIGITS:
            pieces += [part[0] - 0x30, part[1:]]
        elif not part and (after := next(rest, None)) is not None:  # two of them
            pieces.append(b"\\" + after)
        else:
            raise ValueError(f"rewrite {rewrite!r}: a backslash stands before a digit or another backslash")
    return pieces


def _exact(text: bytes, ignore_case: bool) -> Match:
    if not ignore_case:
        return text.__eq__
    lower = text.lower()
    return lambda value: value.lower() == lower


def _prefix(text: bytes, ignore_case: bool) -> Match:
    if not ignore_case:
        return lambda value: value.startswith(text)
    lower = text.lower()
    return lambda value: value[: len(lower)].lower() == lower


def _anything(_: bytes) -> bool:
    return True
