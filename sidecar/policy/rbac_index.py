"""An index of the rules that a request may match at all, so that a thousand rules cost what ten do. Pure.

Called by ``policy.rbac``. A set of rules is a number with a bit for each. A dimension (caller, method, path, host) maps
each key to the rules that need it; the sets of all dimensions are intersected, and only the rules that remain are
tested. A dimension may hold a rule too many, never one too few.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Final

from sidecar.policy.rbac_match import Keys
from sidecar.policy.rbac_request import Peer, View
from sidecar.policy.rbac_rule import Compiled, CompiledRule
from sidecar.policy.rbac_terms import Narrowing

_KEYS_PER_STEP: Final = 256


def _add(table: dict[bytes, int], bit: int, keys: Iterable[bytes]) -> Generator[None, None, None]:
    for number, key in enumerate(keys, 1):
        table[key] = table.get(key, 0) | bit
        if not number % _KEYS_PER_STEP:
            yield


class _Texts:
    """Keys of one dimension; ``rest`` are the rules that need none of them."""

    __slots__ = ("_exact", "_prefixes", "_suffixes", "rest", "used")

    def __init__(self) -> None:
        self.rest = 0
        self.used = False
        self._exact: dict[bytes, int] = {}
        self._prefixes: dict[int, dict[bytes, int]] = {}
        self._suffixes: dict[int, dict[bytes, int]] = {}

    def add(self, bit: int, keys: Sequence[Keys | None]) -> Generator[None, None, None]:
        """Add a rule that needs one of these keys. If there are none, or one is None, it needs no key."""
        found = [each for each in keys if each is not None]
        if not found or len(found) < len(keys):
            self.rest |= bit
            return
        self.used = True
        for each in found:
            yield from _add(self._exact, bit, each.exact)
            for table, texts in ((self._prefixes, each.prefixes), (self._suffixes, each.suffixes)):
                for text in texts:
                    yield from _add(table.setdefault(len(text), {}), bit, (text,))

    def find(self, value: bytes) -> int:
        """Return the rules that this value may match."""
        found = self._exact.get(value, 0) | self.rest
        if self._prefixes:
            for length, table in self._prefixes.items():
                if (start := value[:length]) in table:
                    found |= table[start]
        if self._suffixes:
            for length, table in self._suffixes.items():
                if length <= len(value) and (end := value[len(value) - length :]) in table:
                    found |= table[end]
        return found


class _Callers:
    """Rules by principal, service account or namespace: each source of a rule is found by one of them."""

    __slots__ = ("_accounts", "_namespaces", "_principals", "rest", "used")

    def __init__(self) -> None:
        self.rest = 0
        self.used = False
        self._principals: dict[bytes, int] = {}
        self._accounts: dict[bytes, int] = {}
        self._namespaces: dict[bytes, int] = {}

    def add(self, bit: int, sources: Sequence[Narrowing]) -> Generator[None, None, None]:
        """Add a rule with these sources. If there are none, it accepts any caller."""
        chosen: list[tuple[dict[bytes, int], set[bytes]]] = []
        for each in sources:
            if each.principals is not None:
                chosen.append((self._principals, each.principals))
            elif each.accounts is not None:
                chosen.append((self._accounts, each.accounts))
            elif each.namespaces is not None:
                chosen.append((self._namespaces, each.namespaces))
            else:
                self.rest |= bit
                return
        if not chosen:
            self.rest |= bit
            return
        self.used = True
        for table, keys in chosen:
            yield from _add(table, bit, keys)

    def find(self, peer: Peer) -> int:
        """Return the rules that a peer whose identity is decided may match."""
        found = self.rest
        if peer.principal in self._principals:
            found |= self._principals[peer.principal]
        if peer.account in self._accounts:
            found |= self._accounts[peer.account]
        if peer.namespace in self._namespaces:
            found |= self._namespaces[peer.namespace]
        return found


class Group:
    """The rules of all policies with one action, in the order of the documents; ``allows``: the action is ALLOW."""

    __slots__ = ("_callers", "_every", "_hosts", "_methods", "_opaque", "_paths", "allows", "rules")

    def __init__(self, *, allows: bool) -> None:
        self.allows = allows
        self.rules: list[CompiledRule] = []
        self._every = 0
        self._opaque = 0  # those that may match a connection that is not HTTP
        self._callers = _Callers()
        self._methods = _Texts()
        self._paths = _Texts()
        self._hosts = _Texts()

    def add(self, compiled: Compiled) -> Generator[None, None, None]:
        """Add the next rule."""
        rule = compiled.rule
        bit = 1 << len(self.rules)
        self.rules.append(rule)
        if rule.never:
            return
        self._every |= bit
        if not rule.never_opaque:
            self._opaque |= bit
        yield from self._callers.add(bit, compiled.sources)
        calls = compiled.operations
        yield from self._methods.add(bit, [None if each.methods is None else Keys(each.methods) for each in calls])
        yield from self._paths.add(bit, [each.paths for each in calls])
        yield from self._hosts.add(bit, [each.hosts for each in calls])

    def first(self, view: View) -> CompiledRule | None:
        """Return the first rule that matches."""
        found = self.by_caller(view)
        if found and view.http:
            found = self._by_operation(view, found)
        while found:
            bit = found & -found
            rule = self.rules[bit.bit_length() - 1]
            if rule.matches(view):
                return rule
            found ^= bit
        return None

    def by_caller(self, view: View) -> int:
        """Return the rules that this caller may match."""
        found = self._every if view.http else self._opaque
        if self._callers.used:
            peer = view.peer
            if self.allows or (peer.principal is not None and peer.namespace is not None):
                found &= self._callers.find(peer)
        return found

    def by_path(self, view: View) -> int:
        """Return the rules that this path may match."""
        forms = view.forms()
        if forms is None:  # it can't be decided
            return self._paths.rest if self.allows else self._every
        found = self._paths.find(forms[0])
        for form in forms[1:]:
            found |= self._paths.find(form)
        return found

    def _by_operation(self, view: View, found: int) -> int:
        if self._methods.used:
            found &= self._methods.find(view.asked.method)
        if found and self._paths.used:
            found &= self.by_path(view)
        if found and self._hosts.used:
            host = view.host()
            if host is not None:
                found &= self._hosts.find(host[0])
            elif self.allows:
                found &= self._hosts.rest
        return found

    def nearest(self, view: View, most: int) -> Iterator[CompiledRule]:
        """Yield at most ``most`` rules: first those that this caller and this path may match, then by one of both."""
        caller = self.by_caller(view)
        path = self.by_path(view) if view.http else self._every
        seen = 0
        for found in (caller & path, caller, path, (1 << len(self.rules)) - 1):
            left = found & ~seen
            while left and most:
                bit = left & -left
                yield self.rules[bit.bit_length() - 1]
                left ^= bit
                seen |= bit
                most -= 1
