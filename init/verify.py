"""What the kernel has -> values that can be compared, and the comparison with a plan.

Who calls it: ``init.table``. Both sides go through the same decoder: what the kernel dumped, and the messages that the
plan would send. So nothing is compared that was not written down in full, and an attribute that nobody thought of is a
difference, not a blind spot. Handles and counters are the kernel's own, and set apart.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pyroute2.netlink import nla_base
from pyroute2.netlink.nfnetlink import nfgen_msg, nftsocket

from init import netlink
from init.conversation import Changing, Conversation, Refused
from init.rules import TABLE, NamedSet, Plan

_TRIES = 20


@dataclass(frozen=True, slots=True)
class SeenRule:
    """A rule of the table: what it does, as a value of no further meaning, and what the kernel says of it."""

    does: object
    comment: str
    handle: int = 0
    packets: int = 0
    bytes: int = 0


@dataclass(slots=True)
class Seen:
    """A table: as it is, or as a plan would make it. ``handle`` is the kernel's number for it."""

    remark: str = ""
    handle: int = 0
    chains: dict[str, object] = field(default_factory=dict)
    rules: dict[str, list[SeenRule]] = field(default_factory=dict)
    sets: dict[str, object] = field(default_factory=dict)


def read(kernel: Conversation) -> Seen | None:
    """The table as it is; None where there is none. Raises Refused."""
    for _ in range(_TRIES):
        try:
            return _read(kernel)
        except Changing:
            continue
        except Refused as error:
            if error.code != errno.ENOENT:  # that is what it says of a set of a table that has just been taken away
                raise
    raise Refused(errno.EBUSY, "somebody else keeps changing the table")


def expected(plan: Plan) -> Seen:
    """The table as the plan would make it."""
    seen = Seen()
    for found in plan.sets:
        seen.sets[found.name] = _planned_set(found)
    for chain in plan.chains:
        seen.chains[chain.name] = _chain_of(_again(netlink.chain_ask(chain), nftsocket.nft_chain_msg))
        asks = [netlink.rule_ask(chain, rule) for rule in chain.rules]
        seen.rules[chain.name] = [_rule_of(_again(ask, nftsocket.nft_rule_msg)) for ask in asks]
    return seen


def differences(seen: Seen | None, wanted: Seen) -> list[str]:
    """What is otherwise than wanted, a line each; nothing where all is as it should be."""
    if seen is None:
        return [f"the table inet {TABLE} is not there"]
    lines = [*_names("chain", seen.chains, wanted.chains), *_names("set", seen.sets, wanted.sets)]
    for chain, rules in wanted.rules.items():
        if chain not in seen.chains:
            continue
        found = seen.rules.get(chain, [])
        if len(found) != len(rules):
            lines.append(f"chain {chain}: {len(found)} rules, where there should be {len(rules)}")
        for number, (is_, should) in enumerate(zip(found, rules, strict=False), 1):
            if (is_.does, is_.comment) != (should.does, should.comment):
                lines.append(f"chain {chain}, rule {number} ({should.comment}): it is another ({is_.comment})")
                break
    return lines


def _names(what: str, seen: Mapping[str, object], wanted: Mapping[str, object]) -> Iterable[str]:
    for name in sorted({*seen, *wanted}):
        if name not in seen:
            yield f"{what} {name}: is not there"
        elif name not in wanted:
            yield f"{what} {name}: should not be there"
        elif seen[name] != wanted[name]:
            yield f"{what} {name}: is otherwise than it should be"


def _read(kernel: Conversation) -> Seen | None:
    seen: Seen | None = None
    for message in _dump(kernel, nftsocket.nft_table_msg, nftsocket.NFT_MSG_GETTABLE):
        if message.get_attr("NFTA_TABLE_NAME") == TABLE:
            seen = Seen(_comment(message, "NFTA_TABLE_USERDATA"), message.get_attr("NFTA_TABLE_HANDLE"))
    if seen is None:
        return None
    for message in _dump(kernel, nftsocket.nft_chain_msg, nftsocket.NFT_MSG_GETCHAIN):
        if message.get_attr("NFTA_CHAIN_TABLE") == TABLE:
            seen.chains[message.get_attr("NFTA_CHAIN_NAME")] = _chain_of(message)
    for message in _dump(kernel, nftsocket.nft_rule_msg, nftsocket.NFT_MSG_GETRULE, NFTA_RULE_TABLE=TABLE):
        if message.get_attr("NFTA_RULE_TABLE") == TABLE:
            seen.rules.setdefault(message.get_attr("NFTA_RULE_CHAIN"), []).append(_rule_of(message))
    for message in _dump(kernel, nftsocket.nft_set_msg, nftsocket.NFT_MSG_GETSET, NFTA_SET_TABLE=TABLE):
        if message.get_attr("NFTA_SET_TABLE") == TABLE:
            name = message.get_attr("NFTA_SET_NAME")
            seen.sets[name] = _set_of(message, _keys(kernel, name))
    return seen


