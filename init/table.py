"""The table in the kernel: put in place, taken away, compared. The order of the steps is what matters here.

Who calls it: ``init.cli``. To install: ``::6`` first, which changes nothing for anybody, then the whole table in one
batch; if the kernel refuses the batch, the address goes again, and all is as it was. To clean up: the table first, then
the address. Whoever is killed between the steps leaves the old rules or the new, and an address that knows it is ours.
"""

from __future__ import annotations

import errno

from pyroute2.netlink import NETLINK_NETFILTER, NETLINK_ROUTE

from init import netlink, verify
from init.conversation import Conversation, Refused
from init.loopback import ADDRESS, Loopback
from init.rules import Plan, Rule

_REMARK = "made by sidecar-init"
_ADDED = f"{_REMARK}, which added {ADDRESS} to lo"


class RuleRefused(Exception):
    """The kernel refused; ``what`` names the rule, or the step."""

    def __init__(self, what: str, refused: Refused) -> None:
        super().__init__(what, refused)
        self.what = what
        self.refused = refused


class Table:
    """The table of this namespace. A context manager; methods raise Refused (asking) or RuleRefused (changing)."""

    def __init__(self) -> None:
        self._nftables = Conversation(NETLINK_NETFILTER)
        self._routes = Conversation(NETLINK_ROUTE)
        self._loopback = Loopback(self._routes)

    def __enter__(self) -> Table:
        return self

    def __exit__(self, *_: object) -> None:
        self._nftables.__exit__()
        self._routes.__exit__()

    def read(self) -> verify.Seen | None:
        """The table as it is; None where there is none."""
        return verify.read(self._nftables)

    def differences(self, plan: Plan) -> list[str]:
        """What is otherwise than planned, a line each."""
        lines = verify.differences(self.read(), verify.expected(plan))
        if plan.ipv6 and not self._loopback.look()[0]:
            lines.append(f"{ADDRESS} is not an address of lo")
        return lines

    def install(self, plan: Plan) -> bool:
        """Puts the plan in place; False where it was there already, and nothing was touched."""
        seen = self.read()
        there, marked = self._loopback.look()
        same = not verify.differences(seen, verify.expected(plan))
        if same and (there or not plan.ipv6):
            return False
        added = plan.ipv6 and self._add()
        ours = added or (there and (marked or _is_ours(seen)))
        try:
            if not same:
                self._replace(plan, _ADDED if ours and plan.ipv6 else _REMARK)
        except RuleRefused:
            if added:
                self._loopback.remove()
            raise
        if ours and not plan.ipv6:
            self._loopback.remove()
        return True

    def cleanup(self) -> bool:
        """Takes away the table, and the address if it was added here; False where there was nothing to do."""
        seen = self.read()
        there, marked = self._loopback.look()
        ours = there and (marked or _is_ours(seen))
        if seen is not None:
            try:
                self._nftables.batch(netlink.removal())
            except Refused as error:
                if error.code != errno.ENOENT:
                    raise RuleRefused("the removal of the table", error) from None
        if ours:
            self._loopback.remove()
        return seen is not None or ours

    def _add(self) -> bool:
        try:
            return self._loopback.add()
        except Refused as error:
            raise RuleRefused(f"{ADDRESS} as an address of lo, without which IPv6 can't be captured", error) from None

    def _replace(self, plan: Plan, remark: str) -> None:
        asks, rules = netlink.replacement(plan, remark)
        try:
            self._nftables.batch(asks)
        except Refused as error:
            raise RuleRefused(named(rules.get(error.at)), error) from None


def _is_ours(seen: verify.Seen | None) -> bool:
    return seen is not None and seen.remark == _ADDED


def named(rule: tuple[str, Rule] | None) -> str:
    """The words for what was refused: a rule with its chain, or the table itself."""
    return "the table" if rule is None else f"the rule {rule[1].comment!r} of chain {rule[0]}"
