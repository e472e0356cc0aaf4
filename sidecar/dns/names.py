"""The names that we answer ourselves, and their addresses. Pure.

Who calls it: ``dns.answers`` looks names up; the composition root puts those of ``--dns-host`` in, and says whom to ask
for more: the names of a mesh are looked up in the Snapshot of the moment, one by one as they are asked for, since ten
thousand of them would be much to put in at once, and most are never asked for.

A name's key is its wire form (RFC 1035 section 3.1) in lower case, as it stands in a question: so a look-up is one
slice and one dictionary access. A label's length is at most 63, which is no capital letter's code, so ``lower`` touches
text alone; and a key without the search domain at its end is in the table only if the cut was between two labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype

from sidecar.addresses import parse_ip
from sidecar.dns_host import DnsHost

_ROOT = b"\0"


@dataclass(frozen=True, slots=True)
class Known:
    """A name's records, ready to be put into an answer. A family that has none is answered with no data."""

    a: tuple[dns.rdata.Rdata, ...]
    aaaa: tuple[dns.rdata.Rdata, ...]


class Names:
    """A table from names to addresses. Names are text here, in any case, with or without the final dot.

    ``more`` is asked for what is not in the table, with the name in lower case and without the final dot: its addresses
    in canonical form (none of them: the name is ours, and has nothing), or None for a name that is not ours.
    """

    def __init__(self, more: Callable[[str], Sequence[str] | None] | None = None) -> None:
        self._table: dict[bytes, Known] = {}
        self._more = more

    def __len__(self) -> int:
        return len(self._table)

    def put(self, name: str, addresses: Iterable[str]) -> None:
        """From now on ``name`` has these addresses (IP literals) and no others. ValueError for what is none."""
        found = [parse_ip(address) for address in addresses]
        if not found or None in found:
            raise ValueError(f"{name}: every name needs addresses, and nothing but addresses")
        self._table[key_of(name)] = _known([str(each) for each in found])

    def remove(self, name: str) -> None:
        """``name`` is not ours any more; it may not have been."""
        self._table.pop(key_of(name), None)

    def look_up(self, key: bytes, search: Sequence[bytes] = ()) -> Known | None:
        """What is known of the name with this key, as it stands or below one of the search domains (keys as well)."""
        found = self._look_up(key)
        if found is not None or not (self._table or self._more):
            return found
        for domain in search:
            if key.endswith(domain):
                found = self._look_up(key[: -len(domain)] + _ROOT)
                if found is not None:
                    return found
        return None

    def _look_up(self, key: bytes) -> Known | None:
        found = self._table.get(key)
        if found is None and self._more is not None and (name := _text(key)):
            addresses = self._more(name)
            return None if addresses is None else _known(addresses)
        return found


def names_of(hosts: Iterable[DnsHost], more: Callable[[str], Sequence[str] | None] | None = None) -> Names:
    """A table of these; the addresses of one name add up. ``more`` as for ``Names``."""
    addresses: dict[str, list[str]] = {}
    for host in hosts:
        addresses.setdefault(host.name, []).append(host.address)
    names = Names(more)
    for name, found in addresses.items():
        names.put(name, found)
    return names


def key_of(name: str | dns.name.Name) -> bytes:
    """The key of a name; ValueError for what is no name."""
    try:
        whole = dns.name.from_text(name) if isinstance(name, str) else name
        return whole.to_digestable()
    except dns.exception.DNSException:
        raise ValueError(f"{name} is not a name") from None


def _text(key: bytes) -> str:
    """The name with this key, without the final dot; empty for what no name of ours can be: the root, and names that
    have other characters than printable ASCII, or dots within a label."""
    labels: list[bytes] = []
    at = 0
    while at < len(key) and key[at]:
        end = at + 1 + key[at]
        labels.append(key[at + 1 : end])
        at = end
    text = b".".join(labels).decode("ascii", "replace")
    return text if text.isprintable() and text.isascii() and text.count(".") == len(labels) - 1 else ""


def _known(addresses: Sequence[str]) -> Known:
    return Known(
        tuple(_rdata("A", each) for each in addresses if ":" not in each),
        tuple(_rdata("AAAA", each) for each in addresses if ":" in each),
    )


def _rdata(kind: str, address: str) -> dns.rdata.Rdata:
    return dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.from_text(kind), address)
