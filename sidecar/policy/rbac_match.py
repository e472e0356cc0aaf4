"""Values of a policy's fields, parsed into patterns: strings, paths, hosts, address blocks and ports. Pure.

Called by ``policy.rbac_terms``. A field is read wide if its match leads to a refusal (the fields of DENY, the ``not``
twins of ALLOW), and narrow if it leads to permission. A value that can't be parsed matches anything in a wide field and
nothing in a narrow one. Each parser is a generator that yields now and then, since a field may have thousands of
values.

Sources: Istio's reference of AuthorizationPolicy ("Rule", "Source", "Operation"), Envoy's ``uri_template_matcher``.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Generator, Sequence
from typing import Final

import msgspec

from sidecar.addresses import parse_ip, parse_port
from sidecar.policy.rbac_request import Ip

_VALUES_PER_STEP: Final = 64
_BLOCKS_PER_STEP: Final = 16  # an address takes longer to parse
_HOST_NAME: Final = re.compile(r"[a-z0-9_][a-z0-9_.~-]*")
_PREFIX_LENGTH: Final = re.compile(r"[0-9]{1,3}", re.ASCII)
_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")

Match = Callable[[bytes], bool]


class Keys(msgspec.Struct, gc=False):
    """Texts for an index. To match, a value must equal, start with or end with one of them."""

    exact: set[bytes] = msgspec.field(default_factory=set)
    prefixes: set[bytes] = msgspec.field(default_factory=set)
    suffixes: set[bytes] = msgspec.field(default_factory=set)


class Template(msgspec.Struct, frozen=True, gc=False):
    """A path by its segments; None is ``{*}``, one segment that is not empty.

    ``tail`` is None without a ``{**}``, which takes one segment or more, each of which may be empty: ``/a/{**}``
    matches ``/a/`` and not ``/a``.
    """

    head: tuple[bytes | None, ...]
    tail: tuple[bytes, ...] | None

    def match(self, path: bytes) -> bool:
        """Return whether a path has this form."""
        segments = path.split(b"/")
        if self.tail is None:
            return len(segments) == len(self.head) and self._starts(segments)
        count = len(self.tail)
        if len(segments) <= len(self.head) + count:
            return False
        return self._starts(segments) and (not count or tuple(segments[-count:]) == self.tail)

    def _starts(self, segments: list[bytes]) -> bool:
        return all(
            bool(there) if wanted is None else there == wanted
            for wanted, there in zip(self.head, segments, strict=False)
        )

    def literal(self) -> bytes:
        """Return the text that each matching path starts with."""
        known = self.head[: self.head.index(None)] if None in self.head else self.head
        return b"".join([each + b"/" for each in known if each is not None]).removesuffix(b"/")


class Glob(msgspec.Struct, frozen=True, gc=False):
    """A text with ``*`` at other places than one end: its parts in their order, with anything between them."""

    head: bytes
    middle: tuple[bytes, ...]
    tail: bytes

    def match(self, value: bytes) -> bool:
        """Return whether a value, which must not be empty, has all parts."""
        begin, end = len(self.head), len(value) - len(self.tail)
        if not value or begin > end or not value.startswith(self.head) or not value.endswith(self.tail):
            return False
        for part in self.middle:
            found = value.find(part, begin, end)
            if found < 0:
                return False
            begin = found + len(part)
        return True

    def literal(self) -> bytes:
        """Return the text that each matching value starts with."""
        return self.head


class Patterns(msgspec.Struct, gc=False):
    """The values of a field as exact texts, prefixes, suffixes, and ``*`` (``present``: not empty)."""

    wide: bool
    exact: set[bytes] = msgspec.field(default_factory=set)
    prefixes: set[bytes] = msgspec.field(default_factory=set)
    suffixes: set[bytes] = msgspec.field(default_factory=set)
    templates: list[Template | Glob] = msgspec.field(default_factory=list)
    present: bool = False
    anything: bool = False

    def unreadable(self) -> None:
        """Add a value that can't be parsed."""
        self.anything = self.anything or self.wide

    def matcher(self) -> Match:
        """Return the function that matches one value."""
        if self.anything:
            return lambda value: True
        if self.present:
            return bool
        exact = self.exact
        if not self.prefixes and not self.suffixes and not self.templates:
            return exact.__contains__
        prefixes, suffixes, templates = tuple(self.prefixes), tuple(self.suffixes), tuple(self.templates)

        def match(value: bytes) -> bool:
            if value in exact or value.startswith(prefixes) or value.endswith(suffixes):
                return True
            return any(template.match(value) for template in templates)

        return match

    def keys(self) -> Keys | None:
        """Return the keys for an index; None if a value may match without any of them."""
        if self.present or self.anything:
            return None
        if not self.templates:
            return Keys(self.exact, self.prefixes, self.suffixes)
        literals = {template.literal() for template in self.templates}
        return None if b"" in literals else Keys(self.exact, self.prefixes | literals, self.suffixes)


