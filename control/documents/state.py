"""All documents at one moment. Pure.

Who makes it: ``table``. What stands in one never changes: whoever holds one has the mesh of that moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from control.documents.stored_document import Held
from sidecar.resources.documents import Document, Key
from sidecar.resources.mesh_documents import Mesh


@dataclass(frozen=True, slots=True)
class State:
    """All documents at one version of the store. ``held`` has all of them, ``effective`` those that count: what can't
    be read is not among these, and what stands for it is."""

    version: int
    held: Mapping[Key, Held]
    effective: Mapping[Key, Document]
    mesh: Mesh
