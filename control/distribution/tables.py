"""What distribution needs of the tables that it follows.

Who has them: ``control.documents.table`` and ``control.registry.endpoint_table``; a test may have others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from sidecar.resources.documents import Key
from sidecar.resources.mesh_documents import Mesh
from sidecar.resources.schema import EndpointSpec


class DocumentTable(Protocol):
    """The documents: see ``control.documents.table``."""

    @property
    def mesh(self) -> Mesh:
        """Of this moment."""

    @property
    def version(self) -> int:
        """The store's version that it has come to."""

    def follow(self, follower: Callable[[frozenset[Key], int], None], /) -> None:
        """Calls it after each batch."""


class EndpointTable(Protocol):
    """The registry: see ``control.registry.endpoint_table``."""

    version: int

    def live(self, namespace: str, name: str) -> Sequence[EndpointSpec]:
        """The endpoints that callers are told of, and which of them are unwell."""

    def virtual(self, namespace: str, name: str) -> tuple[str, ...]:
        """The addresses that stand for a service."""

    def follow(self, callback: Callable[[frozenset[tuple[str, str]], int], None], /) -> None:
        """Calls it after each batch."""
