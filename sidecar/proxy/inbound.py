"""Inbound: connections from peers to the app beside this proxy.

One ``Inbound`` serves all connections of port 15006 for the one app that is configured. With --interception redirect,
one ``CapturedInbound`` serves each connection for its original port. ``docs/life-of-a-connection.md`` follows a
connection through the code.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import msgspec

from sidecar.addresses import Address, OriginalDst
from sidecar.errors import ProxyError, Reason
from sidecar.http import headers
from sidecar.http.first_bytes import Detected
from sidecar.http.message import Request
from sidecar.net.connection import Connection, ConnectionClosed
from sidecar.net.connection_pool import Lease, Limits, PoolUse, pool_use
from sidecar.net.local_addresses import every_outward_address
from sidecar.policy.authorize import Asked, Permit, allow_all, authorize_inbound
from sidecar.proxy.cluster_client import ClusterClient
from sidecar.proxy.connection_handler import serve_target
from sidecar.proxy.context import ProxyContext
from sidecar.proxy.header_sanitizer import HeaderSanitizer
from sidecar.proxy.original_destination import refuse
from sidecar.proxy.pipeline import RunningBytes, RunningRequest
from sidecar.proxy.policy_enforcement import InboundPolicies, remote_address
from sidecar.proxy.protocol_detection import Detection, ServerFirstCache
from sidecar.proxy.route import Route
from sidecar.resources.protocols import Protocol, protocol_in_force
from sidecar.resources.snapshot import Snapshot
from sidecar.telemetry.record import ConnectionInfo
from sidecar.tls.connection_security import AS_IT_CAME
from sidecar.upstream.bounded_table import MOST, BoundedTable
from sidecar.upstream.cluster import Cluster, Connect, Terms
from sidecar.upstream.plaintext import PlaintextConnector
from sidecar.upstream.pool_stats import PoolsShown

WAIT_SECONDS = 1.0  # for a connection to the app (F13)
_ALERTED = frozenset({Reason.HANDSHAKE_FAILED, Reason.PEER_REFUSED})


class Taken(msgspec.Struct, frozen=True, gc=False):
    """The protocol that a port of the app takes. ``mixed``: the documents declare another protocol to some of its
    callers, so the protocol that a caller announces is ignored here."""

    protocol: Protocol
    mixed: bool = False


class AppPort:
    """A ``Target``: one address and port of the app. ``told`` is the value of ``--protocol``. ``connect`` dials the
    port; it never refers to this object, so that a port that makes room is freed at once."""

    direction = "inbound"
    original = ""
    vouches = True
    by_server_name = False
    rejudged = True

    def __init__(
        self,
        address: Address,
        told: Protocol,
        context: ProxyContext,
        policies: InboundPolicies,
        connect: Connect[Address],
    ) -> None:
        self._policies = policies
        self.current = context.current
        self._open_permits: dict[str, Permit] = {}  # by principal, where no policy decides
        self.address = address
        self._told = told
        self._context = context
        self.sanitizer = HeaderSanitizer(context, appends_caller=True)
        self.trusts = context.trusts
        self.name = str(address)
        limits = Limits(context.max_pool, context.max_waiting, WAIT_SECONDS, context.pool_idle)
        terms = Terms(f"inbound|{address.port}||", self.name, limits, context.connect_timeout)
        self.app = Cluster(terms, connect, context.telemetry.counters, connect_opaque=connect, places=(address,))
        client = ClusterClient(self.app, None, self.name, context.timeouts.stream_idle, counted=False)
        self._route = Route("app", self.app, client, None, address, self.name)
        self.users = 0  # captured connections that are open here, whether or not they have a request in progress

    @property
    def at_rest(self) -> bool:
        """Whether the port is unused."""
        return not self.users and self.app.at_rest

    def close(self) -> None:
        """Close idle connections."""
        self.app.close()

    @property
    def protocol(self) -> Protocol:
        """See ``Target``."""
        return self.taken_at(self.address.host, self.address.port, direct=False).protocol

    def taken_at(self, host: str, port: int, *, direct: bool) -> Taken:
        """Return what is accepted on connections to this endpoint of the app; ``direct``: it is our listener's."""
        mesh, told = self._context.mesh, self._told
        if mesh is None:
            return Taken(told)
        declared = mesh.snapshot.declared(host, port, direct=direct)
        protocol = protocol_in_force(told, declared.protocol)
        return Taken(protocol, declared.mixed or declared.protocol not in (None, "auto", protocol))

    @property
    def server_first_cache(self) -> ServerFirstCache:
        """See ``Target``."""
        return self.app

    def route(self, snapshot: Snapshot, request: Request) -> Route:
        """See ``Routing``."""
        if request.method == b"CONNECT":
            raise ProxyError(Reason.METHOD_REFUSED, "CONNECT is for the outbound proxy; nothing is tunnelled inbound")
        return self._route

    async def authorize(self, snapshot: Snapshot, route: Route, wanted: RunningRequest) -> Permit:
        """See ``Routing``."""
        rules = self._policies.rules(snapshot)
        if rules is not allow_all:
            return authorize_inbound(rules, self.asked(wanted))
        permit = self._open_permits.get(wanted.info.principal)
        if permit is None:
            permit = authorize_inbound(rules, self.asked(wanted))
            if len(self._open_permits) < MOST:
                self._open_permits[wanted.info.principal] = permit
        return permit

    def asked(self, wanted: RunningRequest) -> Asked:
        """See ``Routing``."""
        request, info = wanted.request, wanted.info
        forwarded = request.known.get(headers.FORWARDED_FOR)
        return Asked(
            "inbound",
            info.principal,
            info.client,
            self.app.name,
            "HTTP",
            request.method,
            request.sent if request.sent.startswith(b"/") else request.target,
            request.authority,
            info.sni,
            info.client if forwarded is None else remote_address(info.client, forwarded, self._context.trusts),
            info.place,
            [*wanted.fields, (b"upgrade", request.protocol)] if request.protocol else wanted.fields,
        )

    def route_bytes(self, snapshot: Snapshot, found: Detection) -> Route:
        """See ``BytesRouting``."""
        return self._route

    async def authorize_bytes(self, snapshot: Snapshot, route: Route, wanted: RunningBytes) -> Permit:
        """See ``BytesRouting``."""
        return authorize_inbound(self._policies.rules(snapshot), self.asked_of_bytes(wanted))

    def asked_of_bytes(self, wanted: RunningBytes) -> Asked:
        """See ``BytesRouting``."""
        return self._asked_of_connection(
            wanted.info, "TLS" if wanted.found.kind is Detected.TLS else "TCP", wanted.found.sni
        )

    def _asked_of_connection(self, info: ConnectionInfo, protocol: str, sni: bytes = b"") -> Asked:
        return Asked(
            "inbound",
            info.principal,
            info.client,
            self.app.name,
            protocol,
            sni=sni,
            remote=info.client,
            place=info.place,
        )

    def reached(self, connection: Connection) -> tuple[str, int]:
        """See ``Target``."""
        if self.original:
            return self.address.host, self.address.port
        return connection.sock.getsockname()[0], self.address.port

    async def dial_early(self, info: ConnectionInfo) -> Lease:
        """See ``Target``."""
        permit = authorize_inbound(self._policies.rules(self.current()), self._asked_of_connection(info, "TCP"))
        return await self.app.lease(permit, opaque=True, at_once=True)


