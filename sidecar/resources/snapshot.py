"""The Snapshot: all that the proxy obeys, as one immutable value, and the tables by which a request finds its part.

Who calls it: ``resources.compile`` makes it; the data plane reads one per request (``feed.snapshot_holder``) and passes
it down. It is never changed: whatever is new comes as another Snapshot, whole or not at all.

Every look-up is one or two in a dict, made when the Snapshot was: ten thousand services cost a request what ten do. A
name that means nothing here means nothing at all; whether that is let through or refused is for the caller to decide.

The rule on modes stands in :func:`effective`, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from certs.spiffe import SpiffeId
from sidecar.addresses import Address, parse_ip
from sidecar.resources.protocols import Protocol, of_one_port
from sidecar.resources.sni import Sni

if TYPE_CHECKING:  # a proxy without documents does not load these
    from sidecar.resources.authorization import PolicySpec
    from sidecar.resources.destination_rule import BackendTrafficPolicySpec, DestinationRuleSpec
    from sidecar.resources.rate_limits import LimitPolicySpec
    from sidecar.resources.virtual_service import VirtualServiceSpec

# 1.1: of an endpoint ``alsoAt`` and ``unwell``; 1.2: ``authorization``; 1.3: ``rateLimits``; 1.4: ``virtualServices``,
# ``destinationRules``, ``backendTrafficPolicies``
SCHEMA: Final = "1.4"

ANSWERED: Final = 8  # endpoints whose addresses stand for a service that has none; a connection to one goes to any

Reach = Literal["captured", "direct"]
Source = Literal["none", "file", "control", "last good"]
Resolution = Literal["NONE", "STATIC", "DNS"]
Policy = Literal["ALLOW_ANY", "REGISTRY_ONLY"]


class Mode(StrEnum):
    """What a port takes from its callers. The words are those of PeerAuthentication."""

    STRICT = "STRICT"  # mutual TLS, and nothing else
    PERMISSIVE = "PERMISSIVE"  # mutual TLS or plaintext
    DISABLE = "DISABLE"  # all goes on as it came


_LOOSENESS: Final = {Mode.STRICT: 0, Mode.PERMISSIVE: 1, Mode.DISABLE: 2}


def effective(told: Mode | None, document: Mode | None) -> Mode:
    """The mode of a port, from what ``--mtls`` said (None: nothing) and what a document says of it (None: nothing).

    Where only one speaks it is obeyed; where both do, the stricter one: a document may tighten what the command line
    says, and never loosens it, ``--mtls strict`` least of all. Where nobody does: STRICT.
    """
    said = [mode for mode in (told, document) if mode is not None]
    return min(said, key=_LOOSENESS.__getitem__, default=Mode.STRICT)


class Node(msgspec.Struct, frozen=True):
    """Whom a Snapshot is made for. ``service`` is empty where the app belongs to none; ``mtls`` is what the command
    line said, None where it said nothing."""

    namespace: str = "default"
    service: str = ""
    service_account: str = "default"
    mtls: Mode | None = None


class Version(msgspec.Struct, frozen=True, order=True):
    """Of two Snapshots of one epoch the one with the higher ``n`` is newer. A file's epoch is 0."""

    epoch: int = 0
    n: int = 0

    def __str__(self) -> str:
        return f"{self.epoch}.{self.n}"


class Endpoint(msgspec.Struct, frozen=True, gc=False):
    """Where a service port is dialed.

    ``captured``: the app's own address and port, which the peer's rules lead to its sidecar. ``direct``: the peer's
    inbound listener itself, which needs the SNI to know which port is meant. ``address`` is an IP address in canonical
    form, ``others`` are further ones of the same endpoint, of either family; labels serve subsets only. ``weight``, 1
    or more, is its share of calls beside those of the others.
    """

    address: str
    port: int
    mode: Reach = "captured"
    labels: tuple[tuple[str, str], ...] = ()
    others: tuple[str, ...] = ()
    weight: int = 1

    def __str__(self) -> str:
        return str(Address(self.address, self.port))

    @property
    def addresses(self) -> tuple[str, ...]:
        """All of them, in the order in which they are dialed."""
        return (self.address, *self.others)

    @property
    def place(self) -> Endpoint:
        """Where it is alone: what identifies it while its labels and its weight change."""
        if not self.labels and self.weight == 1:
            return self
        return Endpoint(self.address, self.port, self.mode, (), self.others)


