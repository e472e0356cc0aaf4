"""A plan -> pyroute2's nftables messages, in the order in which the kernel has to get them. No I/O.

Who calls it: ``init.table`` sends them; ``init.verify`` decodes them again to hold them against what the kernel has.
The expressions are those that ``nft`` makes of the same rule (``nft --debug=netlink``), so that ``nft list ruleset``
can show them; every attribute that the kernel reports is said, so that both sides can be compared whole.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import cast

from pyroute2.netlink import NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE
from pyroute2.netlink.nfnetlink import NFNL_SUBSYS_NFTABLES, nfgen_msg, nftsocket

from init.conversation import Message
from init.rules import (
    TABLE,
    Address,
    Chain,
    Drop,
    Family,
    Interface,
    Jump,
    Match,
    NamedSet,
    Owner,
    Plan,
    Port,
    Protocol,
    Redirect,
    Return,
    Rule,
    State,
    Verdict,
    Zone,
    set_of,
)

Ask = tuple[Message, int, int]
Expression = tuple[str, dict[str, object]]

SUBSYSTEM = NFNL_SUBSYS_NFTABLES << 8
INET = 1
_BEGIN, _END = 0x10, 0x11
_HOOKS = {"prerouting": 0, "output": 3}
_ACCEPT = 1
_TRANSPORT, _NETWORK = 2, 1
_EQ, _NEQ = 0, 1
_NFPROTO = {4: 2, 6: 10}
_PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
_STATES = {"invalid": 1, "new": 8}
_OIFNAME, _IIFNAME = nftsocket.Meta.NFT_META_OIFNAME, nftsocket.Meta.NFT_META_IIFNAME
_CT_STATE, _CT_ZONE = 0x00, 0x11
_LOCAL = 2  # RTN_LOCAL
_ADDRESS_TYPE = {"NFT_FIB_RESULT_UNSPEC", "NFT_FIB_RESULT_OIF"}  # how pyroute2 spells the number 3
_DROP, _JUMP, _RETURN = 0, -3, -5
# kind -> (nft's data type, length of a key, how its bytes are ordered: 1 as the host, 2 as the network)
_KEYS = {"port": (13, 2, 2), "ipv4": (7, 4, 2), "ipv6": (8, 16, 2), "user": (24, 4, 1), "group": (25, 4, 1),
         "interface": (41, 16, 1)}  # fmt: skip


def replacement(plan: Plan, remark: str) -> tuple[list[Ask], dict[int, tuple[str, Rule]]]:
    """The batch that puts the plan in place of whatever the table held, and which of its messages is which rule.

    ``remark`` becomes the table's comment. The table is made before it is deleted: so nobody has to know whether it
    was there.
    """
    asks: list[Ask] = [_edge(_BEGIN), table(), _removal(), table(remark)]
    asks += [set_ask(found, number) for number, found in enumerate(plan.sets, 1)]
    asks += [_elements(found) for found in plan.sets]
    asks += [chain_ask(chain) for chain in plan.chains]
    which: dict[int, tuple[str, Rule]] = {}
    for chain in plan.chains:
        for rule in chain.rules:
            which[len(asks)] = chain.name, rule
            asks.append(rule_ask(chain, rule))
    message, kind, flags = asks[-1]
    asks[-1] = message, kind, flags | NLM_F_ACK
    return [*asks, _edge(_END)], which


def removal() -> list[Ask]:
    """The batch that takes the table away."""
    message, kind, flags = _removal()
    return [_edge(_BEGIN), (message, kind, flags | NLM_F_ACK), _edge(_END)]


def _removal() -> Ask:
    return ask(nftsocket.nft_table_msg, nftsocket.NFT_MSG_DELTABLE, 0, NFTA_TABLE_NAME=TABLE)


def table(remark: str = "") -> Ask:
    """Makes the table, unless it is there."""
    attributes: dict[str, object] = {"NFTA_TABLE_NAME": TABLE, "NFTA_TABLE_FLAGS": 0}
    if remark:
        attributes["NFTA_TABLE_USERDATA"] = {"value": remark}
    return ask(nftsocket.nft_table_msg, nftsocket.NFT_MSG_NEWTABLE, NLM_F_CREATE, **attributes)


def rule_ask(chain: Chain, rule: Rule) -> Ask:
    """Appends a rule to its chain."""
    return ask(
        nftsocket.nft_rule_msg,
        nftsocket.NFT_MSG_NEWRULE,
        NLM_F_CREATE | NLM_F_APPEND,
        NFTA_RULE_TABLE=TABLE,
        NFTA_RULE_CHAIN=chain.name,
        NFTA_RULE_EXPRESSIONS=[_nested(expression) for expression in expressions(rule)],
        NFTA_RULE_USERDATA={"value": rule.comment},
    )


def expressions(rule: Rule) -> Iterator[Expression]:
    """The steps of the kernel's small machine for a rule: each match loads a register and looks at it."""
    for match in rule.matches:
        yield from _match(match)
    yield "counter", {"COUNTER_BYTES": 0, "COUNTER_PACKETS": 0}
    yield from _verdict(rule.verdict)