class CapturedPort(AppPort):
    """A port of the app that is the original destination of captured connections, at an address of this pod.

    The proxy dials that very address, never loopback: a port that the app bound to loopback only is private. The rules
    let the connection through because of its source address.
    """

    def __init__(
        self,
        address: OriginalDst,
        told: Protocol,
        context: ProxyContext,
        policies: InboundPolicies,
        listens: Callable[[Address], None],
    ) -> None:
        plaintext = _connector(context)

        async def connect(place: Address, seconds: float) -> Connection:
            connection = await plaintext.connect_captured_app(place, seconds)
            listens(address)  # the app accepted there
            return connection

        super().__init__(address, told, context, policies, connect)
        self.original = str(address)


class Inbound:
    """The server of connections for the app at ``upstream``; ``protocol`` is the value of ``--protocol``."""

    def __init__(self, upstream: Address, protocol: Protocol, context: ProxyContext) -> None:
        self._context = context
        self.policies = InboundPolicies(context)
        self._app = AppPort(upstream, protocol, context, self.policies, _connector(context).connect_app)

    async def serve(self, connection: Connection, host: str) -> None:
        """Serve one connection from ``host`` until it ends, and close it."""
        try:
            # Documents declare a port by the endpoint that callers dial, which is this listener.
            host_port = ("", 0) if self._context.mesh is None else connection.sock.getsockname()[:2]
            await _serve_at(connection, host, self._app, self._context, self._app.taken_at(*host_port, direct=True))
        finally:
            connection.close()

    def port_for(self, port: int) -> AppPort:
        """Return the app, whatever ``port`` is."""
        return self._app

    def sweep(self, now: float) -> None:
        """Close connections that have been idle for too long, and those that policies no longer allow."""
        self.policies.sweep(self._app.current())
        self._app.app.sweep(now)

    def close(self) -> None:
        """Close idle connections."""
        self._app.close()

    def pools(self) -> dict[str, PoolsShown]:
        """Return its pools, by a name for people."""
        return named_pools([self._app])

    def uses(self) -> dict[str, PoolUse]:
        """Return how its pools are used, by name."""
        return pool_uses([self._app], self._context.max_pool)


