"""The fields of a rule as terms: each is a test that a request passes or fails, with a name for people. Pure.

Called by ``policy.rbac_rule``. The law of this module: what can't be decided is decided against the caller. A term of
an ALLOW rule fails then, a term of a DENY or AUDIT rule holds, and so do their ``not`` twins. A match that leads to a
refusal may be in any reading of a value (*wide*); one that leads to permission must be in all of them (*narrow*):

===========  ========  ============
field of     positive  ``not`` twin
===========  ========  ============
ALLOW        narrow    wide
DENY, AUDIT  wide      narrow
===========  ========  ============

HTTP fields of a connection that is not HTTP can't be decided, nor can principals in a proxy without an identity.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from certs.spiffe import SCHEME
from sidecar.policy.rbac_match import (
    Keys,
    Match,
    Patterns,
    parse_accounts,
    parse_blocks,
    parse_hosts,
    parse_namespaces,
    parse_paths,
    parse_ports,
    parse_strings,
)
from sidecar.policy.rbac_request import Ip, View
from sidecar.resources.authorization import Condition, Operation, Source

Holds = Callable[[View], bool]
Show = Callable[[View], str]

UNDECIDED: Final = "can't be decided"
_HEADER_KEY: Final = re.compile(r"request\.headers\[(:authority|[!#$%&'*+.^_`|~0-9A-Za-z-]+)\]")
_HIDDEN_HEADERS: Final = frozenset({b"authorization", b"cookie", b"proxy-authorization", b"x-api-key"})
_SHOWN_BYTES: Final = 256
_LOCAL_TRUST_DOMAIN: Final = "cluster.local"
_SLASHES: Final = 4  # in the principal of a workload

T = TypeVar("T")


class Term(msgspec.Struct, frozen=True, gc=False):
    """One field. ``show`` returns the value that a request has there, for people."""

    field: str
    holds: Holds
    show: Show


TermSteps = Generator[None, None, Term]
_Make = Callable[[str, Sequence[str], bool], TermSteps]


class Narrowing(msgspec.Struct, gc=False):
    """The index keys of a source or operation, of which a request must have one; None: it needs none."""

    principals: set[bytes] | None = None
    accounts: set[bytes] | None = None
    namespaces: set[bytes] | None = None
    methods: set[bytes] | None = None
    paths: Keys | None = None
    hosts: Keys | None = None


class Fields:
    """The maker of one rule's terms. ``identity_fields`` and ``http_fields`` are the names of those found so far."""

    def __init__(self, namespace: str, trust_domain: str, *, allows: bool) -> None:
        self._namespace = namespace
        self._own = trust_domain
        self._allows = allows
        self._unsure = not allows
        self._narrowing = Narrowing()
        self.identity_fields: list[str] = []
        self.http_fields: list[str] = []

    def source(self, place: str, source: Source, narrowing: Narrowing) -> Generator[None, None, list[Term]]:
        """Return the terms of a source, and note in ``narrowing`` what it needs."""
        self._narrowing = narrowing
        terms: list[Term] = []
        for field, values, twin, make in (
            ("principals", source.principals, source.not_principals, self._principals),
            ("namespaces", source.namespaces, source.not_namespaces, self._namespaces),
            ("serviceAccounts", source.service_accounts, source.not_service_accounts, self._accounts),
            ("ipBlocks", source.ip_blocks, source.not_ip_blocks, self._blocks(View.client)),
            ("remoteIpBlocks", source.remote_ip_blocks, source.not_remote_ip_blocks, self._blocks(View.remote)),
        ):
            terms += yield from self._twins(place, field, values, twin, make)
        return terms

    def operation(self, place: str, operation: Operation, narrowing: Narrowing) -> Generator[None, None, list[Term]]:
        """Return the terms of an operation; likewise."""
        self._narrowing = narrowing
        terms: list[Term] = []
        for field, values, twin, make in (
            ("hosts", operation.hosts, operation.not_hosts, self._hosts),
            ("ports", operation.ports, operation.not_ports, self._ports),
            ("methods", operation.methods, operation.not_methods, self._methods),
            ("paths", operation.paths, operation.not_paths, self._paths),
        ):
            terms += yield from self._twins(place, field, values, twin, make)
        return terms

    def condition(self, place: str, condition: Condition, narrowing: Narrowing) -> Generator[None, None, list[Term]]:
        """Return the terms of a condition; likewise."""
        self._narrowing = narrowing
        place = f"{place} {condition.key}"
        terms: list[Term] = []
        make = self._attribute(condition.key)
        if condition.values:
            terms.append((yield from make(place, condition.values, False)))
        if condition.not_values:
            terms.append((yield from make(f"{place} notValues", condition.not_values, True)))
        return terms or [self._undecided(place)]

    def _twins(
        self, place: str, field: str, values: Sequence[str], twin: Sequence[str], make: _Make
    ) -> Generator[None, None, list[Term]]:
        terms: list[Term] = []
        if values:
            terms.append((yield from make(f"{place}.{field}", values, False)))
        if twin:
            terms.append((yield from make(f"{place}.not{field[0].upper()}{field[1:]}", twin, True)))
        return terms

    def _attribute(self, key: str) -> _Make:
        if key in _ADDRESSES:
            return self._blocks(_ADDRESSES[key])
        header = _HEADER_KEY.fullmatch(key)
        if header is not None:
            name = header[1].lower().encode()
            return self._header(b"host" if name == b":authority" else name)
        known: Mapping[str, _Make] = {
            "source.principal": self._principals,
            "source.namespace": self._namespaces,
            "source.serviceAccount": self._accounts,
            "destination.port": self._ports,
            "connection.sni": self._sni,
        }
        return known.get(key, self._unknown)

    def _wide(self, negated: bool) -> bool:
        return negated is self._allows

    def _undecided(self, name: str) -> Term:
        return Term(name, _fails if self._allows else _passes, _show_undecided)

    def _unknown(self, name: str, values: Sequence[str], negated: bool) -> TermSteps:
        yield from ()
        return self._undecided(name)

    def _principals(self, name: str, values: Sequence[str], negated: bool) -> TermSteps:
        wide = self._wide(negated)
        if wide:  # Istio matches no caller by a value with a scheme; here such a value can refuse
            values = [value.removeprefix(SCHEME) for value in values]
        found = yield from parse_strings(values, wide, self._in_own_trust_domain)
        if not negated:
            self._narrowing.principals = _exact_keys(found)
        return self._identity(name, lambda view: view.peer.principal, found.matcher(), negated)

    def _in_own_trust_domain(self, text: str) -> str:
        head, slash, rest = text.partition("/")
        own = head == _LOCAL_TRUST_DOMAIN
        if head.endswith("*") and text.count("/") == _SLASHES:  # Istio's rule for TD*/ns/NAME/sa/NAME
            own = self._own.startswith(head[:-1])
        return self._own + slash + rest if own else text

    def _namespaces(self, name: str, values: Sequence[str], negated: bool) -> TermSteps:
        found = yield from parse_namespaces(values, self._wide(negated))
        if not negated:
            self._narrowing.namespaces = _exact_keys(found)
        return self._identity(name, lambda view: view.peer.namespace, found.matcher(), negated)

    def _accounts(self, name: str, values: Sequence[str], negated: bool) -> TermSteps:
        found = yield from parse_accounts(values, self._wide(negated), self._namespace)
        if not negated:
            self._narrowing.accounts = _exact_keys(found)
        return self._identity(name, lambda view: view.peer.account, found.matcher(), negated)

    def _identity(self, name: str, read: Callable[[View], bytes | None], match: Match, negated: bool) -> Term:
        self.identity_fields.append(name)
        return self._term(name, read, match, negated, lambda view: _text(read(view)))

    def _blocks(self, read: Callable[[View], Ip | None]) -> _Make:
        def make(name: str, values: Sequence[str], negated: bool) -> TermSteps:
            match = yield from parse_blocks(values, self._wide(negated))
            return self._term(name, read, match, negated, _SHOWN_ADDRESSES[read])

        return make

    def _ports(self, name: str, values: Sequence[str], negated: bool) -> TermSteps:
        match = yield from parse_ports(values, self._wide(negated))
        return self._term(name, lambda view: view.asked.place[1] or None, match, negated, _show_port)

    def _sni(self, name: str, values: Sequence[str], negated: bool) -> TermSteps:
        found = yield from parse_strings([value.lower() for value in values], self._wide(negated))
        return self._term(name, lambda view: view.asked.sni.lower(), found.matcher(), negated, _show_sni)

    def _hosts(self, name: str, values: Sequence[str], negated: bool) -> TermSteps:
        self.http_fields.append(name)
        found = yield from parse_hosts(values, self._wide(negated))
        if not negated:
            self._narrowing.hosts = found.keys()
        return self._term(name, lambda view: view.host() if view.http else None, found.matcher(), negated, _show_host)

    def _methods(self, name: str, values: Sequence[str], negated: bool) -> TermSteps:
        self.http_fields.append(name)
        found = yield from parse_strings(values, self._wide(negated))
        if not negated:
            self._narrowing.methods = _exact_keys(found)
        match, unsure = found.matcher(), self._unsure
        return Term(name, lambda view: match(view.asked.method) is not negated if view.http else unsure, _show_method)

    def _paths(self, name: str, values: Sequence[str], negated: bool) -> TermSteps:
        self.http_fields.append(name)
        found = yield from parse_paths(values, self._wide(negated))
        if not negated:
            self._narrowing.paths = found.keys()
        make = _wide_path if self._wide(negated) else _narrow_path
        return Term(name, make(found.matcher(), negated, self._unsure), _show_path)

    def _header(self, field: bytes) -> _Make:
        def make(name: str, values: Sequence[str], negated: bool) -> TermSteps:
            self.http_fields.append(name)
            found = yield from parse_strings(values, self._wide(negated))
            if found.anything:
                return self._undecided(name)
            match, unsure = found.matcher(), self._unsure
            if found.present:
                match = _present
            holds = _wide_header if self._wide(negated) else _narrow_header
            return Term(name, holds(field, match, negated, unsure), _show_header(field))

        return make

    def _term(
        self, name: str, read: Callable[[View], T | None], match: Callable[[T], bool], negated: bool, show: Show
    ) -> Term:
        unsure = self._unsure

        def holds(view: View) -> bool:
            seen = read(view)
            return unsure if seen is None else match(seen) is not negated

        return Term(name, holds, show)


