"""A plan, or the table as it is -> words: for people, for programs, and as a script for ``nft``. Pure.

Who calls it: ``init.cli``. The script is what ``nft -f`` takes; a test holds that it makes the same table as the
messages do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from init.rules import (
    TABLE,
    Address,
    Chain,
    Drop,
    Family,
    Interface,
    Jump,
    LocalDestination,
    Match,
    NamedSet,
    Owner,
    Plan,
    Port,
    Protocol,
    Range,
    Redirect,
    Return,
    Rule,
    State,
    Verdict,
    set_of,
)

_TYPES = {"port": "inet_service", "ipv4": "ipv4_addr", "ipv6": "ipv6_addr", "user": "uid", "group": "gid",
          "interface": "ifname"}  # fmt: skip


def nft(plan: Plan) -> str:
    """The whole table as a script, which replaces what was there in one step."""
    lines = [f"table inet {TABLE}", f"delete table inet {TABLE}", f"table inet {TABLE} {{"]
    for found in plan.sets:
        lines += [f"\tset {found.name} {{", f"\t\ttype {_TYPES[found.kind]}"]
        lines += ["\t\tflags interval"] if found.ports or found.networks else []
        lines += [f"\t\telements = {{ {', '.join(elements(found))} }}", "\t}"]
    for chain in sorted(plan.chains, key=lambda chain: bool(chain.hook)):  # a jump needs its chain
        lines.append(f"\tchain {chain.name} {{")
        if chain.hook:
            lines.append(f"\t\ttype {chain.type} hook {chain.hook} priority {chain.priority}; policy accept;")
        lines += [f"\t\t{_rule(rule, counter=True)}" for rule in chain.rules]
        lines.append("\t}")
    return "\n".join([*lines, "}"]) + "\n"


def text(plan: Plan) -> str:
    """For people: every chain, its rules and what they are for."""
    lines = []
    for chain in plan.chains:
        lines.append(f"{chain.name}{_place(chain)}")
        rules = [(_rule(rule, counter=False, comment=False), rule.comment) for rule in chain.rules]
        width = max(len(rule) for rule, _ in rules)
        lines += [f"  {rule:{width}}  # {comment}" for rule, comment in rules] + [""]
    for found in plan.sets:
        lines.append(f"@{found.name} = {', '.join(elements(found))}")
    lines.append("::6 is an address of lo" if plan.ipv6 else "IPv6 is dropped where IPv4 is captured")
    return "\n".join(lines) + "\n"


def as_json(plan: Plan) -> str:
    """For programs: {"table", "ipv6", "sets": [...], "chains": [...]}."""
    return _dump(
        {
            "table": TABLE,
            "family": "inet",
            "ipv6": "captured" if plan.ipv6 else "dropped",
            "sets": [{"name": found.name, "kind": found.kind, "elements": elements(found)} for found in plan.sets],
            "chains": [_chain(chain) for chain in plan.chains],
        }
    )


def counted_text(chains: Mapping[str, Sequence[tuple[int, int, str]]]) -> str:
    """{chain: [(packets, bytes, comment)]} for people."""
    lines = []
    for name, rules in chains.items():
        lines += [name, *(f"  {packets:>10} packets {size:>12} bytes  {comment}" for packets, size, comment in rules)]
    return "\n".join(lines) + "\n"


def counted_json(chains: Mapping[str, Sequence[tuple[int, int, str]]]) -> str:
    """The same for programs."""
    told = [
        {
            "name": name,
            "rules": [{"packets": packets, "bytes": size, "comment": comment} for packets, size, comment in rules],
        }
        for name, rules in chains.items()
    ]
    return _dump({"table": TABLE, "family": "inet", "chains": told})


def elements(found: NamedSet) -> list[str]:
    """The values of a set, as nft writes them."""
    return [
        *map(_range, found.ports),
        *map(str, found.networks),
        *map(str, found.ids),
        *(f'"{name}"' for name in found.names),
    ]


def _chain(chain: Chain) -> dict[str, object]:
    place = {"type": chain.type, "hook": chain.hook, "priority": chain.priority} if chain.hook else {}
    rules = [{"rule": _rule(rule, counter=False, comment=False), "comment": rule.comment} for rule in chain.rules]
    return {"name": chain.name, **place, "rules": rules}


def _place(chain: Chain) -> str:
    return f" ({chain.type}, hook {chain.hook}, priority {chain.priority})" if chain.hook else ""


def _rule(rule: Rule, *, counter: bool, comment: bool = True) -> str:
    words = list(_matches(rule.matches))
    words += ["counter"] if counter else []
    words.append(_verdict(rule.verdict))
    words += [f'comment "{rule.comment}"'] if comment else []
    return " ".join(words)


def _matches(matches: Sequence[Match]) -> Iterator[str]:
    ported = any(isinstance(match, Port) for match in matches)
    protocol = next((match.name for match in matches if isinstance(match, Protocol)), "th")
    for match in matches:
        if isinstance(match, Protocol) and ported:
            continue  # "tcp dport" says both
        yield _match(match, protocol)


def _match(match: Match, protocol: str) -> str:
    found = set_of(match)
    if isinstance(match, Protocol):
        return f"meta l4proto {match.name}"
    if isinstance(match, Family):
        return f"meta nfproto ipv{match.version}"
    if isinstance(match, Port):
        value = f"@{found.name}" if found else str(match.ranges[0][0])
        return f"{protocol} {'sport' if match.source else 'dport'} {value}"
    if isinstance(match, Address):
        value = f"@{found.name}" if found else str(match.networks[0])
        family = "ip" if match.version == 4 else "ip6"
        return f"{family} {'saddr' if match.source else 'daddr'} {'!= ' if match.negate else ''}{value}"
    if isinstance(match, Owner):
        value = f"@{found.name}" if found else str(match.ids[0])
        return f"meta {'skgid' if match.group else 'skuid'} {value}"
    if isinstance(match, Interface):
        value = f"@{found.name}" if found else f'"{match.names[0]}"'
        return f"{'iifname' if match.incoming else 'oifname'} {'!= ' if match.negate else ''}{value}"
    if isinstance(match, LocalDestination):
        return "fib daddr type local"
    assert isinstance(match, State)
    return f"ct state {match.word}"


def _verdict(verdict: Verdict) -> str:
    if isinstance(verdict, Redirect):
        return f"redirect to :{verdict.port}"
    if isinstance(verdict, Jump):
        return f"jump {verdict.chain}"
    if isinstance(verdict, Return):
        return "return"
    return "drop" if isinstance(verdict, Drop) else f"ct zone set {verdict.number}"


def _range(ports: Range) -> str:
    return str(ports[0]) if ports[0] == ports[1] else f"{ports[0]}-{ports[1]}"


def _dump(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"
