"""The conditions of one HTTPMatchRequest, compiled. Pure.

Called by ``policy.http_routes``. Conditions on the proxy itself (gateways, sourceLabels, sourceNamespace) are decided
here, once: a match of which one fails can never hold. The others are functions of the request, in the order in which
they are tried and shown.

Sources: Istio's reference of VirtualService ("HTTPMatchRequest") and its translation for Envoy; Envoy's
``HeaderMatcher`` and ``QueryParameterMatcher``.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import Final, Literal

import msgspec

from sidecar.policy.route_question import AUTHORITY, METHOD, PSEUDO, SCHEME, RouteQuestion
from sidecar.policy.string_match import compile_string, is_presence, literal_prefix
from sidecar.resources.virtual_service import MESH, HTTPMatchRequest, L4MatchAttributes, StringMatch, TLSMatchAttributes

Holds = Callable[[RouteQuestion], bool]
Labels = Mapping[str, str]

_CONDITIONS_PER_STEP: Final = 32
PARAM: Final = b"?"  # before the name of a query parameter, among the names of fields


class Condition(msgspec.Struct, frozen=True, gc=False):
    """One condition, by the name of its field in the document."""

    field: str
    holds: Holds


class PathKey(msgspec.Struct, frozen=True, gc=False):
    """What an index may know of the path: it equals ``text``, or starts with it. ``folded``: both in lower case.

    ``decides``: that is all that ``uri`` asks for.
    """

    kind: Literal["exact", "prefix"]
    text: bytes
    folded: bool = False
    decides: bool = True


class Conditions(msgspec.Struct, frozen=True, gc=False):
    """What a match asks for. ``never`` is the field that can't hold for this proxy, or that has no meaning; "" without.

    ``uri`` is the one of ``tests`` about the path. ``keys`` are (name, value) of fields, pseudo-headers and, with
    PARAM before their names, query parameters: the match holds only if the request has all of them.
    """

    never: str
    tests: tuple[Condition, ...] = ()
    uri: Condition | None = None
    path: PathKey | None = None
    keys: tuple[tuple[bytes, bytes], ...] = ()


class Caller(msgspec.Struct, frozen=True, gc=False):
    """The proxy whose requests are routed: its namespace, and the labels of each of its services."""

    namespace: str
    labels: Sequence[Labels] = ()

    def excluded_http(self, match: HTTPMatchRequest) -> str:
        """Return the field that keeps a match from this proxy's requests; "" if none does. As in Istio, ``gateways``
        stands in place of ``sourceLabels`` and ``sourceNamespace``."""
        if match.gateways:
            return "" if MESH in match.gateways else "gateways"
        return self._excluded(match)

    def excluded_l4(self, match: L4MatchAttributes | TLSMatchAttributes) -> str:
        """Return the field that keeps a match from this proxy's connections; "" if none does."""
        if match.gateways and MESH not in match.gateways:
            return "gateways"
        return self._excluded(match)

    def _excluded(self, match: HTTPMatchRequest | L4MatchAttributes | TLSMatchAttributes) -> str:
        wanted = match.source_labels.items()
        if wanted and not any(wanted <= labels.items() for labels in self.labels):
            return "sourceLabels"
        if match.source_namespace not in ("", self.namespace):
            return "sourceNamespace"
        return ""


def compile_match(match: HTTPMatchRequest, caller: Caller) -> Generator[None, None, Conditions]:
    """Compile one match; yield after every few conditions. A regex that is no RE2 makes it one that never holds."""
    excluded = caller.excluded_http(match)
    if excluded:
        return Conditions(excluded)
    tests: list[Condition] = []
    uri: Condition | None = None
    for number, part in enumerate(_parts(match), 1):
        try:
            condition = Condition(part.field, part.compile())
        except ValueError:
            return Conditions(part.field)
        tests.append(condition)
        if part.field == "uri":
            uri = condition
        if part.regex or not number % _CONDITIONS_PER_STEP:
            yield
    return Conditions("", tuple(tests), uri, _path_key(match), tuple(_keys(match)))


class _Part(msgspec.Struct, frozen=True, gc=False):
    """A condition that is not compiled yet. ``regex``: that takes a while."""

    field: str
    compile: Callable[[], Holds]
    regex: bool


