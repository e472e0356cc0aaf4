"""What was written and "who am I" -> a Snapshot, or everything that does not hold together. Pure.

Who calls it: ``load``, with the whole of a mesh file. The work is that of ``services``; ``incremental_compile`` does it
piece by piece for what the control plane sends, and what documents amount to.
"""

from __future__ import annotations

from sidecar.resources.schema import MeshFile
from sidecar.resources.services import add_service
from sidecar.resources.snapshot import Node, Snapshot, Source, Version
from sidecar.resources.snapshot_builder import SnapshotBuilder
from sidecar.resources.validation import Problem


def compile_mesh(
    mesh: MeshFile, me: Node, *, version: Version, source: Source = "file"
) -> tuple[Snapshot | None, list[Problem]]:
    """The Snapshot for ``me``, or None and all that is wrong."""
    tables = SnapshotBuilder(mesh.trust_domain, strict=True)
    if tables.check_head(mesh.schema):
        for index, spec in enumerate(mesh.services):
            for _ in add_service(tables, spec, enumerate(spec.endpoints), ("services", index)):
                pass  # in one go: the caller has the time
    if tables.problems:
        return None, list(tables.problems)
    return tables.snapshot(me, mesh.peer_authentication, version=version, source=source), []