def parse_strings(
    values: Sequence[str], wide: bool, mend: Callable[[str], str] | None = None
) -> Generator[None, None, Patterns]:
    """Parse ``abc``, ``abc*``, ``*abc`` and ``*``; ``mend`` is applied to exact texts and prefixes."""
    found = Patterns(wide)
    for number, value in enumerate(values, 1):
        _add_string(found, value, mend)
        if not number % _VALUES_PER_STEP:
            yield
    return found


def _add_string(found: Patterns, value: str, mend: Callable[[str], str] | None) -> None:
    if not value:
        found.unreadable()
    elif value == "*":
        found.present = True
    elif value.startswith("*"):
        found.suffixes.add(_bytes(value[1:]))
    elif value.endswith("*"):
        found.prefixes.add(_bytes(mend(value[:-1]) if mend else value[:-1]))
    else:
        found.exact.add(_bytes(mend(value) if mend else value))


def parse_namespaces(values: Sequence[str], wide: bool) -> Generator[None, None, Patterns]:
    """Parse strings, in which ``*`` may also be at both ends or inside.

    Istio documents only the forms of ``parse_strings``. Its generator takes each ``*`` of a namespace for any text.
    """
    found = Patterns(wide)
    for number, value in enumerate(values, 1):
        head, *rest = value.split("*")
        if len(rest) > 1 or (rest and head and rest[0]):
            *middle, tail = map(_bytes, rest)
            found.templates.append(Glob(_bytes(head), tuple(middle), tail))
        else:
            _add_string(found, value, None)
        if not number % _VALUES_PER_STEP:
            yield
    return found


def parse_accounts(values: Sequence[str], wide: bool, namespace: str) -> Generator[None, None, Patterns]:
    """Parse ``NAMESPACE/SERVICE-ACCOUNT`` and ``SERVICE-ACCOUNT``, which is one of ``namespace``; no wildcards."""
    found = Patterns(wide)
    for number, value in enumerate(values, 1):
        parts = value.split("/") if "/" in value else [namespace, value]
        if len(parts) == 2 and all(parts) and "*" not in value:
            found.exact.add(_bytes("/".join(parts)))
        else:
            found.unreadable()
        if not number % _VALUES_PER_STEP:
            yield
    return found


def parse_paths(values: Sequence[str], wide: bool) -> Generator[None, None, Patterns]:
    """Parse strings, and templates with ``{*}`` and ``{**}`` as whole segments."""
    found = Patterns(wide)
    for number, value in enumerate(values, 1):
        if "{*}" in value or "{**}" in value:
            template = _template(value)
            if template is None:
                found.unreadable()
            else:
                found.templates.append(template)
        else:
            _add_string(found, value, None)
        if not number % _VALUES_PER_STEP:
            yield
    return found


def _template(value: str) -> Template | None:
    """Read a template; None if there is another wildcard, or an operator after ``{**}``, as Envoy has it."""
    head: list[bytes | None] = []
    tail: list[bytes] | None = None
    for segment in value.split("/"):
        if segment == "{**}" and tail is None:
            tail = []
        elif segment == "{*}" and tail is None:
            head.append(None)
        elif any(each in segment for each in "{}*"):
            return None
        elif tail is None:
            head.append(_bytes(segment))
        else:
            tail.append(_bytes(segment))
    return Template(tuple(head), None if tail is None else tuple(tail))


