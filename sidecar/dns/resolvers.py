"""The resolvers of /etc/resolv.conf, and its search list, as they are now.

Who calls it: ``dns.upstream`` for each query that it forwards, ``dns.answers`` for the search list. The file is looked
at each time and read, by dnspython, when it is another than before; a file that can't be read changes nothing.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass

import dns.exception
import dns.name
import dns.resolver

from sidecar.addresses import Address, parse_ip
from sidecar.dns.names import key_of

MOST = 3  # as many as the C library asks (MAXNS)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ResolvConf:
    """Whom to ask, the preferred one first, and the keys (as in ``dns.names``) of the search domains."""

    servers: tuple[Address, ...] = ()
    search: tuple[bytes, ...] = ()


class Resolvers:
    """``nameservers`` takes the place of those in the file at ``path``, whose search list still holds. A server that is
    one of ``own``, our own listeners, is left out with a warning."""

    def __init__(
        self,
        path: str = "/etc/resolv.conf",
        *,
        nameservers: Sequence[Address] | None = None,
        own: Sequence[Address] = (),
    ) -> None:
        self._path = path
        self._nameservers = nameservers
        self._own = tuple(own)
        self._seen: tuple[int, int, int] | None = None
        self._now = ResolvConf()

    def now(self) -> ResolvConf:
        """What the file says now, or what it said when it could last be read."""
        try:
            status = os.stat(self._path)
            seen = (status.st_mtime_ns, status.st_size, status.st_ino)
        except OSError:
            seen = (0, 0, 0)
        if seen != self._seen:
            self._seen = seen
            self._now = self._read()
        return self._now

    def _read(self) -> ResolvConf:
        servers: Sequence[Address]
        try:
            found = dns.resolver.Resolver(self._path)
            servers = [Address(str(each), found.port) for each in found.nameservers]
            domains = found.search or [found.domain]
        except (dns.exception.DNSException, OSError, ValueError):
            if self._nameservers is None:
                _log.warning("dns: no resolver could be read from %s; what was known before still holds", self._path)
                return self._now
            servers, domains = (), []
        if self._nameservers is not None:
            servers = self._nameservers
        search = tuple(key_of(domain) for domain in domains if domain not in (dns.name.root, dns.name.empty))
        return ResolvConf(tuple(self._without_own(servers)[:MOST]), search)

    def _without_own(self, servers: Sequence[Address]) -> list[Address]:
        others = []
        for server in servers:
            if self._is_own(server):
                _log.warning("dns: resolver %s is this proxy's own --dns, and is left out; name another", server.host)
            else:
                others.append(server)
        return others

    def _is_own(self, server: Address) -> bool:
        wanted = parse_ip(server.host)
        if wanted is None:
            return False
        return any(
            server.port == own.port and (wanted == own.ip or wanted.is_unspecified)  # to dial 0.0.0.0 leads to loopback
            for own in self._own
        )
