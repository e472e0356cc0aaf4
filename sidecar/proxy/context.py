"""What all connections of the process share: settings, telemetry, overload and drain.

Built once by ``app`` and passed down; nothing here is global.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import TYPE_CHECKING, Protocol

from sidecar.addresses import parse_ip
from sidecar.errors import ProxyError
from sidecar.http.timeouts import Timeouts
from sidecar.net.connection import Connection
from sidecar.net.graceful_drain import DrainState
from sidecar.net.listener import Listener
from sidecar.net.resolve import Resolver
from sidecar.net.splice_pipes import Pipes
from sidecar.policy.authorize import Asked, Rules, allow_all
from sidecar.policy.egress import OPEN, Egress
from sidecar.proxy.background import Background
from sidecar.proxy.deadlines import Deadlines
from sidecar.proxy.request_ids import RequestIds
from sidecar.resources.snapshot import NOTHING, Snapshot
from sidecar.telemetry.telemetry import Telemetry
from sidecar.tls.connection_security import Acceptor

if TYPE_CHECKING:  # a proxy without documents does not load what enforces them
    from sidecar.proxy.limit_enforcement import LimitsInForce
    from sidecar.upstream.mtls import Mesh

HALF_CLOSE_IDLE = 300.0  # seconds that one direction may be silent once the other has ended


class Overload(Protocol):
    """The memory limit (F11)."""

    keepalive: bool  # connections may be kept for further requests; then a further request may begin, too

    def admits(self, active: int) -> bool:
        """Return whether a further request or connection may begin while ``active`` are under way."""
        ...


class Snapshots(Protocol):
    """The source of the current Snapshot."""

    @property
    def snapshot(self) -> Snapshot: ...


class Running(Protocol):
    """A request or a connection in progress, which a changed policy may deny."""

    def asked(self) -> Asked:
        """Return what policies judge it by."""
        ...

    def cut(self, denied: ProxyError) -> None:
        """End it at once, for this reason."""
        ...


def _nothing() -> Snapshot:
    return NOTHING


@dataclass(frozen=True, slots=True)
class ProxyContext:
    """See the module's docstring. ``listeners`` is complete before the first connection is accepted."""

    timeouts: Timeouts
    connect_timeout: float
    pool_idle: float
    max_pool: int
    max_waiting: int
    trusted_proxies: Sequence[IPv4Network | IPv6Network]
    via: bool
    telemetry: Telemetry
    overload: Overload
    resolver: Resolver
    pipes: Pipes
    egress: Egress = OPEN
    keeps_request_ids: bool = True  # those that callers sent, if they are sane
    rules: Rules = allow_all  # applied before anything is dialed, in both directions
    acceptor: Acceptor | None = None  # only if the proxy has an identity
    mesh: Mesh | None = None  # likewise
    current: Callable[[], Snapshot] = _nothing  # returns the current Snapshot, whatever its source
    documents: Snapshots | None = None  # without a mesh: where documents alone are obeyed
    deadlines: Deadlines = field(default_factory=Deadlines)
    drain: DrainState = field(default_factory=DrainState)
    connections: set[Connection] = field(default_factory=set)
    judged_names: set[bytes] = field(default_factory=set)  # of fields that policies read, in lower case
    limits: LimitsInForce | None = None  # None: there can be none
    in_progress: dict[int, Running] = field(default_factory=dict)  # by the id of its record
    mirrors: Background = field(default_factory=Background)
    listeners: list[Listener] = field(default_factory=list)
    ids: RequestIds = field(default_factory=RequestIds)

    def trusts(self, host: str) -> bool:
        """Return whether ``host`` is trusted to report the callers before it."""
        address = parse_ip(host)
        return address is not None and any(address in network for network in self.trusted_proxies)
