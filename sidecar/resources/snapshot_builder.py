"""The tables of a Snapshot in the making, and what was found wrong on the way. Pure.

Who calls it: ``services`` and ``service_entries`` fill the tables, step by step; ``compile`` and
``incremental_compile`` make a Snapshot of them, which costs next to nothing then, since the tables are handed over as
they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from certs import spiffe
from certs.errors import IdentityError
from sidecar.addresses import parse_ip
from sidecar.resources.authorization import PolicySpec
from sidecar.resources.destination_rule import BackendTrafficPolicySpec, DestinationRuleSpec
from sidecar.resources.protocols import Protocol
from sidecar.resources.proxy_config import Policy
from sidecar.resources.rate_limits import LimitPolicySpec
from sidecar.resources.schema import MutualTls, PeerAuthenticationSpec
from sidecar.resources.snapshot import (
    SCHEMA,
    Entry,
    EntryPort,
    Mode,
    Node,
    Reach,
    Service,
    ServicePort,
    Snapshot,
    Source,
    Version,
    effective,
)
from sidecar.resources.sni import LABEL
from sidecar.resources.validation import Path, Problem, shown
from sidecar.resources.virtual_service import VirtualServiceSpec

MOST_PROBLEMS: Final = 1000  # that are remembered; nobody reads more
A_STEP: Final = 64  # endpoints that are looked at in one step: some 0.3 ms

_LABEL: Final = re.compile(LABEL, re.ASCII)
_OCTET: Final = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_PLAIN: Final = re.compile(rf"(?!0\.0\.0\.0$|22[4-9]\.|23[0-9]\.){_OCTET}(?:\.{_OCTET}){{3}}", re.ASCII)


class SnapshotBuilder:
    """``strict``: all was written by people, and what endpoints say has to hold together as well. Else endpoints
    registered themselves, one by one: what contradicts another one is left out, and refuses nothing."""

    def __init__(self, trust_domain: str, *, strict: bool) -> None:
        self.trust_domain = trust_domain
        self.strict = strict
        self.problems: dict[Problem, None] = {}  # an endpoint is looked at for each port of its service
        self.services: dict[tuple[str, str], Service] = {}
        self.targets: dict[tuple[str, int], ServicePort] = {}
        self.documented: set[tuple[str, int]] = set()  # of these, what a service's own addresses are
        self.since: dict[tuple[str, int], float] = {}  # of these, when the endpoint that they are came
        self.direct: dict[tuple[str, int], ServicePort] = {}
        self.reaches: dict[tuple[str, int], Reach] = {}
        self.entries: dict[tuple[str, str], Entry] = {}
        self.hosts: dict[bytes, dict[int, EntryPort]] = {}
        self.entry_targets: dict[tuple[str, int], EntryPort] = {}
        self.shared: dict[tuple[str, int], frozenset[Protocol]] = {}  # where service ports of several protocols lead

    def wrong(self, path: Path, why: str) -> None:
        """Keeps the problem."""
        if len(self.problems) < MOST_PROBLEMS:
            self.problems[Problem(path, why)] = None

    def check_head(self, schema: str) -> bool:
        """Whether the rest can be looked at: without a trust domain every identity would be wrong as well."""
        if schema.partition(".")[0] != SCHEMA.partition(".")[0]:
            self.wrong(("schema",), f"{shown(schema)} is not known; this sidecar reads {SCHEMA}")
        try:
            spiffe.check_trust_domain(self.trust_domain)
        except IdentityError as error:
            self.wrong(("trustDomain",), f"{shown(self.trust_domain)}: {error.detail}")
            return False
        return True

    def label(self, text: str, path: Path) -> bool:
        """Whether this can be the name of something; else it is wrong."""
        if _LABEL.fullmatch(text):
            return True
        self.wrong(path, f"{shown(text)} is not a DNS label (a-z, 0-9 and inner hyphens, at most 63)")
        return False

    def address(self, text: str, path: Path) -> str:
        """The address in canonical form; empty where it is none that can be dialed, which is wrong then."""
        if _PLAIN.fullmatch(text):
            return text  # nearly all are IPv4 in the only form that it has; ``ipaddress`` takes ten times as long
        found = parse_ip(text)
        if found is None:
            self.wrong(path, f"{shown(text)} is not an IP address; names are not supported yet")
        elif found.is_unspecified or found.is_multicast:
            self.wrong(path, f"{found} is nobody's address")
        else:
            return str(found)
        return ""

    def addresses(self, texts: list[str], path: Path) -> tuple[str, ...]:
        """Those that are addresses, each once."""
        seen: dict[str, None] = {}
        for index, text in enumerate(texts):
            address = self.address(text, (*path, index))
            if address in seen:
                self.wrong((*path, index), f"{address} stands here twice")
            elif address:
                seen[address] = None
        return tuple(seen)

    def share(self, place: tuple[str, int], known: ServicePort, port: ServicePort) -> None:
        """Note that ``port`` leads to a place to which ``known`` leads already."""
        if known.protocol != port.protocol:
            self.shared[place] = self.shared.get(place, frozenset()) | {known.protocol, port.protocol}

    def snapshot(
        self,
        me: Node,
        peer_authentication: PeerAuthenticationSpec,
        *,
        version: Version,
        source: Source,
        outbound_policy: Policy | None = None,
        policies: tuple[PolicySpec, ...] = (),
        limits: tuple[LimitPolicySpec, ...] = (),
        virtual_services: tuple[VirtualServiceSpec, ...] = (),
        destination_rules: tuple[DestinationRuleSpec, ...] = (),
        backend_policies: tuple[BackendTrafficPolicySpec, ...] = (),
        labels: tuple[Mapping[str, str], ...] = (),
    ) -> Snapshot:
        """What the work came to. The tables must not be changed any more."""
        default, modes = _modes(peer_authentication, me)
        return Snapshot(
            source=source,
            version=version,
            me=me,
            trust_domain=self.trust_domain,
            services=self.services,
            default_mode=default,
            modes=modes,
            targets=self.targets,
            direct=self.direct,
            entries=self.entries,
            hosts=self.hosts,
            entry_targets=self.entry_targets,
            shared=self.shared,
            outbound_policy=outbound_policy,
            policies=policies,
            limits=limits,
            virtual_services=virtual_services,
            destination_rules=destination_rules,
            backend_policies=backend_policies,
            labels=labels,
        )


def _modes(spec: PeerAuthenticationSpec, me: Node) -> tuple[Mode, dict[int, Mode]]:
    """The mode of every port, and of those that have one of their own."""
    default = _mode(spec.mtls)
    modes = {port: effective(me.mtls, _mode(each) or default) for port, each in spec.port_level_mtls.items()}
    return effective(me.mtls, default), modes


def _mode(mtls: MutualTls) -> Mode | None:
    return None if mtls.mode == "UNSET" else Mode(mtls.mode)
