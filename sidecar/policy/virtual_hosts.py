"""All VirtualServices of one proxy, compiled, by the hosts that they are for. Pure.

Called when a Snapshot is made, and then for each request and connection by the proxy. Of several VirtualServices for
one host the first one counts: the documents are not merged. A whole name counts before ``*.`` and the longest name, and
that before ``*``.

Source: Istio's reference of VirtualService ("hosts").
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Final

import msgspec

from sidecar.policy.http_routes import VirtualHost, compile_virtual_host
from sidecar.policy.route_conditions import Labels
from sidecar.policy.route_index import FEW
from sidecar.resources.virtual_service import VirtualServiceSpec

_HOSTS_PER_STEP: Final = 64


class Shadowed(msgspec.Struct, frozen=True, gc=False):
    """A VirtualService that does not count for a host, and the first one that does."""

    host: str
    title: str
    by: str


class VirtualHosts:
    """The VirtualServices of one proxy. Made by :func:`compile_virtual_hosts`; ``EMPTY`` has none."""

    __slots__ = ("_everything", "_exact", "_under", "all", "shadowed")

    def __init__(self) -> None:
        self.all: list[VirtualHost] = []  # in the order in which they count
        self.shadowed: list[Shadowed] = []
        self._exact: dict[bytes, list[VirtualHost]] = {}
        self._under: dict[bytes, list[VirtualHost]] = {}  # by what a host ends with, from its dot on
        self._everything: list[VirtualHost] = []

    def find(self, host: bytes, port: int) -> VirtualHost | None:
        """Return the one whose HTTP routes count for requests to a host and port; None if there is none.

        ``host`` is canonical: in lower case, without a port, without a trailing dot. One all of whose matches are for
        other ports or other callers is passed over, as in Istio.
        """
        found = self._exact.get(host)
        if found is not None and found[0].serves(port):
            return found[0]
        return next((each for each in self._named(host) if each.serves(port)), None)

    def find_tcp(self, host: bytes, port: int) -> VirtualHost | None:
        """Return the one whose TCP routes count for connections to a host and port; None if there is none."""
        return next((each for each in self._named(host) if each.l4.serves_tcp(port)), None)

    def find_tls(self, host: bytes, port: int) -> VirtualHost | None:
        """Return the one whose TLS routes count for connections to a host and port; None if there is none."""
        return next((each for each in self._named(host) if each.l4.serves_tls(port)), None)

    def _named(self, host: bytes) -> Iterator[VirtualHost]:
        """Yield those for a host, the most specific first."""
        yield from self._exact.get(host, ())
        if self._under:
            dot = host.find(b".", 1)
            while dot >= 0:
                yield from self._under.get(host[dot:], ())
                dot = host.find(b".", dot + 1)
        yield from self._everything

    def add(self, host: VirtualHost) -> Generator[None, None, None]:
        """Add the next one. For :func:`compile_virtual_hosts`."""
        self.all.append(host)
        for number, name in enumerate(dict.fromkeys([name.lower() for name in host.spec.hosts]), 1):
            key = name.encode()
            if name == "*":
                there = self._everything
            elif name.startswith("*"):
                there = self._under.setdefault(key[1:], [])
            else:
                there = self._exact.setdefault(key, [])
            by = next((each for each in there if _same_kind(each.spec, host.spec)), None)
            if by is not None:
                self.shadowed.append(Shadowed(name, host.title, by.title))
            there.append(host)
            if not number % _HOSTS_PER_STEP:
                yield


def _same_kind(one: VirtualServiceSpec, other: VirtualServiceSpec) -> bool:
    return bool((one.http and other.http) or (one.tcp and other.tcp) or (one.tls and other.tls))


def compile_virtual_hosts(
    specs: Sequence[VirtualServiceSpec], namespace: str, labels: Sequence[Labels], *, few: int = FEW
) -> Generator[None, None, VirtualHosts]:
    """Compile all VirtualServices of a proxy, which come in the order in which they count; yield after every few
    matches. ``namespace`` and ``labels`` as for :func:`sidecar.policy.http_routes.compile_virtual_host`."""
    hosts = VirtualHosts()
    for spec in specs:
        host = yield from compile_virtual_host(spec, namespace, labels, few=few)
        yield from hosts.add(host)
        yield
    return hosts


EMPTY: Final = VirtualHosts()
"""The one without VirtualServices."""
