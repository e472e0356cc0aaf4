"""What a proxy without a control plane obeys: the documents of ``--config``. Part of the composition root.

Called by ``app`` where there is ``--config`` and no ``--control``; ``mesh_runtime`` reads the files itself where there
is one. This proxy has no certificate and asks for none, so that no caller has an identity that was verified.
"""

from __future__ import annotations

import logging

from sidecar.feed.config_files import ConfigFiles
from sidecar.feed.config_status import add_mesh_gauges, standing
from sidecar.feed.snapshot_holder import SnapshotHolder
from sidecar.settings import Settings
from sidecar.telemetry.metric_snapshot import Gauges

_log = logging.getLogger(__name__)


class ConfigRuntime:
    """``current`` has the Snapshot in force. Raises StartError: documents that can't be read or obeyed. Blocks."""

    def __init__(self, settings: Settings) -> None:
        self.current = SnapshotHolder()
        self._files = ConfigFiles(
            settings.config, settings.me, settings.trust_domain, self.current, alone=settings.alone or {}
        )
        self._files.start()
        _log.info(
            "--config without --control: callers show no certificate, so their principals, namespaces and service "
            "accounts are unknown; a policy that asks for one denies"
        )

    @property
    def shown(self) -> dict[str, object]:
        """What ``/config_dump`` shows beside the Snapshot itself."""
        return standing(self.current, None, None)

    def add_gauges(self, gauges: Gauges) -> None:
        """Gives the metrics of the Snapshot their readers."""
        add_mesh_gauges(gauges, self.current, None, None)

    async def run(self) -> None:
        """Watches the files until cancelled."""
        await self._files.watch()