def _exact_keys(found: Patterns) -> set[bytes] | None:
    keys = found.keys()
    return None if keys is None or keys.prefixes or keys.suffixes else keys.exact


def _wide_path(match: Match, negated: bool, unsure: bool) -> Holds:
    def holds(view: View) -> bool:
        forms = view.forms() if view.http else None
        if forms is None:
            return unsure
        return (match(forms[0]) if len(forms) == 1 else any(map(match, forms))) is not negated

    return holds


def _narrow_path(match: Match, negated: bool, unsure: bool) -> Holds:
    def holds(view: View) -> bool:
        forms = view.forms() if view.http else None
        if forms is None:
            return unsure
        return (match(forms[0]) if len(forms) == 1 else all(map(match, forms))) is not negated

    return holds


def _present(_: bytes) -> bool:
    return True


def _wide_header(field: bytes, match: Match, negated: bool, unsure: bool) -> Holds:
    def holds(view: View) -> bool:
        readings = view.readings(field) if view.http else None
        return unsure if readings is None else any(map(match, readings)) is not negated

    return holds


def _narrow_header(field: bytes, match: Match, negated: bool, unsure: bool) -> Holds:
    def holds(view: View) -> bool:
        if not view.http:
            return unsure
        values = view.header(field)
        return (bool(values) and all(map(match, values))) is not negated

    return holds


