"""The proxy as a member of a mesh: its identity, the gate of inbound, whom outbound knows, and what feeds them. Part of
the composition root.

Called by ``app`` where ``--control`` or ``--mesh`` say that there is a mesh; nothing else imports it, since it imports
OpenSSL. Without an identity nothing of the mesh is reached and, where a certificate is asked for, nobody is served:
whatever can't be decided is denied.
"""

from __future__ import annotations

import trio

from sidecar.errors import ProxyError
from sidecar.feed.current import Current
from sidecar.identity import Identity
from sidecar.net.channel import Channel
from sidecar.proxy.gate import Gate
from sidecar.proxy.mesh import Secure
from sidecar.resources.snapshot import Mode, Snapshot, effective
from sidecar.resources.sni import parse_sni

RECHECK_SECONDS = 1.0  # how often open connections are held against the clock


class Membership:
    """``mtls`` is what the command line said of the mode, None where it said nothing; ``captured``: connections come
    by their original destination, and the server name is only recorded."""

    def __init__(
        self,
        channels: set[Channel],
        current: Current,
        *,
        mtls: Mode | None,
        captured: bool,
        connect_timeout: float,
    ) -> None:
        self.identity = Identity(channels)
        self.current = current
        self.gate = Gate(self.identity, self._mode_of, None if captured else self._leads_here)
        self.secure = Secure(self.identity, self.gate, connect_timeout, channels)
        self._mtls = mtls

    @property
    def snapshot(self) -> Snapshot:
        """See ``proxy.mesh.Mesh``."""
        return self.current.snapshot

    @property
    def problem(self) -> str:
        """Why this proxy is not ready, as far as its identity goes; empty where it is."""
        try:
            self.identity.require()
        except ProxyError as missing:
            return f"no certificate: {missing.detail}"
        return ""

    async def look_after(self) -> None:
        """Ends connections whose time is over. Runs until it is cancelled."""
        while True:
            await trio.sleep(RECHECK_SECONDS)
            self.identity.recheck()

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