class Hosts(msgspec.Struct, gc=False):
    """Host patterns. A name without a port is matched at any port; ``opened`` are prefixes that go on into the port."""

    names: Patterns
    exact: set[tuple[bytes, int]] = msgspec.field(default_factory=set)
    suffixes: list[tuple[bytes, int]] = msgspec.field(default_factory=list)
    opened: set[bytes] = msgspec.field(default_factory=set)

    def matcher(self) -> Callable[[tuple[bytes, int]], bool]:
        """Return the function that matches a host as ``View.host`` returns it."""
        match_name = self.names.matcher()
        if not self.exact and not self.suffixes and not self.opened:
            return lambda host: match_name(host[0])
        exact, suffixes, opened = self.exact, tuple(self.suffixes), tuple(self.opened)

        def match(host: tuple[bytes, int]) -> bool:
            name, port = host
            if match_name(name) or host in exact:
                return True
            if opened and b":" not in name and (b"%b:%d" % host).startswith(opened):
                return True
            return any(port == wanted and name.endswith(suffix) and name != b"" for suffix, wanted in suffixes)

        return match

    def keys(self) -> Keys | None:
        """Return the keys as ``Patterns.keys`` does, for the name alone."""
        found = self.names.keys()
        if found is None or any(not suffix for suffix, _ in self.suffixes):
            return None
        return Keys(
            found.exact | {name for name, _ in self.exact},
            found.prefixes | {text.partition(b":")[0] for text in self.opened},
            found.suffixes | {suffix for suffix, _ in self.suffixes},
        )


def parse_hosts(values: Sequence[str], wide: bool) -> Generator[None, None, Hosts]:
    """Parse host patterns, with or without a port."""
    found = Hosts(Patterns(wide))
    for number, value in enumerate(values, 1):
        if not _add_host(found, value.lower()):
            found.names.unreadable()
        if not number % _VALUES_PER_STEP:
            yield
    return found


def _add_host(found: Hosts, value: str) -> bool:
    if value == "*":
        found.names.present = True
        return True
    if value.endswith("*") and not value.startswith("*"):
        return _add_host_prefix(found, value[:-1])
    suffix = value.startswith("*")
    name, port = _split_host(value[1:] if suffix else value)
    if port is None:
        return False
    name = name.removesuffix(".")
    if not suffix:
        address = parse_ip(name)
        name = name if address is None else str(address)
        if address is None and not _HOST_NAME.fullmatch(name):
            return False
    elif not name and not port:
        return False
    if not port:
        (found.names.suffixes if suffix else found.names.exact).add(_bytes(name))
    elif suffix:
        found.suffixes.append((_bytes(name), port))
    else:
        found.exact.add((_bytes(name), port))
    return True


def _add_host_prefix(found: Hosts, text: str) -> bool:
    if "[" in text or text.startswith(":"):
        return False
    (found.opened if text.count(":") == 1 else found.names.prefixes).add(_bytes(text))
    return True


def _split_host(text: str) -> tuple[str, int | None]:
    """Return the name without brackets, and the port: 0 if there is none, None if it can't be read."""
    if text.count(":") > 1 and "]" not in text:
        return text, 0
    name, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        name, number = text, 0
    else:
        try:
            number = parse_port(port)
        except ValueError:
            return "", None
    if name.startswith("[") and name.endswith("]") and ":" in name:
        name = name[1:-1]
    return name, number


Networks = Callable[[Ip], bool]


def parse_blocks(values: Sequence[str], wide: bool) -> Generator[None, None, Networks]:
    """Parse addresses and CIDR blocks."""
    by_size: dict[tuple[int, int], set[int]] = {}
    anything = False
    for number, value in enumerate(values, 1):
        network = _network(value)
        if network is None:
            anything = anything or wide
        else:
            host_bits = network.max_prefixlen - network.prefixlen
            by_size.setdefault((network.version, host_bits), set()).add(int(network.network_address) >> host_bits)
        if not number % _BLOCKS_PER_STEP:
            yield
    if anything:
        return lambda address: True
    sizes = tuple([(version, bits, found) for (version, bits), found in by_size.items()])

    def match(address: Ip) -> bool:
        own, number = address
        return any(own == version and number >> bits in found for version, bits, found in sizes)

    return match


def _network(value: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    address, slash, length = value.partition("/")
    if "%" in address or (slash and not _PREFIX_LENGTH.fullmatch(length)):
        return None
    try:
        found = ipaddress.ip_network(value, strict=False)
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Network) and found.subnet_of(_MAPPED):
        mapped = found.network_address.ipv4_mapped
        return ipaddress.IPv4Network((int(mapped or 0), found.prefixlen - 96))
    return found


def parse_ports(values: Sequence[str], wide: bool) -> Generator[None, None, Callable[[int], bool]]:
    """Parse port numbers."""
    found: set[int] = set()
    anything = False
    for number, value in enumerate(values, 1):
        try:
            found.add(parse_port(value))
        except ValueError:
            anything = anything or wide
        if not number % _VALUES_PER_STEP:
            yield
    return (lambda port: True) if anything else found.__contains__


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
