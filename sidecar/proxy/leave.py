"""What the app may call at the moment: the policy that is in force, and whether anything is known at all.

Made by ``outbound``; ``services`` tells it of each new Snapshot, so that a request finds an answer that was worked out
before it came.
"""

from __future__ import annotations

from sidecar.policy.egress import Egress, effective
from sidecar.resources.snapshot import Snapshot


class Leave:
    """``told`` is what the command line says. Without a mesh, which has Snapshots, that is all there is."""

    __slots__ = ("_told", "configured", "egress")

    def __init__(self, told: Egress, snapshot: Snapshot | None) -> None:
        self._told = told
        self.egress = told  # another object where it says another thing
        self.configured = True
        if snapshot is not None:
            self.take(snapshot)

    def take(self, snapshot: Snapshot) -> None:
        """From now on this one."""
        egress = effective(self._told, snapshot.outbound_policy)
        if egress != self.egress:
            self.egress = egress
        self.configured = snapshot.source != "none"