def _parts(match: HTTPMatchRequest) -> Iterator[_Part]:
    if match.port is not None:
        port = match.port
        yield _Part("port", lambda: lambda question: question.port == port, False)
    if match.uri is not None:
        uri = match.uri
        yield _Part("uri", lambda: _uri(uri, match.ignore_uri_case), uri.regex is not None)
    for field, name, of_head in (
        ("scheme", SCHEME, match.scheme),
        ("method", METHOD, match.method),
        ("authority", AUTHORITY, match.authority),
    ):
        if of_head is not None:
            yield _part(field, _pseudo, name, of_head)
    for title, wanted in match.headers.items():
        yield _part(f"headers[{title}]", _header, title.lower().encode(), wanted)
    for title, unwanted in match.without_headers.items():
        yield _part(f"withoutHeaders[{title}]", _without, title.lower().encode(), unwanted)
    for title, wanted in match.query_params.items():
        yield _part(f"queryParams[{title}]", _param, title.encode(), wanted)


def _part(field: str, make: Callable[[bytes, StringMatch], Holds], name: bytes, match: StringMatch) -> _Part:
    return _Part(field, lambda: make(name, match), match.regex is not None)


def _uri(match: StringMatch, ignore_case: bool) -> Holds:
    """A text without a question mark is found in a target as in its path."""
    if match.exact is not None and not ignore_case and "?" not in match.exact:
        whole = match.exact.encode()
        with_query = whole + b"?"
        return lambda question: question.target == whole or question.target.startswith(with_query)
    if match.exact is None and match.prefix is not None and not ignore_case and "?" not in match.prefix:
        begin = match.prefix.encode()
        return lambda question: question.target.startswith(begin)
    matches = compile_string(match, ignore_case=ignore_case)
    return lambda question: matches(question.path())


def _pseudo(name: bytes, match: StringMatch) -> Holds:
    matches = compile_string(match)
    if name == METHOD:  # the others are rare
        return lambda question: matches(question.method)
    read = PSEUDO[name]
    return lambda question: matches(read(question))


def _header(name: bytes, match: StringMatch) -> Holds:
    """A field that was sent more than once matches if one of its values does."""
    if name in PSEUDO:
        return _pseudo(name, match)
    matches = compile_string(match)

    def holds(question: RouteQuestion) -> bool:
        value = question.headers().get(name)
        if value is None:
            return False
        return matches(value) or (name in question.repeated and any(map(matches, question.repeated[name])))

    return holds


def _without(name: bytes, match: StringMatch) -> Holds:
    """As in Envoy, a field that is missing counts as an empty one, unless its presence is all that is asked for."""
    if is_presence(match):
        return lambda question: not question.values(name)
    matches = compile_string(match)
    return lambda question: not any(map(matches, question.values(name) or (b"",)))


def _param(name: bytes, match: StringMatch) -> Holds:
    """Of a parameter that was sent more than once the first value counts."""
    matches = compile_string(match)

    def holds(question: RouteQuestion) -> bool:
        value = question.params().get(name)
        return value is not None and matches(value)

    return holds


def _path_key(match: HTTPMatchRequest) -> PathKey | None:
    uri = match.uri
    if uri is None or is_presence(uri):
        return None
    folded = match.ignore_uri_case
    if uri.exact is not None or uri.prefix is not None:
        text = (uri.exact if uri.exact is not None else uri.prefix or "").encode()
        return PathKey("prefix" if uri.exact is None else "exact", text.lower() if folded else text, folded)
    begin = literal_prefix(uri.regex or "")
    return PathKey("prefix", begin, decides=False) if begin else None


def _keys(match: HTTPMatchRequest) -> Iterator[tuple[bytes, bytes]]:
    for name, wanted in match.headers.items():
        if wanted.exact is not None:
            yield name.lower().encode(), wanted.exact.encode()
    for key, of_head in ((AUTHORITY, match.authority), (METHOD, match.method)):
        if of_head is not None and of_head.exact is not None:
            yield key, of_head.exact.encode()
    for name, wanted in match.query_params.items():
        if wanted.exact is not None:
            yield PARAM + name.encode(), wanted.exact.encode()