def _match(match: Match) -> Iterator[Expression]:
    found = set_of(match)
    if isinstance(match, Protocol):
        yield from _meta(nftsocket.Meta.NFT_META_L4PROTO)
        yield _compare(bytes([_PROTOCOLS[match.name]]))
    elif isinstance(match, Family):
        yield from _family(match.version)
    elif isinstance(match, Port):
        yield _payload(_TRANSPORT, 0 if match.source else 2, 2)
        yield _look_up(found) if found else _compare(struct.pack("!H", match.ranges[0][0]))
    elif isinstance(match, Address):
        yield from _family(match.version)
        yield from _address(match, found)
    elif isinstance(match, Owner):
        yield from _meta(nftsocket.Meta.NFT_META_SKGID if match.group else nftsocket.Meta.NFT_META_SKUID)
        yield _look_up(found) if found else _compare(struct.pack("=I", match.ids[0]))
    elif isinstance(match, Interface):
        yield from _meta(_IIFNAME if match.incoming else _OIFNAME)
        op = _NEQ if match.negate else _EQ
        yield _look_up(found) if found else _compare(_interface(match.names[0]), op)
    elif isinstance(match, State):
        yield "ct", {"CT_KEY": _CT_STATE, "CT_DREG": 1}
        mask = struct.pack("=I", _STATES[match.word])
        yield (
            "bitwise",
            {
                "BITWISE_SREG": 1,
                "BITWISE_DREG": 1,
                "BITWISE_LEN": 4,
                "BITWISE_OP": 0,
                "BITWISE_MASK": _data(mask),
                "BITWISE_XOR": _data(bytes(4)),
            },
        )
        yield _compare(bytes(4), _NEQ)
    else:
        yield "fib", {"FIB_DREG": 1, "FIB_RESULT": _ADDRESS_TYPE, "FIB_FLAGS": 2}
        yield _compare(struct.pack("=I", _LOCAL))


def _verdict(verdict: Verdict) -> Iterator[Expression]:
    if isinstance(verdict, Redirect):
        yield "immediate", {"IMMEDIATE_DREG": 1, "IMMEDIATE_DATA": _data(struct.pack("!H", verdict.port))}
        yield (
            "redir",
            {"REDIR_REG_PROTO_MIN": 1, "REDIR_REG_PROTO_MAX": 1, "REDIR_FLAGS": {"NF_NAT_RANGE_PROTO_SPECIFIED"}},
        )
    elif isinstance(verdict, Zone):
        yield "immediate", {"IMMEDIATE_DREG": 1, "IMMEDIATE_DATA": _data(struct.pack("=H", verdict.number))}
        yield "ct", {"CT_KEY": _CT_ZONE, "CT_SREG": 1}
    else:
        code = {Drop: _DROP, Jump: _JUMP, Return: _RETURN}[type(verdict)]
        attributes: list[tuple[str, object]] = [("NFTA_VERDICT_CODE", code)]
        if isinstance(verdict, Jump):
            attributes.append(("NFTA_VERDICT_CHAIN", verdict.chain))
        data = {"attrs": [("NFTA_DATA_VERDICT", {"attrs": attributes})]}
        yield "immediate", {"IMMEDIATE_DREG": 0, "IMMEDIATE_DATA": data}


def _family(version: int) -> Iterator[Expression]:
    yield from _meta(nftsocket.Meta.NFT_META_NFPROTO)
    yield _compare(bytes([_NFPROTO[version]]))


def _address(match: Address, found: NamedSet | None) -> Iterator[Expression]:
    net = match.networks[0]
    offset = {4: (16, 12), 6: (24, 8)}[match.version][match.source]
    length = net.max_prefixlen // 8 if found else net.prefixlen // 8
    if length == 0:  # the whole family
        return
    yield _payload(_NETWORK, offset, length)
    op = _NEQ if match.negate else _EQ
    yield _look_up(found) if found else _compare(net.network_address.packed[:length], op)


def _meta(key: int) -> Iterator[Expression]:
    yield "meta", {"META_KEY": int(key), "META_DREG": 1}


