"""What a limit is about, and which bucket a request belongs to: matchers and keys, compiled from documents. Pure.

Used by ``policy.ratelimit`` and ``policy.ratelimit_connections``. A limit is a refusal, so its fields are read wide, as
those of a DENY rule (``policy.rbac_terms``): a request matches if any reading of it does, and also if it can't be
decided. A part of a key that is missing, or that can't be read, is one shared empty value.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Generator, Sequence
from hashlib import blake2b
from typing import Final, TypeVar
from urllib.parse import unquote, unquote_to_bytes

from sidecar.addresses import parse_ip
from sidecar.errors import ProxyError
from sidecar.http.headers import may_be_secret
from sidecar.http.paths import judged
from sidecar.policy.ratelimit_buckets import ALL, Key
from sidecar.policy.rbac_match import parse_hosts, parse_paths, parse_strings
from sidecar.policy.rbac_request import View
from sidecar.resources.rate_limit_rules import HEADER, LOCAL_TRUST_DOMAIN, ROUTE, source_of
from sidecar.resources.rate_limits import LimitMatch

KEY_BYTES: Final = 64  # of one part; a longer one is kept as its hash

T = TypeVar("T")
KeyOf = Callable[[View], Key]
Matches = Callable[[View], bool]
_MISSING: Final = ""


def key_of(parts: Sequence[str], prefix_length: int) -> KeyOf:
    """Return the function that makes the key of a request."""
    found = [_part(part, prefix_length) for part in parts]
    if not found:
        return lambda view: ALL
    if len(found) == 1:
        return found[0]
    if len(found) == 2:
        first, second = found
        return lambda view: (first(view), second(view))
    return lambda view: tuple([each(view) for each in found])


def _part(part: str, prefix_length: int) -> KeyOf:
    header = HEADER.fullmatch(part)
    if header is not None:
        return _of_header(header[1].lower().encode())
    known: dict[str, KeyOf] = {
        "source.principal": lambda view: view.asked.peer,
        "source.namespace": lambda view: view.peer.namespace or _MISSING,
        "source.ip": lambda view: client_key(view.asked.client, prefix_length),
        "remote.ip": lambda view: network(view.asked.remote or view.asked.client, prefix_length),
        "request.path": _path,
        "request.method": lambda view: _bounded(view.asked.method),
        ROUTE: lambda view: view.asked.route,
    }
    return known[part]


def client_key(text: str, prefix_length: int) -> str:
    """Return the key of a client's address, as the kernel writes it. See ``network``."""
    return network(text, prefix_length) if ":" in text else text


def network(text: str, prefix_length: int) -> str:
    """Return an IPv4 address as it is, also within IPv6, and of an IPv6 address its network; empty for what is no
    address."""
    address = parse_ip(text.partition("%")[0])
    if address is None:
        return _MISSING
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address), prefix_length), strict=False))


def _path(view: View) -> Key:
    """The path decoded in full, and of several readings the shortest: whatever spelling is sent, the app may take it
    for this one."""
    path = view.asked.path
    if not path.startswith(b"/"):
        return _MISSING
    try:
        return _bounded(min({unquote_to_bytes(form) for form in judged(path)}, key=lambda form: (len(form), form)))
    except ProxyError:
        return _MISSING


def _of_header(name: bytes) -> KeyOf:
    plain = name.replace(b"_", b"-")
    secret = may_be_secret(name)

    def key(view: View) -> Key:
        found = [value for field, value in view.asked.fields if field.lower().replace(b"_", b"-") == plain]
        value = b", ".join(found)
        return _hashed(value) if secret else _bounded(value)

    return key


def _bounded(value: bytes) -> Key:
    if not value:
        return _MISSING
    return value if len(value) <= KEY_BYTES else _hashed(value)


def _hashed(value: bytes) -> Key:
    """A value that is long, or that no page may show."""
    return "hash:" + blake2b(value, digest_size=12).hexdigest() if value else _MISSING


def shown_key(key: Key) -> str:
    """Return a key for people."""
    if isinstance(key, bytes):
        return key.decode("utf-8", "backslashreplace")
    if isinstance(key, tuple):
        return " ".join([shown_key(each) or "-" for each in key])
    return str(key)


class Sources:
    """Sources by their index: the first of ``texts`` is 0. Of several networks the narrowest counts."""

    __slots__ = ("_blocks", "_principals", "by_identity")

    def __init__(self, texts: Sequence[str], namespace: str, trust_domain: str) -> None:
        self._principals: dict[str, int] = {}
        blocks: dict[tuple[int, int], dict[int, int]] = {}
        for index, text in enumerate(texts):
            source = source_of(text, namespace)
            if source is None:
                continue  # such a document is refused
            if "/ns/" not in source:
                block = ipaddress.ip_network(source)
                host_bits = block.max_prefixlen - block.prefixlen
                table = blocks.setdefault((block.version, host_bits), {})
                table[int(block.network_address) >> host_bits] = index
            else:
                domain, _, rest = source.partition("/")
                own = trust_domain if domain == LOCAL_TRUST_DOMAIN else domain
                self._principals[f"spiffe://{own}/{rest}"] = index
        self._blocks = sorted(
            [(bits, version, table) for (version, bits), table in blocks.items()], key=lambda it: it[0]
        )
        self.by_identity = bool(self._principals)

    def find(self, view: View) -> int:
        """Return the index of the source that sends this; -1 if it is none of them. A principal counts before a
        network."""
        index = self._principals.get(view.asked.peer)
        if index is not None:
            return index
        if self._blocks:
            address = view.client()
            if address is not None:
                version, number = address
                for bits, of_version, table in self._blocks:
                    if of_version == version and (found := table.get(number >> bits)) is not None:
                        return found
        return -1


def matcher(match: LimitMatch, namespace: str, trust_domain: str) -> Matches:
    """Return the function that tells whether a request matches. A connection has none of the HTTP fields, and is
    matched by its source alone."""
    tests: list[Matches] = []
    if match.methods:
        of_method = _whole(parse_strings(match.methods, True)).matcher()
        tests.append(lambda view: of_method(view.asked.method))
    if match.paths:
        tests.append(_path_test(match.paths))
    if match.hosts:
        of_host = _whole(parse_hosts(match.hosts, True)).matcher()
        tests.append(lambda view: (host := view.host()) is None or of_host(host))
    for name, values in match.headers.items():
        tests.append(_header_test(name.lower().encode(), values))
    if match.sources:
        sources = Sources(match.sources, namespace, trust_domain)
        tests.append(lambda view: sources.find(view) >= 0)
    if len(tests) == 1:
        return tests[0]
    return lambda view: all(test(view) for test in tests)


def _path_test(paths: Sequence[str]) -> Matches:
    """Paths match in any spelling: limits decode more than rules do, which must not take one path for another."""
    decoded = [unquote(path) for path in paths]
    of_path = _whole(parse_paths(list(dict.fromkeys([*paths, *decoded])), True)).matcher()

    def test(view: View) -> bool:
        if view.asked.method == b"CONNECT":
            return False  # it has no path
        forms = view.forms()
        return forms is None or any(of_path(form) or of_path(unquote_to_bytes(form)) for form in forms)

    return test


def _header_test(name: bytes, values: Sequence[str]) -> Matches:
    of_value = _whole(parse_strings(values, True)).matcher()

    def test(view: View) -> bool:
        readings = view.readings(name)
        return readings is None or any(map(of_value, readings))

    return test


def _whole(steps: Generator[None, None, T]) -> T:
    while True:
        try:
            next(steps)
        except StopIteration as done:
            found: T = done.value
            return found