def _keys(kernel: Conversation, name: str) -> list[tuple[bytes, bool]]:
    lists = _dump(
        kernel,
        nftsocket.nft_set_elem_list_msg,
        nftsocket.NFT_MSG_GETSETELEM,
        NFTA_SET_ELEM_LIST_TABLE=TABLE,
        NFTA_SET_ELEM_LIST_SET=name,
    )
    elements = [element for found in lists for element in found.get_attr("NFTA_SET_ELEM_LIST_ELEMENTS") or ()]
    return [
        (
            element.get_attr("NFTA_SET_ELEM_KEY").get_attr("NFTA_DATA_VALUE"),
            bool(element.get_attr("NFTA_SET_ELEM_FLAGS")),
        )
        for element in elements
    ]


def _dump(kernel: Conversation, form: type[nfgen_msg], kind: int, **attributes: str) -> list[nfgen_msg]:
    message, number, _ = netlink.ask(form, kind, 0, **attributes)
    mentioned = TABLE.encode() + b"\0"  # what is in other tables need not be understood
    return [_decoded(form, data) for data in kernel.dump(message, number) if mentioned in data]


def _decoded(form: type[nfgen_msg], data: bytes) -> nfgen_msg:
    message = form(data)
    message.decode()
    return message


def _again(ask: netlink.Ask, form: type[nfgen_msg]) -> nfgen_msg:
    """A message as the kernel would tell it."""
    message, _, _ = ask
    message.encode()
    return _decoded(form, bytes(message.data))


def _chain_of(message: nfgen_msg) -> object:
    kept = ("NFTA_CHAIN_HOOK", "NFTA_CHAIN_POLICY", "NFTA_CHAIN_TYPE")
    return tuple((name, _plain(message.get_attr(name))) for name in kept if message.get_attr(name) is not None)


def _rule_of(message: nfgen_msg) -> SeenRule:
    does, packets, size = [], 0, 0
    for expression in message.get_attr("NFTA_RULE_EXPRESSIONS") or ():
        name, data = expression.get_attr("NFTA_EXPR_NAME"), expression.get_attr("NFTA_EXPR_DATA")
        if name == "counter":
            packets, size = data.get_attr("NFTA_COUNTER_PACKETS"), data.get_attr("NFTA_COUNTER_BYTES")
            data = None
        does.append((name, _plain(data)))
    return SeenRule(
        tuple(does),
        _comment(message, "NFTA_RULE_USERDATA"),
        message.get_attr("NFTA_RULE_HANDLE") or 0,
        packets,
        size,
    )


def _set_of(message: nfgen_msg, keys: Iterable[tuple[bytes, bool]]) -> object:
    kept = ("NFTA_SET_FLAGS", "NFTA_SET_KEY_TYPE", "NFTA_SET_KEY_LEN")
    return (*(_plain(message.get_attr(name)) or () for name in kept), tuple(sorted(keys)))


def _planned_set(found: NamedSet) -> object:
    return _set_of(_again(netlink.set_ask(found, 1), nftsocket.nft_set_msg), netlink.set_keys(found))


def _comment(message: nfgen_msg, name: str) -> str:
    """A comment, if it is one: whoever else writes into the table may leave anything there."""
    try:
        return str(message.get_attr(name) or "")
    except (UnicodeDecodeError, struct.error):
        return "?"


def _plain(value: object) -> object:
    """A decoded value without what is only its place in a message."""
    if isinstance(value, nla_base) and value.get("attrs"):
        return tuple(sorted((name, _plain(inner)) for name, inner in value["attrs"]))
    if isinstance(value, nla_base):
        return _plain(value.getvalue()) if not isinstance(value.getvalue(), nla_base) else ()
    if isinstance(value, frozenset):
        return tuple(sorted(map(str, value)))
    return value