class ServicePort(msgspec.Struct, frozen=True, gc=False):
    """A port of a service: what is spoken there, where it is dialed, and who may answer. ``identities`` are never
    empty (there is no ServicePort that has none), and come from the service's own definition. ``sni`` is the server
    name of a connection to it, without a subset; it is different for each service port, so it can stand for it as a
    key."""

    service: str
    namespace: str
    port: int
    name: str  # may be empty
    protocol: Protocol
    endpoints: tuple[Endpoint, ...]
    identities: frozenset[SpiffeId]
    trust_domain: str
    target: int = 0  # the app's own port, where an endpoint names no other
    sni: bytes = b""  # made from the others, once

    def __post_init__(self) -> None:
        if not self.identities:
            raise ValueError("a service port that anybody may serve")
        msgspec.structs.force_setattr(self, "sni", sni(self))

    @property
    def host(self) -> str:
        """The full name of its service."""
        return f"{self.service}.{self.namespace}.svc.{self.trust_domain}"

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def sni(target: ServicePort, subset: str = "") -> bytes:
    """The server name of a connection to this port, which the peer's ``direct`` mode is told the port by."""
    return bytes(Sni(target.port, subset, target.service, target.namespace, target.trust_domain))


class Service(msgspec.Struct, frozen=True, gc=False):
    """A service, its ports by number, and the virtual addresses that stand for it (in canonical form)."""

    name: str
    namespace: str
    ports: Mapping[int, ServicePort]
    identities: frozenset[SpiffeId]
    addresses: tuple[str, ...] = ()


