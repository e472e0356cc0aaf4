"""One VirtualService, compiled: which rule a request or a connection follows. Pure.

Called by ``policy.virtual_hosts``, and then for each request by the proxy, and by ``/explain``. The meaning is Istio's:
rules in their order, and the matches of each; the first match of which all conditions hold decides. Few matches are
walked, many are found through ``policy.route_index``. ``policy.l4_routes`` has the rules for connections.

Source: Istio's reference of VirtualService ("HTTPRoute").
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Final

import msgspec

from sidecar.policy.l4_routes import L4Routes, L4Rule, compile_l4_routes
from sidecar.policy.route_actions import RouteAction, compile_action
from sidecar.policy.route_conditions import Caller, Conditions, Holds, Labels, compile_match
from sidecar.policy.route_index import FEW, RouteIndex, build_index
from sidecar.policy.route_question import RouteQuestion
from sidecar.resources.virtual_service import HTTPMatchRequest, HTTPRoute, VirtualServiceSpec

__all__ = ["HttpMatch", "HttpRule", "RouteQuestion", "Tried", "VirtualHost", "compile_virtual_host"]

_PER_STEP: Final = 16
_UNCONDITIONAL: Final = Conditions("")


class HttpMatch(msgspec.Struct, frozen=True, gc=False):
    """A match of a rule; ``number`` is -1, and ``spec`` None, for a rule that takes all."""

    number: int
    spec: HTTPMatchRequest | None
    conditions: Conditions

    @property
    def name(self) -> str:
        """The name in the document."""
        return "" if self.spec is None else self.spec.name

    def failed(self, question: RouteQuestion) -> str:
        """Return the first field that fails, "" if all hold."""
        if self.conditions.never:
            return self.conditions.never
        return next((test.field for test in self.conditions.tests if not test.holds(question)), "")


class HttpRule(msgspec.Struct, frozen=True, gc=False):
    """A rule by its number in the document; ``action`` is what it does with the requests that it matches."""

    number: int
    spec: HTTPRoute
    matches: Sequence[HttpMatch]
    action: RouteAction

    @property
    def name(self) -> str:
        """The name in the document; may be empty."""
        return self.spec.name


class Tried(msgspec.Struct, frozen=True, gc=False):
    """A match that was tried; -1 for a rule that takes all. ``field`` failed; "" if the match held."""

    rule: int
    rule_name: str
    match: int
    match_name: str
    field: str


Found = tuple[HttpRule, HTTPMatchRequest | None]


class VirtualHost:
    """A VirtualService for one proxy. Made by :func:`compile_virtual_host`."""

    __slots__ = ("_found", "_index", "_ports", "_walked", "fields", "l4", "rules", "spec")

    def __init__(self, spec: VirtualServiceSpec) -> None:
        self.spec = spec
        self.rules: list[HttpRule] = []
        self.l4 = L4Routes()
        self.fields: set[bytes] = set()  # names of the fields that its matches look at, in lower case
        self._found: list[Found] = []
        self._walked: list[tuple[tuple[Holds, ...], Found]] | None = None
        self._index: RouteIndex | None = None
        self._ports: set[int] | None = set()  # None: any

    @property
    def title(self) -> str:
        """``NAMESPACE/NAME`` of its VirtualService."""
        return self.spec.title

    def serves(self, port: int) -> bool:
        """Return whether a request to this port can match at all. If it can't, then as in Istio the VirtualService
        does not count for it, and the request goes where it would go without one."""
        return self._ports is None or port in self._ports

    def first(self, question: RouteQuestion) -> Found | None:
        """Return the rule that a request follows, and the match that held; None if there is no rule for it."""
        if self._walked is not None:
            for tests, found in self._walked:
                for test in tests:
                    if not test(question):
                        break
                else:
                    return found
            return None
        if self._index is None:
            return None
        order = self._index.first(question)
        return None if order < 0 else self._found[order]

    def parts(self) -> list[object]:
        """Return what it is made of, in small pieces; those that hold others come last."""
        if len(self._found) <= _PER_STEP:
            return [self]
        return [*self.rules, *(() if self._index is None else self._index.parts()), self]

    def tried(self, question: RouteQuestion) -> list[Tried]:
        """Return every match up to the first that holds, with the field that failed."""
        steps: list[Tried] = []
        for rule in self.rules:
            for match in rule.matches:
                field = match.failed(question)
                steps.append(Tried(rule.number, rule.name, match.number, match.name, field))
                if not field:
                    return steps
        return steps

    def first_tcp(self, address: str, port: int) -> L4Rule | None:
        """Return the rule for an opaque connection to an original address and port; None if there is none for it."""
        return self.l4.first_tcp(address, port)

    def first_tls(self, sni: bytes, address: str, port: int) -> L4Rule | None:
        """Return the rule for a TLS connection of the app's own; None if there is none for it."""
        return self.l4.first_tls(sni, address, port)

    def compile(self, caller: Caller, few: int) -> Generator[None, None, None]:
        """Compile all rules. For :func:`compile_virtual_host`."""
        tried: list[HttpMatch] = []
        for number, spec in enumerate(self.spec.http, 1):
            rule = yield from _compile_rule(number - 1, spec, caller)
            self.rules.append(rule)
            for match in rule.matches:
                if match.spec is not None and (match.spec.headers or match.spec.without_headers):
                    self.fields.update(name.lower().encode() for name in match.spec.headers)
                    self.fields.update(name.lower().encode() for name in match.spec.without_headers)
                if not match.conditions.never:
                    tried.append(match)
                    self._found.append((rule, match.spec))
                    self._add_port(match.spec)
            if not number % _PER_STEP:
                yield
        if len(tried) <= few:
            tests = [tuple([test.holds for test in match.conditions.tests]) for match in tried]
            self._walked = list(zip(tests, self._found, strict=True))
        else:
            self._index = yield from build_index([match.conditions for match in tried], few)
        self.l4 = yield from compile_l4_routes(self.spec, caller)

    def _add_port(self, match: HTTPMatchRequest | None) -> None:
        if match is None or match.port is None:
            self._ports = None
        elif self._ports is not None:
            self._ports.add(match.port)


def _compile_rule(number: int, spec: HTTPRoute, caller: Caller) -> Generator[None, None, HttpRule]:
    matches: list[HttpMatch] = []
    for place, match in enumerate(spec.match):
        conditions = yield from compile_match(match, caller)
        matches.append(HttpMatch(place, match, conditions))
        if not (place + 1) % _PER_STEP:
            yield
    if not matches:
        matches.append(HttpMatch(-1, None, _UNCONDITIONAL))
    return HttpRule(number, spec, matches, compile_action(spec))


def compile_virtual_host(
    spec: VirtualServiceSpec, namespace: str, labels: Sequence[Labels], *, few: int = FEW
) -> Generator[None, None, VirtualHost]:
    """Compile a VirtualService for the requests and connections of one proxy; yield after every few matches.

    ``namespace`` is the proxy's, ``labels`` are those of each of its services: ``sourceLabels`` has to be among the
    labels of one. Up to ``few`` matches are walked rather than indexed.
    """
    host = VirtualHost(spec)
    yield from host.compile(Caller(namespace, labels), few)
    return host