class CapturedInbound:
    """The server of captured connections, each for the port of the app that is its original destination. ``protocol``
    is the value of ``--protocol``."""

    def __init__(self, protocol: Protocol, context: ProxyContext) -> None:
        self._context = context
        self._protocol = protocol
        self.policies = InboundPolicies(context)
        self._ports: BoundedTable[OriginalDst, CapturedPort] = BoundedTable(
            lambda address: CapturedPort(address, protocol, context, self.policies, self._note_listens)
        )
        self._reached: set[Address] = set()  # stays when a port makes room, as happens when a caller tries all ports

    def knows(self, original: OriginalDst) -> bool:
        """Return whether connections to ``original`` have been served before."""
        return self._ports.get(original) is not None

    async def serve_captured(self, connection: Connection, host: str, original: OriginalDst) -> None:
        """Serve one connection from ``host`` that was redirected here on its way to ``original``, an address of this
        pod, and close it."""
        port = self._ports.find(original)
        port.users += 1
        try:
            await _serve_at(
                connection, host, port, self._context, port.taken_at(original.host, original.port, direct=False)
            )
        finally:
            port.users -= 1
            connection.close()

    @property
    def app_was_seen(self) -> bool:
        """Whether the app has accepted a connection at a captured port."""
        return bool(self._reached)

    async def app_is_gone(self) -> bool:
        """Return whether the app no longer listens at any port where it accepted a connection before."""
        for address in tuple(self._reached):
            try:
                (await _connector(self._context).connect_captured_app(address, self._context.connect_timeout)).close()
            except ProxyError as error:
                if error.reason is Reason.CONNECT_FAILED:
                    continue  # any other failure, such as a slow accept, does not mean that the app has gone
            return False
        return True

    def _note_listens(self, address: Address) -> None:
        if len(self._reached) < MOST:
            self._reached.add(address)

    def port_for(self, port: int) -> AppPort:
        """Return that port of the app, at an address of this pod. A new one is not remembered."""
        host = next(iter(every_outward_address()), "127.0.0.1")
        address = OriginalDst(host, port)
        return self._ports.get(address) or CapturedPort(
            address, self._protocol, self._context, self.policies, self._note_listens
        )

    def sweep(self, now: float) -> None:
        """Close connections that have been idle for too long, and those that policies no longer allow."""
        self.policies.sweep(current(self._context))
        for port in self._ports.values():
            port.app.sweep(now)

    def close(self) -> None:
        """Close idle connections."""
        for port in self._ports.values():
            port.close()

    def pools(self) -> dict[str, PoolsShown]:
        """Return the pools of all ports, by a name for people."""
        return named_pools(self._ports.values())

    def uses(self) -> dict[str, PoolUse]:
        """Return how the pools of all ports are used together, by name."""
        return pool_uses(self._ports.values(), self._context.max_pool)


async def _serve_at(connection: Connection, host: str, port: AppPort, context: ProxyContext, taken: Taken) -> None:
    """Serve a connection for ``port``, which takes ``taken``, through the acceptor if there is one."""
    acceptor, protocol = context.acceptor, taken.protocol
    limits = context.limits
    if acceptor is None and limits is None:
        await serve_target(connection, host, port, context, protocol=protocol)
        return
    release = _nothing
    try:
        begins = True
        while begins:  # repeats only for a client that began its handshake after a silence
            security = AS_IT_CAME
            if acceptor is not None:
                connection, security = await acceptor.accept(connection, host, port.address.port)
            if security.inside == "tcp" and taken.mixed:
                # The documents may declare this port as tcp to the caller: ignore what it announces.
                security = msgspec.structs.replace(security, inside="auto")
            if limits is not None:
                release()
                release = limits.admit(connection, "inbound", host, security.principal)
            begins = await serve_target(connection, host, port, context, security, protocol)
    except ProxyError as refused:
        if refused.reason in _ALERTED:
            await connection.close_after_reply()  # a reset would destroy the alert that reports the error
        refuse(connection, "inbound", refused, port.original, context)
    except ConnectionClosed:
        context.telemetry.counters.detect_nothing += 1
    finally:
        release()
        connection.close()  # after a handshake, this is not the caller's connection


def _nothing() -> None:
    pass


def current(context: ProxyContext) -> Snapshot:
    """Return the Snapshot of this moment."""
    return context.current()


def _connector(context: ProxyContext) -> PlaintextConnector:
    return PlaintextConnector(context.resolver, context.listeners, context.connections, None)


def named_pools(ports: Collection[AppPort]) -> dict[str, PoolsShown]:
    """Return the pools of these ports, by a name for people."""
    pools = {f"inbound|http|{port.address}": port.app.shown() for port in ports}
    return pools | {f"inbound|opaque|{port.address}": port.app.shown(opaque=True) for port in ports}


def pool_uses(ports: Collection[AppPort], limit: int) -> dict[str, PoolUse]:
    """Return how the pools of these ports are used together, each of which has ``limit``."""
    return {
        "inbound": pool_use([pool for port in ports for pool in port.app.pools], limit),
        "inbound_opaque": pool_use([pool for port in ports for pool in port.app.opaque_pools], limit),
    }
