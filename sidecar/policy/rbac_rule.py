"""One rule of an AuthorizationPolicy, compiled from its document. Pure.

Called by ``policy.rbac``. A rule matches a request if one of its sources, one of its operations and all of its
conditions do; ``policy.rbac_terms`` has the tests of their fields.
"""

from __future__ import annotations

from collections.abc import Generator

import msgspec

from sidecar.policy.rbac_request import View
from sidecar.policy.rbac_terms import UNDECIDED, Fields, Holds, Narrowing, Term
from sidecar.resources.authorization import PolicySpec, Rule

Terms = tuple[Term, ...]
Part = tuple[Terms, ...]
"""Alternatives, of which one must hold: the terms of each source, or of each operation."""


class CompiledRule(msgspec.Struct, frozen=True, gc=False):
    """A rule. ``parts`` are its terms in the order of the document; ``order`` is its place among all rules.

    ``tests`` and ``choices`` are the same, made for speed: what must hold in any case, and the parts with a choice.
    ``never`` names the field because of which the rule matches nothing, ``never_opaque`` the one because of which it
    matches no connection but HTTP; empty if there is none.
    """

    policy: str
    index: int
    order: int
    parts: tuple[Part, ...]
    tests: tuple[Holds, ...]
    choices: tuple[tuple[tuple[Holds, ...], ...], ...]
    never: str = ""
    never_opaque: str = ""

    def matches(self, view: View) -> bool:
        """Return whether the rule matches, if neither ``never`` nor ``never_opaque`` forbids it."""
        for holds in self.tests:
            if not holds(view):
                return False
        for alternatives in self.choices:
            for tests in alternatives:
                for holds in tests:
                    if not holds(view):
                        break
                else:
                    break
            else:
                return False
        return True

    def failures(self, view: View, most: int | None = None) -> tuple[list[Term], int]:
        """Return the terms that fail, and how many hold before the first of them.

        Of each part the alternative counts of which the fewest fail; at most ``most`` alternatives are tried.
        """
        forbidden = self.never or ("" if view.http else self.never_opaque)
        if forbidden:
            return [Term(forbidden, lambda _: False, lambda _: UNDECIDED)], 0
        failed: list[Term] = []
        passed = 0
        for part in self.parts:
            tried = [[term.holds(view) for term in terms] for terms in part[:most]]
            missed = [held.count(False) for held in tried]
            best = missed.index(min(missed))
            if not failed:
                passed += (tried[best] + [False]).index(False)
            failed += [term for term, held in zip(part[best], tried[best], strict=True) if not held]
        return failed, passed


class Compiled(msgspec.Struct, gc=False):
    """A rule, and what narrows each of its sources and each of its operations."""

    rule: CompiledRule
    sources: list[Narrowing]
    operations: list[Narrowing]


def compile_rule(
    policy: PolicySpec, index: int, order: int, rule: Rule, trust_domain: str, *, identities: bool
) -> Generator[None, None, Compiled]:
    """Compile the rule that stands at ``index`` in a policy; ``identities`` is false in a proxy that has none."""
    allows = policy.action == "ALLOW"
    fields = Fields(policy.namespace, trust_domain, allows=allows)
    narrowings: tuple[list[Narrowing], list[Narrowing]] = ([], [])
    callers: list[Terms] = []
    for number, each in enumerate(rule.from_ or ()):
        narrowings[0].append(Narrowing())
        callers.append(tuple((yield from fields.source(f"from[{number}].source", each.source, narrowings[0][-1]))))
    calls: list[Terms] = []
    for number, to in enumerate(rule.to or ()):
        narrowings[1].append(Narrowing())
        calls.append(tuple((yield from fields.operation(f"to[{number}].operation", to.operation, narrowings[1][-1]))))
    conditions: list[Term] = []
    narrowing = Narrowing()
    for number, condition in enumerate(rule.when or ()):
        conditions += yield from fields.condition(f"when[{number}]", condition, narrowing)
    if not callers:
        narrowings[0].append(narrowing)
    # A list that is present but empty has no valid meaning in documents: it is decided against the caller.
    empty = [name for name, given in (("from", rule.from_), ("to", rule.to)) if given is not None and not given]
    forbidden = (empty + ([] if identities else fields.identity_fields)) if allows else []
    parts = [part for part in (tuple(callers), tuple(calls), (tuple(conditions),)) if any(part)]
    return Compiled(
        CompiledRule(
            policy.title,
            index,
            order,
            tuple(parts),
            tuple([term.holds for part in parts if len(part) == 1 for term in part[0]]),
            tuple([tuple([tuple([t.holds for t in terms]) for terms in part]) for part in parts if len(part) > 1]),
            next(iter(forbidden), ""),
            next(iter(fields.http_fields), "") if allows else "",
        ),
        *narrowings,
    )
