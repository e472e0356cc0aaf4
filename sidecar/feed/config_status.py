"""What is shown of the configuration and of the registration: a part of ``/config_dump``, and their figures.

Who calls it: ``mesh_runtime``.
"""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING

from sidecar.feed.snapshot_holder import SnapshotHolder
from sidecar.telemetry.metric_snapshot import Gauges

if TYPE_CHECKING:
    from sidecar.feed.registration import Registration
    from sidecar.feed.snapshot_feed import SnapshotFeed

SOURCES = ("none", "file", "control", "last good")
STATES = ("waiting", "registered", "left")


def standing(
    current: SnapshotHolder, snapshots: SnapshotFeed | None, registration: Registration | None
) -> dict[str, object]:
    """As JSON: where the Snapshot is from, how old it is, what was refused; where this sidecar is registered."""
    refusal = current.refusal
    return {
        "source": current.snapshot.source,
        "version": str(current.snapshot.version),
        "age_seconds": round(time() - current.taken_at, 3) if current.taken_at else None,
        "accepted": current.accepted,
        "refused": current.refused,
        "last_refusal": None if refusal is None else {"at": refusal.at, "problems": list(refusal.problems)},
        "slices": None if snapshots is None else _slices(snapshots),
        "registration": None if registration is None else _registration(registration),
    }


def _slices(snapshots: SnapshotFeed) -> dict[str, object]:
    slices = snapshots.slices
    return {
        "count": slices.count,
        "longest_seconds": round(slices.longest, 6),
        "total_seconds": round(slices.total, 6),
        "last_snapshot_seconds": round(slices.applied, 6),
    }


def _registration(registration: Registration) -> dict[str, object]:
    place, health = registration.place, registration.health
    return {
        "state": registration.state,
        "service": f"{place.namespace}/{place.service}",
        "instance": place.instance,
        "mode": "captured" if place.captured else "direct",
        "address": registration.addresses[0] if registration.addresses else None,
        "addresses": list(registration.addresses),
        "refused_addresses": dict(registration.refused),
        "labels": dict(place.labels),
        "heartbeats": registration.beats,
        "health": None
        if health is None
        else {"healthy": health.standing.healthy, "detail": health.standing.detail or None},
    }


def add_mesh_gauges(
    gauges: Gauges, current: SnapshotHolder, snapshots: SnapshotFeed | None, registration: Registration | None
) -> None:
    """Gives the metrics of all that their readers."""
    gauges.add_labelled(
        "sidecar_snapshot_source", lambda: [((each,), float(current.snapshot.source == each)) for each in SOURCES]
    )
    gauges.add("sidecar_snapshot_version", lambda: float(current.snapshot.version.n))
    gauges.add("sidecar_snapshot_taken_timestamp_seconds", lambda: current.taken_at)
    gauges.add_labelled(
        "sidecar_snapshots",
        lambda: [(("accepted",), float(current.accepted)), (("refused",), float(current.refused))],
    )
    if snapshots is not None:
        slices = snapshots.slices
        gauges.add_peak("sidecar_snapshot_slice_max_seconds", lambda: slices.longest, slices.forget_longest)
        gauges.add("sidecar_snapshot_apply_cpu_seconds", lambda: slices.applied)
    if registration is not None:
        gauges.add_labelled(
            "sidecar_registration_state", lambda: [((each,), float(registration.state == each)) for each in STATES]
        )
        health = registration.health
        if health is not None:
            gauges.add("sidecar_app_healthy", lambda: float(health.standing.healthy is True))
