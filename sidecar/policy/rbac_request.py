"""A request as rules see it: each attribute is read when the first rule needs it, and once. Pure.

Called by ``policy.rbac`` for one judgement, and by the terms of ``policy.rbac_rule``. An attribute that can't be
decided is None. One that is absent is empty, and no pattern matches it.

A path has several forms (``http.paths``): a server may decode it further than this proxy does. A rule that refuses
matches if any form does; a rule that allows matches only if all of them do.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from certs.errors import IdentityError
from certs.spiffe import SCHEME, parse
from sidecar.addresses import parse_ip
from sidecar.errors import ProxyError
from sidecar.http.authority import authority_parts, canonical_authority, check_authority
from sidecar.http.paths import forwarded, judged
from sidecar.policy.authorize import Asked

Ip = tuple[int, int]
"""The version, and the address as a number."""

_DEFAULT_PORT: Final = 80
_NOT_VISIBLE: Final = bytes(each for each in range(256) if not 0x21 <= each <= 0x7E)
MOST_READINGS: Final = 64  # of one field: each rule about it may look at all of them
_MEMO: Final = 1024  # entries of each memo; bounded because peers can fill them
_MEMO_BYTES: Final = 256  # of an authority or an address that is kept
_ABSENT: Final = (b"", 0)
# One form only: nothing to decode, no empty segment, none that starts with a dot, no parameter. Or the asterisk form.
_PLAIN_PATH: Final = re.compile(rb"(?:(?:/[^/%;\\?.][^/%;\\?]*+)++/?+|/|\*)(?=\?|\Z)")


class Peer(msgspec.Struct, frozen=True, gc=False):
    """The identity of a caller. ``principal`` has no scheme, ``account`` is NAMESPACE/SERVICE-ACCOUNT.

    Empty: the caller has none. None: it can't be decided.
    """

    principal: bytes | None
    namespace: bytes | None
    account: bytes | None


UNKNOWN_PEER: Final = Peer(None, None, None)
_ANONYMOUS: Final = Peer(b"", b"", b"")


def read_peer(text: str) -> Peer:
    """Return the identity that a SPIFFE id names; the empty text is a caller without one."""
    if not text:
        return _ANONYMOUS
    try:
        found = parse(text)
    except IdentityError:
        return UNKNOWN_PEER
    principal = text[len(SCHEME) :].encode()
    workload = found.workload()
    if workload is None:
        # Istio looks for /ns/NAME/ anywhere in the id: such an id may have a namespace for other readers.
        namespace = None if "/ns/" in found.path else b""
        return Peer(principal, namespace, namespace)
    return Peer(principal, workload[0].encode(), "/".join(workload).encode())


class Memo:
    """A bounded cache of parsed addresses and authorities, which repeat between requests."""

    __slots__ = ("addresses", "hosts")

    def __init__(self) -> None:
        self.addresses: dict[str, Ip | None] = {}
        self.hosts: dict[bytes, tuple[bytes, int] | None] = {}


class View:
    """One request, or one connection if ``http`` is false."""

    __slots__ = ("_forms", "_headers", "_memo", "_readings", "asked", "http", "peer")

    def __init__(self, asked: Asked, peer: Peer, memo: Memo) -> None:
        self.asked = asked
        self.peer = peer
        self.http = asked.protocol == "HTTP"
        self._memo = memo
        self._forms: tuple[bytes, ...] | None = ()  # not read yet
        self._headers: dict[bytes, tuple[bytes, ...]] | None = None
        self._readings: dict[bytes, tuple[bytes, ...] | None] | None = None

    def forms(self) -> tuple[bytes, ...] | None:
        """Return the path as it is forwarded, and as it is judged. A rule that allows must match each form; one that
        refuses, any form."""
        if self._forms == ():
            self._forms = self._read_path()
        return self._forms

    def _read_path(self) -> tuple[bytes, ...] | None:
        plain = _PLAIN_PATH.match(self.asked.path)
        if plain is not None:
            return (plain[0],)
        path = self.asked.path.partition(b"?")[0]
        if path[:1] != b"/":
            return None
        try:
            return tuple(sorted(judged(path) | {forwarded(path)}))
        except ProxyError:
            return None

    def host(self) -> tuple[bytes, int] | None:
        """Return the host in lower case, without brackets and trailing dot, and the port: 80 if none is named."""
        authority = self.asked.authority
        try:
            return self._memo.hosts[authority]
        except KeyError:
            pass
        found = _read_host(authority)
        if len(authority) <= _MEMO_BYTES:
            if len(self._memo.hosts) >= _MEMO:
                self._memo.hosts.clear()
            self._memo.hosts[authority] = found
        return found

    def header(self, name: bytes) -> tuple[bytes, ...]:
        """Return the values of the fields of that name, which is in lower case."""
        if self._headers is None:
            self._headers = {}
        elif name in self._headers:
            return self._headers[name]
        length = len(name)
        values = tuple([value for key, value in self.asked.fields if len(key) == length and key.lower() == name])
        if name == b"host" and self.asked.authority and self.asked.authority not in values:
            values = (*values, self.asked.authority)
        self._headers[name] = values
        return values

    def readings(self, name: bytes) -> tuple[bytes, ...] | None:
        """All that a server may read as the value of that field: each value as it is, cut at both ends, and each member
        of a list; also of fields whose names differ by an underscore. None for more than MOST_READINGS of them."""
        if self._readings is None:
            self._readings = {}
        elif name in self._readings:
            return self._readings[name]
        twin = name.replace(b"-", b"_")
        values = list(self.header(name))
        if twin != name:
            values += [value for key, value in self.asked.fields if key.lower().replace(b"-", b"_") == twin]
        if name == b"host" and values:
            values += [canonical_authority(value) for value in values]
            values += [value.rpartition(b":")[0] for value in values if value[-1:].isdigit() and b":" in value]
        found: dict[bytes, None] = {}
        for value in values:
            for each in (value, *(value.split(b",", MOST_READINGS + 1) if b"," in value else ())):
                found[each] = found[each.strip(_NOT_VISIBLE)] = None
            if len(found) > MOST_READINGS:
                break
        readings = self._readings[name] = tuple(found) if len(found) <= MOST_READINGS else None
        return readings

    def client(self) -> Ip | None:
        """Return the address that the connection comes from."""
        return self._address(self.asked.client)

    def remote(self) -> Ip | None:
        """Return the address that trusted proxies report; the client's if none does."""
        return self._address(self.asked.remote or self.asked.client)

    def destination(self) -> Ip | None:
        """Return the address at which the app is reached."""
        return self._address(self.asked.place[0])

    def _address(self, text: str) -> Ip | None:
        memo = self._memo.addresses
        try:
            return memo[text]
        except KeyError:
            pass
        address = parse_ip(text.partition("%")[0])  # blocks have no zone
        found = None if address is None else (address.version, int(address))
        if len(text) <= _MEMO_BYTES:
            if len(memo) >= _MEMO:
                memo.clear()
            memo[text] = found
        return found


def _read_host(authority: bytes) -> tuple[bytes, int] | None:
    if not authority:
        return _ABSENT
    try:
        check_authority(authority)
    except ProxyError:
        return None
    host, port = authority_parts(canonical_authority(authority))
    if ":" in host:
        host = str(parse_ip(host))
    return host.encode(), port or _DEFAULT_PORT
