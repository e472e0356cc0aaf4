"""The names that we answer ourselves, and their addresses. Pure.

Who calls it: ``dns.answers`` looks names up; the composition root puts those of ``--dns-host`` in, and whoever learns
of more names puts them in or takes them out while the server runs.

A name's key is its wire form (RFC 1035 section 3.1) in lower case, as it stands in a question: so a look-up is one
slice and one dictionary access. A label's length is at most 63, which is no capital letter's code, so ``lower`` touches
text alone; and a key without the search domain at its end is in the table only if the cut was between two labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    """A table from names to addresses. Names are text here, in any case, with or without the final dot."""

    def __init__(self) -> None:
        self._table: dict[bytes, Known] = {}

    def __len__(self) -> int:
        return len(self._table)

    def put(self, name: str, addresses: Iterable[str]) -> None:
        """From now on ``name`` has these addresses (IP literals) and no others. ValueError for what is none."""
        found = [parse_ip(address) for address in addresses]
        if not found or None in found:
            raise ValueError(f"{name}: every name needs addresses, and nothing but addresses")
        fours = (_rdata("A", str(each)) for each in found if each is not None and each.version == 4)
        sixes = (_rdata("AAAA", str(each)) for each in found if each is not None and each.version == 6)
        self._table[key_of(name)] = Known(tuple(fours), tuple(sixes))

    def remove(self, name: str) -> None:
        """``name`` is not ours any more; it may not have been."""
        self._table.pop(key_of(name), None)

    def look_up(self, key: bytes, search: Sequence[bytes] = ()) -> Known | None:
        """What is known of the name with this key, as it stands or below one of the search domains (keys as well)."""
        found = self._table.get(key)
        if found is not None or not self._table:
            return found
        for domain in search:
            if key.endswith(domain):
                found = self._table.get(key[: -len(domain)] + _ROOT)
                if found is not None:
                    return found
        return None


def names_of(hosts: Iterable[DnsHost]) -> Names:
    """A table of these; the addresses of one name add up."""
    addresses: dict[str, list[str]] = {}
    for host in hosts:
        addresses.setdefault(host.name, []).append(host.address)
    names = Names()
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


def _rdata(kind: str, address: str) -> dns.rdata.Rdata:
    return dns.rdata.from_text(dns.rdataclass.IN, dns.rdatatype.from_text(kind), address)
