"""AuthorizationPolicies as one engine: compiled once per Snapshot, judged for each request and connection. Pure.

Called by the inbound proxy's rules, and by ``/explain`` for requests that were never made. The meaning is Istio's: a
DENY rule that matches denies; without any ALLOW policy everything else is allowed; an ALLOW rule that matches allows;
the rest is denied. AUDIT marks, and decides nothing. Policies of a dry run are judged beside those in force, as one
combined verdict.

``rbac_rule`` and ``rbac_terms`` define the meaning of a rule; ``rbac_index`` finds the rules that a request may match.

Source: Istio's reference of AuthorizationPolicy.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Final

import msgspec

from sidecar.policy.authorize import Asked
from sidecar.policy.rbac_index import Group
from sidecar.policy.rbac_request import UNKNOWN_PEER, Memo, Peer, View, read_peer
from sidecar.policy.rbac_rule import CompiledRule, compile_rule
from sidecar.resources.authorization import Action, PolicySpec

_PEERS: Final = 1024  # identities that are kept parsed
_RULES_PER_STEP: Final = 2
_NEAREST_RULES: Final = 64
_NEAREST_ALTERNATIVES: Final = 8  # sources or operations that are tried of each
_ORDER: Final[tuple[Action, ...]] = ("DENY", "ALLOW", "AUDIT")


class Judgement(msgspec.Struct, frozen=True, gc=False):
    """The verdict. ``policy`` and ``rule`` name the DENY or ALLOW rule that matched: "" and -1 if none did.

    ``audited`` is the AUDIT policy that matched first. ``would_allow`` is the verdict if the policies of a dry run were
    in force, and ``would_policy`` the policy that decides it; None if there are none.
    """

    allowed: bool
    policy: str
    rule: int
    audited: str = ""
    would_allow: bool | None = None
    would_policy: str = ""


class Step(msgspec.Struct, frozen=True, gc=False):
    """The result of one rule; ``rule`` is -1 for a policy without rules.

    ``field`` is the first one that failed, ``seen`` the value that the request has there: both empty if it matched.
    """

    policy: str
    rule: int
    action: Action
    dry_run: bool
    matched: bool
    field: str = ""
    seen: str = ""


_ALLOWED: Final = Judgement(True, "", -1)
_DENIED: Final = Judgement(False, "", -1)
_NO_RULES: Final = "rules"


class _Policy(msgspec.Struct, frozen=True, gc=False):
    """The place of one policy's rules: ``count`` of them in its group, from ``begin``."""

    spec: PolicySpec
    begin: int
    count: int


