"""What the calls of documents answer. Pure."""

from __future__ import annotations

import msgspec

from control.documents.changes import Outcome
from control.documents.parse import Problem
from control.documents.stored_document import Held, Stored
from control.schemas import moment
from sidecar.resources.kinds import Service


class DocumentShown(msgspec.Struct, frozen=True, omit_defaults=True):
    """A document, who wrote it and when. ``unreadable``: why this version can't read it, where that is so."""

    document: msgspec.Raw
    generation: int
    author: str
    time: str
    unreadable: str = ""


class GenerationShown(msgspec.Struct, frozen=True):
    """A generation of a document; ``document`` is null where that was its deletion."""

    document: msgspec.Raw
    generation: int
    author: str
    time: str


class DocumentList(msgspec.Struct, frozen=True, omit_defaults=True, rename={"more": "continue"}):
    """A page of documents, all as they were at ``version``. ``continue`` asks for the next one."""

    version: str
    items: list[DocumentShown]
    more: str = ""


class History(msgspec.Struct, frozen=True, omit_defaults=True, rename={"more": "continue"}):
    """A page of a document's generations, the newest first."""

    items: list[GenerationShown]
    more: str = ""


class Applied(msgspec.Struct, frozen=True):
    """What became of a document: ``created``, ``configured``, ``unchanged`` or ``deleted``."""

    kind: str
    namespace: str
    name: str
    result: str
    generation: int


class ApplyResult(msgspec.Struct, frozen=True, rename="camel"):
    """What became of each document, in the order in which they came; with ``dryRun`` what would have. ``notes``: what
    is odd about them."""

    version: str
    dry_run: bool
    results: list[Applied]
    notes: list[Problem]


class CheckResult(msgspec.Struct, frozen=True):
    """What is wrong with the documents together with all others; nothing where they would be taken. ``notes``: what is
    odd about them."""

    problems: list[Problem]
    notes: list[Problem]


class RollbackRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """POST /v1/resources:rollback."""

    kind: str
    namespace: str
    name: str
    generation: int


class ServiceRequest(Service, frozen=True):
    """PUT /v1/services/{namespace}/{name}: the spec of a Service, and its labels. What is left out is taken away."""

    labels: dict[str, str] = msgspec.field(default_factory=dict)


def shown(held: Held) -> DocumentShown:
    """A document that there is."""
    return DocumentShown(msgspec.Raw(held.raw), held.generation, held.author, moment(held.time), held.why)


def generation(stored: Stored) -> GenerationShown:
    """One that there was."""
    return GenerationShown(stored.document, stored.generation, stored.author, moment(stored.time))


def applied(outcome: Outcome) -> Applied:
    """What became of it."""
    return Applied(*outcome.key, outcome.result, outcome.generation)
