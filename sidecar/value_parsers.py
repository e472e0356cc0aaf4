"""Text that a person writes -> a typed value: durations, sizes, listening addresses, networks, rates.

Who calls it: the table in ``sidecar.option_table``; flags and environment alike come through here. Pure. Every function
takes the text, returns the value, and raises ValueError with a clause that says what is wrong with the text, and
nothing of where it stood. Digits are ASCII digits: ``float`` and ``int`` would also take "nan", "1_000" and the digits
of other scripts.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

from sidecar.addresses import Address, parse_host_port, parse_ip, parse_port
from sidecar.durations import duration as duration
from sidecar.durations import positive_duration as positive_duration

Networks = tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]

_SIZE = re.compile(r"([0-9]{1,15})([A-Za-z]*)", re.ASCII)
_BYTES: dict[str, int] = {"": 1, "b": 1} | {
    prefix + suffix: factor
    for power, prefix in enumerate("kmgt", start=1)
    for suffix, factor in (("b", 1000**power), ("ib", 1024**power), ("i", 1024**power))  # "Mi": as pods write it
}
_NUMBER = re.compile(r"[0-9]{1,9}", re.ASCII)


def size(text: str) -> int:
    """Bytes, above zero, from ``65536``, ``64KiB``, ``64Ki``, ``10MB``; case does not matter."""
    found = _SIZE.fullmatch(text)
    if found is None or found[2].lower() not in _BYTES:
        raise ValueError(f"{text!r} is not a size")
    if int(found[1]) == 0:
        raise ValueError(f"{text!r} is not above zero")
    return int(found[1]) * _BYTES[found[2].lower()]


def size_or_none(text: str) -> int:
    """As ``size``; ``none`` is 0, which stands for no limit."""
    return 0 if text == "none" else size(text)


def number(lowest: int) -> Callable[[str], int]:
    """A parser of whole numbers from ``lowest`` up."""

    def parse(text: str) -> int:
        if not _NUMBER.fullmatch(text):
            raise ValueError(f"{text!r} is not a whole number")
        if int(text) < lowest:
            raise ValueError(f"{text!r} is below {lowest}")
        return int(text)

    return parse


def choice(*words: str) -> Callable[[str], str]:
    """A parser that takes one of the words as it is."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"{text!r} is not known")
        return text

    return parse


def switch(text: str) -> bool:
    """``on`` or ``off``; ``true`` and ``false`` mean the same."""
    found = {"on": True, "true": True, "off": False, "false": False}.get(text)
    if found is None:
        raise ValueError(f"{text!r} is neither on nor off")
    return found


def destination(text: str) -> Address:
    """``HOST:PORT`` to dial: a name, an IPv4 address, or an IPv6 address in brackets."""
    found = parse_host_port(text)
    if found.ip is None and found.host.rstrip(".").rpartition(".")[2].isdigit():
        raise ValueError(f"{found.host!r} is neither a name nor an IPv4 address")
    return found


def listen(*hosts: str) -> Callable[[str], tuple[Address, ...]]:
    """A parser of ``[ADDR:]PORT`` to listen on; a port alone means that port on each of ``hosts``.

    Where those are loopback addresses, others are refused: only local peers are served there.
    """
    local = all(_is_loopback(host) for host in hosts)

    def parse(text: str) -> tuple[Address, ...]:
        if ":" not in text:
            return tuple(Address(host, parse_port(text, lowest=0)) for host in hosts)
        found = parse_host_port(text, lowest_port=0)
        if found.host == "localhost":
            return Address("127.0.0.1", found.port), Address("::1", found.port)
        if found.ip is None:
            raise ValueError(f"{found.host!r} is not an IP address")
        if local and not found.ip.is_loopback:
            raise ValueError(f"{found.host} is not a loopback address, and only local peers are served here")
        return (Address(str(found.ip), found.port),)

    return parse


def or_off(parse: Callable[[str], tuple[Address, ...]]) -> Callable[[str], tuple[Address, ...]]:
    """The same parser, with ``off`` for no listener at all."""
    return lambda text: () if text == "off" else parse(text)


def networks(text: str) -> Networks:
    """``CIDR,...``; ``none`` is the empty tuple. IPv4-mapped IPv6 networks become what they mean."""
    return () if text == "none" else tuple(_network(part.strip()) for part in text.split(","))


def rate(text: str) -> tuple[int, float]:
    """``BYTES/SECONDS`` -> (bytes per second, the window in seconds over which it is measured)."""
    amount, slash, window = text.partition("/")
    if not slash:
        raise ValueError(f"{text!r} is not BYTES/SECONDS")
    return size(amount), positive_duration(window)


def path(text: str) -> str:
    """A file's path, or ``-``."""
    if not text or "\0" in text:
        raise ValueError(f"{text!r} is not a path")
    return text


def path_or_none(text: str) -> str:
    """A file's path; ``none`` is the empty one."""
    return "" if text == "none" else path(text)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        found = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is not a network") from None
    if "%" in text:
        raise ValueError(f"{text!r} has a zone, which no network has")
    if parse_ip(text.partition("/")[0]) != parse_ip(str(found.network_address)):
        raise ValueError(f"{text!r} has bits set beyond its prefix: {found} is the network")
    if isinstance(found, ipaddress.IPv6Network) and found.prefixlen >= 96 and found.network_address.ipv4_mapped:
        return ipaddress.IPv4Network((found.network_address.ipv4_mapped, found.prefixlen - 96))
    return found


def _is_loopback(host: str) -> bool:
    address = parse_ip(host)
    return address is not None and address.is_loopback