def _fails(_: View) -> bool:
    return False


def _passes(_: View) -> bool:
    return True


_ADDRESSES: Final[Mapping[str, Callable[[View], Ip | None]]] = {
    "source.ip": View.client,
    "remote.ip": View.remote,
    "destination.ip": View.destination,
}
_SHOWN_ADDRESSES: Final[Mapping[Callable[[View], Ip | None], Show]] = {
    View.client: lambda view: view.asked.client,
    View.remote: lambda view: view.asked.remote or view.asked.client,
    View.destination: lambda view: view.asked.place[0],
}


def _text(seen: bytes | None) -> str:
    return UNDECIDED if seen is None else seen[:_SHOWN_BYTES].decode("ascii", "backslashreplace")


def _show_undecided(_: View) -> str:
    return UNDECIDED


def _show_host(view: View) -> str:
    return _text(view.asked.authority) if view.http else UNDECIDED


def _show_method(view: View) -> str:
    return _text(view.asked.method) if view.http else UNDECIDED


def _show_path(view: View) -> str:
    """Return the judged forms alone: path parameters, which may be secret, are not in them."""
    forms = view.forms() if view.http else None
    return UNDECIDED if forms is None else _text(b", ".join([form for form in forms if b";" not in form]))


def _show_port(view: View) -> str:
    return str(view.asked.place[1])


def _show_sni(view: View) -> str:
    return _text(view.asked.sni)


def _show_header(field: bytes) -> Show:
    def show(view: View) -> str:
        if not view.http:
            return UNDECIDED
        return "***" if field in _HIDDEN_HEADERS and view.header(field) else _text(b", ".join(view.header(field)))

    return show