def _payload(base: int, offset: int, length: int) -> Expression:
    return "payload", {"PAYLOAD_DREG": 1, "PAYLOAD_BASE": base, "PAYLOAD_OFFSET": offset, "PAYLOAD_LEN": length}


def _compare(value: bytes, op: int = _EQ) -> Expression:
    return "cmp", {"CMP_SREG": 1, "CMP_OP": op, "CMP_DATA": _data(value)}


def _look_up(found: NamedSet) -> Expression:
    return "lookup", {"LOOKUP_SET": found.name, "LOOKUP_SREG": 1, "LOOKUP_FLAGS": set()}


def _data(value: bytes) -> dict[str, object]:
    return {"attrs": [("NFTA_DATA_VALUE", value)]}


def _interface(name: str) -> bytes:
    return name.encode().ljust(16, b"\0")


def _nested(expression: Expression) -> dict[str, object]:
    name, attributes = expression
    data = {"attrs": [(f"NFTA_{key}", value) for key, value in attributes.items()]}
    return {"attrs": [("NFTA_EXPR_NAME", name), ("NFTA_EXPR_DATA", data)]}


def chain_ask(chain: Chain) -> Ask:
    """Makes a chain, empty."""
    attributes: dict[str, object] = {"NFTA_CHAIN_TABLE": TABLE, "NFTA_CHAIN_NAME": chain.name}
    if chain.hook:
        hook = [("NFTA_HOOK_HOOKNUM", _HOOKS[chain.hook]), ("NFTA_HOOK_PRIORITY", chain.priority)]
        attributes |= {
            "NFTA_CHAIN_HOOK": {"attrs": hook},
            "NFTA_CHAIN_POLICY": _ACCEPT,
            "NFTA_CHAIN_TYPE": chain.type,
        }
    return ask(nftsocket.nft_chain_msg, nftsocket.NFT_MSG_NEWCHAIN, NLM_F_CREATE, **attributes)


def set_ask(found: NamedSet, number: int) -> Ask:
    """Makes a set, known as this number within its batch."""
    kind, length, order = _KEYS[found.kind]
    return ask(
        nftsocket.nft_set_msg,
        nftsocket.NFT_MSG_NEWSET,
        NLM_F_CREATE,
        NFTA_SET_TABLE=TABLE,
        NFTA_SET_NAME=found.name,
        NFTA_SET_FLAGS={"NFT_SET_INTERVAL"} if found.ports or found.networks else set(),
        NFTA_SET_KEY_TYPE=kind,
        NFTA_SET_KEY_LEN=length,
        NFTA_SET_ID=number,
        NFTA_SET_USERDATA=struct.pack("=BBI", 0, 4, order),
    )


def _elements(found: NamedSet) -> Ask:
    elements = [
        {
            "attrs": [("NFTA_SET_ELEM_KEY", {"attrs": [("NFTA_DATA_VALUE", key)]})]
            + ([("NFTA_SET_ELEM_FLAGS", {1})] if ends else [])
        }
        for key, ends in set_keys(found)
    ]
    return ask(
        nftsocket.nft_set_elem_list_msg,
        nftsocket.NFT_MSG_NEWSETELEM,
        NLM_F_CREATE,
        NFTA_SET_ELEM_LIST_TABLE=TABLE,
        NFTA_SET_ELEM_LIST_SET=found.name,
        NFTA_SET_ELEM_LIST_ELEMENTS=elements,
    )


def set_keys(found: NamedSet) -> Iterator[tuple[bytes, bool]]:
    """(key, whether it ends an interval): an interval ends before the key of its end, or with the last key there is."""
    for first, last in found.ports:
        yield from _interval(first, last, 2)
    for net in found.networks:
        yield from _interval(int(net.network_address), int(net.broadcast_address), net.max_prefixlen // 8)
    for number in found.ids:
        yield struct.pack("=I", number), False
    for name in found.names:
        yield _interface(name), False


def _interval(first: int, last: int, length: int) -> Iterator[tuple[bytes, bool]]:
    yield first.to_bytes(length, "big"), False
    if last + 1 < 1 << 8 * length:
        yield (last + 1).to_bytes(length, "big"), True


def _edge(kind: int) -> Ask:
    message = nfgen_msg()
    message["res_id"] = NFNL_SUBSYS_NFTABLES
    return cast(Message, message), kind, 0


def ask(form: type[nfgen_msg], kind: int, flags: int, **attributes: object) -> Ask:
    """A message of a form for family inet, with these attributes."""
    message = form()
    message["nfgen_family"] = INET
    message["attrs"] = list(attributes.items())
    return cast(Message, message), SUBSYSTEM | kind, flags
