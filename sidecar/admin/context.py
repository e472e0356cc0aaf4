"""What the admin server shows and may do: handed to it by the composition root, once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from sidecar import __version__
from sidecar.addresses import Address
from sidecar.admin.tokens import Token
from sidecar.admin.totals import Latest
from sidecar.app_probe import Probe
from sidecar.errors import Reason
from sidecar.net.connection import Connection
from sidecar.settings import EffectiveOption
from sidecar.telemetry.memory import MemoryGuard
from sidecar.telemetry.record import Record
from sidecar.telemetry.telemetry import Telemetry
from sidecar.upstream.pool_stats import PoolsShown

if TYPE_CHECKING:
    from sidecar.config_runtime import ConfigRuntime
    from sidecar.mesh_runtime import MeshRuntime
    from sidecar.proxy.explain_request import Question

SEATS = 64  # connections per port: people and scrapers are few
STREAMS = 16  # of those of the admin port, how many may be streams: they keep their seat for as long as they like


class Lifecycle(Protocol):
    """Where the process stands: ``state`` is "pre_initializing", "live" or "draining"."""

    @property
    def state(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Listening:
    """A listener that is bound: its name ("inbound", "outbound", "admin", "scrape") and where. ``accepting``: False
    once it has been closed, by a drain."""

    name: str
    address: Address
    accepting: bool = True


class Health:
    """What somebody said of this process's health (``/healthcheck/fail``), whatever it is itself. ``changed`` is
    called after each word."""

    __slots__ = ("changed", "failed")

    def __init__(self) -> None:
        self.failed = False
        self.changed: Callable[[], None] = lambda: None

    def say(self, failed: bool) -> None:
        self.failed = failed
        self.changed()


class ConnectionSlots:
    """At most ``limit`` connections at once. One that has no request in hand gives way to a newcomer, the oldest first:
    else whoever opens connections and stays silent would keep out the probes, and have the process restarted."""

    __slots__ = ("_limit", "_waiting", "taken")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.taken = 0
        self._waiting: dict[Connection, None] = {}  # in order of arrival

    def take(self, connection: Connection) -> bool:
        """Whether there is a seat; who got one calls ``leave`` at its end."""
        if self.taken >= self._limit:
            if not self._waiting:
                return False
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            oldest.expire(Reason.TOO_MANY_CONNECTIONS)
        self.taken += 1
        self._waiting[connection] = None
        return True

    def begin(self, connection: Connection) -> None:
        """A request arrived: the seat is safe until ``wait``."""
        self._waiting.pop(connection, None)

    def wait(self, connection: Connection) -> None:
        """The request is done; the next one may come."""
        self._waiting[connection] = None

    def leave(self, connection: Connection) -> None:
        self._waiting.pop(connection, None)
        self.taken -= 1


@dataclass(frozen=True, slots=True)
class AdminContext:
    """Everything that a route may look at. ``started`` is on the monotonic clock; ``quit`` begins the drain and
    returns at once; ``listeners`` may still change after construction; ``connections`` are all open connections."""

    telemetry: Telemetry
    lifecycle: Lifecycle
    listeners: Sequence[Listening]
    quit: Callable[[], None]
    started: float
    memory: MemoryGuard
    connections: set[Connection]
    version: str = __version__
    admin_seats: ConnectionSlots = field(default_factory=lambda: ConnectionSlots(SEATS))
    scrape_seats: ConnectionSlots = field(default_factory=lambda: ConnectionSlots(SEATS))
    latest: Latest = field(default_factory=Latest)
    stop_accepting: Callable[[], None] = lambda: None  # closes the inbound listeners, losslessly
    clusters: Callable[[], Mapping[str, PoolsShown]] = dict  # by name
    in_force: Sequence[EffectiveOption] = ()
    probes: Sequence[Probe] = ()
    dry_runs: Callable[[], list[dict[str, object]]] = list  # what policies of dry runs would have decided
    routes: Callable[[], list[dict[str, object]]] = list  # rules of VirtualServices, and what they routed
    routed: Callable[[Record], dict[str, object]] = lambda _: {}  # which rule of a VirtualService it followed
    outbound: Callable[[Question], dict[str, object]] = lambda _: {}  # what would become of a request of the app
    limits: Callable[[], list[dict[str, object]]] = list  # of requests and connections, and whom they hold back now
    authorized: Callable[[Record], dict[str, object]] = lambda _: {}  # what policies had to do with it
    hypothetical: Callable[[Question], dict[str, object]] | None = None  # what would become of a request
    drift: Callable[[], str] = str  # what is wrong with the rules that redirect connections here; empty: nothing
    mesh_runtime: MeshRuntime | None = None  # in a mesh
    config_runtime: ConfigRuntime | None = None  # where documents are obeyed without one
    token: Token = field(default_factory=Token)
    health: Health = field(default_factory=Health)
    streams: set[Connection] = field(default_factory=set)  # those of the admin port that carry a stream now