class Engine:
    """The compiled policies. ``empty``: there are none, and all is allowed. Made by :func:`compile_policies`."""

    def __init__(self, *, identities: bool = True) -> None:
        self.empty = True
        self.verdicts: list[Judgement] = []  # of each rule, if it decides
        self._identities = identities
        self._policies: list[_Policy] = []
        self._groups: dict[tuple[Action, bool], Group] = {}  # by action and dry run
        self._deny: Group | None = None
        self._allow: Group | None = None
        self._only_verdict = True  # no AUDIT, no dry run
        self._dry = False
        self._peers: dict[str, Peer] = {}
        self._memo = Memo()

    def judge(self, asked: Asked) -> Judgement:
        """Return the verdict. Raises nothing: what can't be decided is decided against the caller."""
        if self.empty:
            return _ALLOWED
        view = self._view(asked)
        allow: CompiledRule | None = None
        deny = None if self._deny is None else self._deny.first(view)
        if deny is not None:
            verdict = self.verdicts[deny.order]
        elif self._allow is None:
            verdict = _ALLOWED
        else:
            allow = self._allow.first(view)
            verdict = _DENIED if allow is None else self.verdicts[allow.order]
        return verdict if self._only_verdict else self._marked(view, verdict, deny, allow)

    def _marked(
        self, view: View, verdict: Judgement, deny: CompiledRule | None, allow: CompiledRule | None
    ) -> Judgement:
        audit = self._first("AUDIT", False, view)
        audited = "" if audit is None else audit.policy
        if not self._dry:
            return msgspec.structs.replace(verdict, audited=audited) if audited else verdict
        would, by = self._combined(view, deny, allow)
        return Judgement(verdict.allowed, verdict.policy, verdict.rule, audited, would, by)

    def _combined(self, view: View, deny: CompiledRule | None, allow: CompiledRule | None) -> tuple[bool, str]:
        denied_by = _earlier(deny, self._first("DENY", True, view))
        if denied_by is not None:
            return False, denied_by.policy
        if self._allow is None and ("ALLOW", True) not in self._groups:
            return True, ""
        allowed_by = _earlier(allow, self._first("ALLOW", True, view))
        if allowed_by is not None:
            return True, allowed_by.policy
        by_default = (each.spec.title for each in self._policies if each.spec.dry_run and each.spec.action == "ALLOW")
        return False, next(by_default, "")

    def _first(self, action: Action, dry_run: bool, view: View) -> CompiledRule | None:
        group = self._groups.get((action, dry_run))
        return None if group is None else group.first(view)

    def explain(self, asked: Asked) -> list[Step]:
        """Return each rule in the order of judgement: DENY, ALLOW, AUDIT, then those of a dry run."""
        view = self._view(asked)
        return [step for dry in (False, True) for action in _ORDER for step in self._steps(action, dry, view)]

    def _steps(self, action: Action, dry_run: bool, view: View) -> Iterator[Step]:
        for policy, rules in self._of(action, dry_run):
            if not rules:
                yield Step(policy.title, -1, action, dry_run, False, _NO_RULES)
            for rule in rules:
                failed, _ = rule.failures(view)
                field, seen = (failed[0].field, failed[0].show(view)) if failed else ("", "")
                yield Step(policy.title, rule.index, action, dry_run, not failed, field, seen)

    def _of(self, action: Action, dry_run: bool) -> Iterator[tuple[PolicySpec, list[CompiledRule]]]:
        for each in self._policies:
            if each.spec.action == action and each.spec.dry_run is dry_run:
                yield each.spec, self._groups[action, dry_run].rules[each.begin : each.begin + each.count]

    def nearest_miss(self, asked: Asked) -> str:
        """Return the ALLOW rule that came nearest to a match, and the field that failed; "" if one matches, or if there
        is no ALLOW policy.

        The nearest rule has the fewest failed fields; of equals, its first failure comes last. At most 64 rules are
        looked at: first those for this caller and this path.
        """
        group = self._allow
        if group is None:
            return ""
        if not group.rules:
            empty = next((policy.title for policy, _ in self._of("ALLOW", False)), "")
            return f"{empty}: it has no rules"
        view = self._view(asked)
        best: tuple[int, int] | None = None
        answer = ""
        for rule in group.nearest(view, _NEAREST_RULES):
            failed, passed = rule.failures(view, _NEAREST_ALTERNATIVES)
            if not failed:
                return ""
            score = (len(failed), -passed)
            if best is None or score < best:
                best, answer = score, f"{rule.policy} rule {rule.index}: {failed[0].field}"
        return answer

    def _view(self, asked: Asked) -> View:
        peer = self._peers.get(asked.peer)
        if peer is None:
            peer = read_peer(asked.peer) if self._identities else UNKNOWN_PEER
            if len(self._peers) >= _PEERS:
                self._peers.clear()
            self._peers[asked.peer] = peer
        return View(asked, peer, self._memo)

    def group_of(self, policy: PolicySpec) -> Group:
        """Return the group for the rules of this policy. For :func:`compile_policies`."""
        self.empty = False
        key = (policy.action, policy.dry_run)
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = Group(allows=policy.action == "ALLOW")
            self._deny = self._groups.get(("DENY", False))
            self._allow = self._groups.get(("ALLOW", False))
            self._dry = any(dry for _, dry in self._groups)
            self._only_verdict = not self._dry and ("AUDIT", False) not in self._groups
        self._policies.append(_Policy(policy, len(group.rules), len(policy.rules)))
        return group


def _earlier(one: CompiledRule | None, other: CompiledRule | None) -> CompiledRule | None:
    if one is None or other is None:
        return other if one is None else one
    return one if one.order < other.order else other


def compile_policies(
    policies: Sequence[PolicySpec], trust_domain: str, *, identities: bool = True
) -> Generator[None, None, Engine]:
    """Compile the policies that hold at this proxy; yield after every few rules or values.

    ``trust_domain`` is the mesh's own. Without ``identities`` (a proxy that has none) principals are unknown, and a
    rule that needs one is decided against the caller.
    """
    engine = Engine(identities=identities)
    order = 0
    for policy in policies:
        group = engine.group_of(policy)
        for index, rule in enumerate(policy.rules):
            compiled = yield from compile_rule(policy, index, order, rule, trust_domain, identities=identities)
            yield from group.add(compiled)
            engine.verdicts.append(Judgement(policy.action == "ALLOW", policy.title, index))
            order += 1
            if not order % _RULES_PER_STEP:
                yield
    return engine


EMPTY: Final = Engine()
"""The engine without policies."""
