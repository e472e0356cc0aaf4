"""The proxy as a member of a mesh: its identity, the TLS acceptor of inbound, whom outbound knows, and what feeds them.
Part of the composition root.

Called by ``app`` where ``--control`` or ``--mesh`` say that there is a mesh; nothing else imports it, since it imports
OpenSSL. Without an identity nothing of the mesh is reached and, where a certificate is asked for, nobody is served:
whatever can't be decided is denied.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import trio

from sidecar.errors import ProxyError
from sidecar.feed.config_status import add_mesh_gauges, standing
from sidecar.feed.identity_status import add_gauges, certificates
from sidecar.feed.snapshot_feed import SnapshotFeed
from sidecar.feed.snapshot_holder import SnapshotHolder
from sidecar.feed.wiring import control_caller, identity_feed, instance_of, registration_of, snapshot_feed
from sidecar.identity import Identity
from sidecar.net.connection import Connection
from sidecar.os_limits import keep_memory_private
from sidecar.resources.app_ports import port_lines
from sidecar.resources.snapshot import Snapshot, effective
from sidecar.resources.sni import parse_sni
from sidecar.settings import Settings
from sidecar.telemetry.metric_snapshot import Gauges
from sidecar.tls.acceptor import TlsAcceptor
from sidecar.upstream.mtls import MtlsConnector

if TYPE_CHECKING:
    from sidecar.feed.file_watcher import FileWatcher

_log = logging.getLogger(__name__)
RECHECK_SECONDS = 1.0  # how often open connections are held against the clock


class MeshRuntime:
    """``connections`` are all connections of the process. Raises StartError: ``--mesh`` or ``--config`` that can't be
    read, ``--identity-dir`` or ``--state-dir`` that can't be used."""

    def __init__(self, settings: Settings, connections: set[Connection]) -> None:
        self._mtls = settings.me.mtls
        self.identity = Identity(connections)
        self.caller = control_caller(settings, self.identity, connections)
        self.feed = identity_feed(settings, self.identity, self.caller)
        self.current = SnapshotHolder()
        self._told = settings.protocol
        self._captured = settings.interception == "redirect"
        self._port_lines: list[str] = []
        self.current.follow(self._log_ports)
        self._files = _files(settings, self.current)
        self.feed.take_kept()
        instance = instance_of(settings)
        self.snapshots: SnapshotFeed | None = None
        if self._files is not None:
            self._files.start()
        else:
            self.snapshots = snapshot_feed(settings, self.caller, self.current, instance)
        self.taken_out: Callable[[], str] = str  # why new work is not welcome here, in a word
        self.registration = registration_of(settings, self.caller, instance, connections, lambda: self.taken_out())
        # Captured connections come by their original destination: there the server name is only recorded.
        self.acceptor = TlsAcceptor(self.identity, self._mode_of, None if self._captured else self._leads_here)
        self.connector = MtlsConnector(self.identity, self.acceptor, connections)

    @property
    def snapshot(self) -> Snapshot:
        """See ``upstream.mtls.Mesh``."""
        return self.current.snapshot

    def addresses_of(self, name: str) -> Sequence[str] | None:
        """What a look-up of this name is answered with; None for one that the mesh does not know."""
        return self.current.snapshot.addresses_of(name)

    @property
    def problem(self) -> str:
        """Why this proxy is not ready, as far as its identity goes; empty where it is."""
        try:
            self.identity.require()
        except ProxyError as missing:
            why = f"; the control plane refuses this proxy: {self.caller.refused}" if self.caller.refused else ""
            return f"no certificate: {missing.detail}{why}"
        return ""

    @property
    def unconfigured(self) -> str:
        """Why this proxy is not ready, as far as what it is to obey goes; empty where it is."""
        if self.current.snapshot.source != "none":
            return ""
        refusal = self.current.refusal
        why = f"{refusal.problems[0]}" if refusal is not None else self.caller.last_error or "none has come yet"
        return f"no configuration: {why}"

    @property
    def certificates(self) -> dict[str, object]:
        """What ``/certs`` shows; no key."""
        return certificates(self.identity, self.feed, self.caller, self.acceptor)

    def add_gauges(self, gauges: Gauges) -> None:
        """Gives the metrics of the identity their readers."""
        add_gauges(gauges, self.identity, self.feed, self.caller)
        add_mesh_gauges(gauges, self.current, self.snapshots, self.registration)

    @property
    def shown(self) -> dict[str, object]:
        """What ``/config_dump`` shows beside the Snapshot itself."""
        return standing(self.current, self.snapshots, self.registration)

    def open(self, port: int) -> None:
        """The listeners are open, inbound at this port."""
        if self.registration is not None:
            self.registration.open(port)

    def change(self) -> None:
        """What ``taken_out`` says may be another."""
        if self.registration is not None:
            self.registration.change()

    async def leave(self) -> None:
        """The process ends: it is taken out of its service, within a bound."""
        if self.registration is not None:
            await self.registration.leave()

    async def run(self) -> None:
        """Feeds and looks after all of it, until it is cancelled."""
        keep_memory_private()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._look_after)
                nursery.start_soon(self.feed.run)
                if self._files is not None:
                    nursery.start_soon(self._files.watch)
                if self.snapshots is not None:
                    nursery.start_soon(self.snapshots.run)
                if self.registration is not None:
                    nursery.start_soon(self.registration.run)
                    if self.registration.health is not None:
                        nursery.start_soon(self.registration.health.run)
        finally:
            self.caller.close()

    async def _look_after(self) -> None:
        """Ends connections whose time is over."""
        while True:
            await trio.sleep(RECHECK_SECONDS)
            self.identity.recheck()

    def _log_ports(self, snapshot: Snapshot) -> None:
        lines = port_lines(snapshot, self._told, captured=self._captured)
        for line in lines:
            if line not in self._port_lines:
                _log.info("%s", line)
        self._port_lines = lines

    def _mode_of(self, port: int) -> str:
        snapshot = self.current.snapshot
        return effective(self._mtls, None) if snapshot.source == "none" else snapshot.mode_for(port)

    def _leads_here(self, name: bytes) -> bool:
        """Whether the server name is of a service port that this workload may serve."""
        wanted, ours = parse_sni(name), self.identity.spiffe_id
        if wanted is None or ours is None:
            return False
        service = self.current.snapshot.services.get((wanted.namespace, wanted.service))
        return service is not None and ours in service.identities and wanted.port in service.ports


def _files(settings: Settings, current: SnapshotHolder) -> FileWatcher | None:
    """What says by files what the mesh is, where there is any."""
    if settings.config:
        from sidecar.feed.config_files import ConfigFiles  # not before: most read no files

        return ConfigFiles(settings.config, settings.me, settings.trust_domain, current)
    if settings.mesh:
        from sidecar.feed.mesh_file import MeshFile

        return MeshFile(settings.mesh, settings.me, current)
    return None