class EntryPort(msgspec.Struct, frozen=True, gc=False):
    """A port of a host without a sidecar, spoken to in plaintext by an operator's document. No service of the mesh is
    one, and none can be made from one: the two have nothing in common but a number.

    ``host`` is as written, ``*.`` in front takes every name below. ``places`` are where it is dialed: IP addresses, or
    names with DNS; empty with NONE, and with DNS where the name that was called is looked up. ``addresses`` stand for
    it. ``place_labels`` and ``place_weights`` are those of ``places``, in the same order; each is empty where none of
    them has labels, or a weight other than 1.
    """

    host: str
    port: int
    name: str
    protocol: Protocol
    resolution: Resolution
    target: int  # where the name that was called is dialed
    places: tuple[Address, ...] = ()
    addresses: tuple[str, ...] = ()
    namespace: str = ""  # of the service entry
    place_labels: tuple[tuple[tuple[str, str], ...], ...] = ()
    place_weights: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A service entry: one port of each number for each of its hosts."""

    name: str
    namespace: str
    ports: tuple[EntryPort, ...]


class Declared(msgspec.Struct, frozen=True, gc=False):
    """What documents say of a port of the app. ``protocol`` is None where they say nothing; ``mixed``: service ports of
    several protocols lead there."""

    protocol: Protocol | None = None
    mixed: bool = False


UNDECLARED: Final = Declared()


class Snapshot(msgspec.Struct, frozen=True, weakref=True):
    """What the proxy obeys. Made by ``resources.compile`` or ``resources.incremental_compile``; the tables at the end
    are its own.

    ``services`` is by (namespace, name); ``own`` the app's own service, if it is among them. ``modes`` are by the port
    that callers reach, and in force as they stand: what the command line said is in them. ``outbound_policy`` is what
    documents say of it; see ``policy.egress`` for what is in force. ``shared`` has the protocols of each place to
    which service ports of several lead. ``policies`` are all AuthorizationPolicies that apply to this proxy, those of
    the root namespace first, then by namespace and name; ``limits`` are all RateLimitPolicies, likewise.
    ``virtual_services``, ``destination_rules`` and ``backend_policies`` are in the order in which they count;
    ``routing`` is what the feed compiled of them.
    """

    source: Source = "none"
    version: Version = Version()
    me: Node = Node()
    trust_domain: str = "cluster.local"
    services: Mapping[tuple[str, str], Service] = {}
    default_mode: Mode = Mode.STRICT
    modes: Mapping[int, Mode] = {}
    targets: Mapping[tuple[str, int], ServicePort] = {}
    direct: Mapping[tuple[str, int], ServicePort] = {}
    entries: Mapping[tuple[str, str], Entry] = {}
    hosts: Mapping[bytes, Mapping[int, EntryPort]] = {}
    entry_targets: Mapping[tuple[str, int], EntryPort] = {}
    shared: Mapping[tuple[str, int], frozenset[Protocol]] = {}
    outbound_policy: Policy | None = None
    policies: tuple[PolicySpec, ...] = ()
    limits: tuple[LimitPolicySpec, ...] = ()
    rules: object = None  # what was compiled of the policies, by the feed; None: nothing yet
    virtual_services: tuple[VirtualServiceSpec, ...] = ()
    destination_rules: tuple[DestinationRuleSpec, ...] = ()
    backend_policies: tuple[BackendTrafficPolicySpec, ...] = ()
    labels: tuple[Mapping[str, str], ...] = ()  # of the app's services, for the sourceLabels of routes
    routing: object = None  # likewise, of the documents of traffic
    schema: str = SCHEMA

    @property
    def own(self) -> Service | None:
        """The app's own service, where it has one that is defined here."""
        return self.services.get((self.me.namespace, self.me.service))

    @property
    def has_traffic_rules(self) -> bool:
        """Whether documents say how calls are routed, or how destinations are called."""
        return bool(self.virtual_services or self.destination_rules or self.backend_policies)

    def by_name(self, host: bytes | str) -> Service | None:
        """The service of this name: its bare name (for callers of its own namespace), ``name.namespace``, that with
        ``.svc``, or that with ``.svc.<trust-domain>``; in any case, with or without a dot at the end."""
        return self._named(_key(host))

    def by_authority(self, host: bytes | str, port: int) -> ServicePort | None:
        """The service port that an authority names. ``host`` is a name as ``by_name`` takes it, or an IP address in any
        spelling, without brackets, which is looked up as ``by_address`` does."""
        key = _key(host)
        service = self._named(key)
        if service is not None:
            return service.ports.get(port)
        if key[:1].isdigit() or b":" in key:  # no name of a service looks like an address
            address = parse_ip(key.decode("ascii", "replace"))
            return None if address is None else self.targets.get((str(address), port))
        return None

    def by_address(self, address: str, port: int) -> ServicePort | None:
        """The service port whose virtual address this is, or one of whose endpoints, where that is ``captured``.
        ``address`` is in canonical form, as the kernel's own are."""
        return self.targets.get((address, port))

    def of_mesh(self, address: str, port: int) -> ServicePort | None:
        """The service port that is behind this address and port, in whatever mode, also where the endpoint is unwell:
        nothing speaks plaintext there."""
        return self.targets.get((address, port)) or self.direct.get((address, port))

    def declared(self, address: str, port: int, *, direct: bool = False) -> Declared:
        """Return what the documents say that the app speaks at this address and port.

        ``address`` and ``port`` are the app's own where connections are captured. Where they are ``direct`` they are
        the inbound listener's, and all ports of the app's own service lead to it, at whatever address it is reached.
        Several service ports may lead to one port of the app; see ``protocols.of_one_port``.
        """
        place = address, port
        known = self.targets.get(place) or self.direct.get(place)
        found = set[Protocol]() if known is None else set(self.shared.get(place, {known.protocol}))
        if self.own is not None:
            ports = self.own.ports.values()
            found.update(each.protocol for each in ports if direct or each.target == port)
        if not found:
            return UNDECLARED
        return Declared(of_one_port(found), len(found) > 1)

    def entry_by_authority(self, host: bytes | str, port: int) -> EntryPort | None:
        """The port of a service entry that an authority names, by the most exact of its hosts that has this port, or by
        an address that stands for it. Whoever asks has asked for a service first."""
        key = _key(host)
        if not self.hosts:
            return None
        if key[:1].isdigit() or b":" in key:
            address = parse_ip(key.decode("ascii", "replace"))
            if address is not None:
                return self.entry_targets.get((str(address), port))
        found = self.hosts.get(key, {}).get(port)
        below = key
        while found is None and b"." in below:
            below = below.partition(b".")[2]
            found = self.hosts.get(b"*." + below, {}).get(port)
        return found

    def entry_by_address(self, address: str, port: int) -> EntryPort | None:
        """The port of a service entry for which this address was written down. Likewise."""
        return self.entry_targets.get((address, port))

    def addresses_of(self, host: str) -> tuple[str, ...] | None:
        """What a look-up of this name is answered with; None where others have to be asked.

        A service has its own addresses, or some of its ``captured`` endpoints': all of them lead to it. Where there are
        only ``direct`` ones there is nothing to answer with, and nobody else is asked: who connected to such an address
        would reach a sidecar's own port, and what somebody else answers is not the service.
        """
        service = self.by_name(host)
        if service is not None:
            return service.addresses or _captured(service)
        if not self.hosts:
            return None
        below, found = _key(host), self.hosts.get(_key(host))
        while found is None and b"." in below:
            below = below.partition(b".")[2]
            found = self.hosts.get(b"*." + below)
        return tuple(dict.fromkeys(each for port in (found or {}).values() for each in port.addresses)) or None

    def mode_for(self, port: int) -> Mode:
        """What callers of this port of the app have to bring; the port is the one that is dialed."""
        return self.modes.get(port, self.default_mode)

    def _named(self, key: bytes) -> Service | None:
        name, *rest = key.decode("ascii", "replace").split(".", 3)  # no label has a dot, but a trust domain may
        if rest[1:] not in ([], ["svc"], ["svc", self.trust_domain]):
            return None
        return self.services.get((rest[0] if rest else self.me.namespace, name))


def _captured(service: Service) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for port in service.ports.values():
        for endpoint in port.endpoints:
            if len(found) == ANSWERED:
                break
            if endpoint.mode == "captured":
                found.update(dict.fromkeys(endpoint.addresses))
    return tuple(found)


def _key(host: bytes | str) -> bytes:
    if isinstance(host, str):
        host = host.encode("ascii", "replace")
    return host.removesuffix(b".").lower()


NOTHING: Final = Snapshot()
"""What is obeyed before anything was read: no service is known, and every port is STRICT."""
