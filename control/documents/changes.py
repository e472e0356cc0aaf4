"""What an apply amounts to: the changes of one write, or all that is wrong with it. Pure.

Who calls it: ``writer``, with a State and documents that are right by themselves. They must hold together with all
others (``sidecar.resources.conflicts``). Problems that were there before keep nobody from mending: only those that are
new refuse an apply. What changes nothing is no change: it makes no generation, so applying the same again is free.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal

import msgspec

from control.documents import placeholders, stored_document
from control.documents.parse import Problem, Wanted, bounded, title
from control.documents.state import State
from control.documents.stored_document import HISTORY, KEPT, KIND, Held, history_name, name_of
from control.problems import Invalid
from control.store import Change
from sidecar.resources.conflicts import Finding, problems_of
from sidecar.resources.documents import Document, Key
from sidecar.resources.lint import lint
from sidecar.resources.mesh_documents import Mesh
from sidecar.resources.validation import path_text

DOCUMENTS: Final = 20_000  # in all: ten times the services that the figures are for, and as much of other kinds
BYTES: Final = 64 << 20  # of all as JSON, which are kept in memory: 3 KiB for each of so many
DELETED: Final = "deleted"  # kind: Kind/namespace/name of what is gone, with its last generation
Result = Literal["created", "configured", "unchanged", "deleted"]


class Outcome(msgspec.Struct, frozen=True):
    """What became of one document."""

    key: Key
    result: Result
    generation: int


class Plan(msgspec.Struct, frozen=True):
    """The changes for the store, none where all is as it was; what to tell of each document, in the order asked; and
    what is odd about those documents."""

    changes: tuple[Change, ...]
    outcomes: tuple[Outcome, ...]
    notes: tuple[Problem, ...] = ()


class Tombstone(msgspec.Struct, frozen=True):
    """What is remembered of a document that is gone."""

    generation: int
    time: float


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody wants: these documents, and those gone. ``last``: the last generation of those among them that are
    not there; ``now`` in seconds since the epoch."""

    wanted: Sequence[Wanted] = ()
    gone: Sequence[Key] = ()
    author: str
    now: float
    last: Mapping[Key, int] = {}


def unknown(state: State, order: Order) -> list[Key]:
    """The documents of the order whose last generation has to be looked up."""
    keys = [each.document.key for each in order.wanted] + list(order.gone)
    return [key for key in keys if (found := state.held.get(key)) is None or not found.generation]


def planned(state: State, order: Order) -> Plan:
    """The plan. Raises Invalid: with all problems (422), or where there is no room for so many (409)."""
    after = _after(state, order)
    problems = _against(state, order, after)
    if problems:
        raise refused(problems)
    changes: list[Change] = []
    outcomes: list[Outcome] = []
    for each in order.wanted:
        key, known = each.document.key, state.held.get(each.document.key)
        if known is not None and known.document is not None and known.document.says(each.document):
            outcomes.append(Outcome(key, "unchanged", known.generation))
            continue
        generation = _next(key, known, order)
        changes += _written(key, known, each.raw, generation, order)
        outcomes.append(Outcome(key, "created" if known is None else "configured", generation))
    for key in order.gone:
        generation = _next(key, state.held[key], order)
        changes += _deleted(key, state.held[key], generation, order)
        outcomes.append(Outcome(key, "deleted", generation))
    _check_room(state, order)
    lines = {each.document.key: each.line for each in order.wanted}
    notes = [_told(each, lines) for each in lint(after or state.mesh, lines)]
    return Plan(tuple(changes), tuple(outcomes), bounded(notes))


def refused(problems: Sequence[Problem], status: int = 422) -> Invalid:
    """What is told to whoever wanted it."""
    told = bounded(problems)
    first = told[0]
    place = " ".join(filter(None, (first.document, f"line {first.line}" if first.line else "", first.path)))
    detail = f"{place}: {first.why}" if place else first.why
    if len(told) > 1:
        detail += f" (and {len(told) - 1} more in problems)"
    return Invalid(detail, status, {"problems": told}, kind="documents")


def _against(state: State, order: Order, after: Mesh | None) -> list[Problem]:
    """What would not hold together any more, and does now."""
    if after is None:
        return []
    lines = {each.document.key: each.line for each in order.wanted}
    touched = [*lines, *order.gone] if len(state.effective) == len(state.held) else None
    known = set(problems_of(state.mesh, touched))
    return [_told(each, lines) for each in problems_of(after, touched) if each not in known]


def _told(finding: Finding, lines: Mapping[Key, int]) -> Problem:
    return Problem(title(finding.key), finding.why, lines.get(finding.key, 0), path_text(finding.path))


def _after(state: State, order: Order) -> Mesh | None:
    """The mesh as it would be; None where that is what it is."""
    documents = [each.document for each in order.wanted]
    if not order.gone and all(
        (held := state.held.get(each.key)) is not None and held.document is not None and held.document.says(each)
        for each in documents
    ):
        return None
    documents = [_dated(each, state, order) for each in documents]
    if len(state.effective) == len(state.held):
        return state.mesh.changed(documents, order.gone)
    touched = {each.key for each in documents}.union(order.gone)
    others = [held for key, held in state.held.items() if key not in touched]
    fresh = [_as_held(each) for each in documents]
    return Mesh(placeholders.effective([*others, *fresh]).values(), state.mesh.trust_domain)


def _as_held(document: Document) -> Held:
    return Held(key=document.key, version=0, raw=b"", generation=0, author="", time=0.0, document=document)


def _next(key: Key, known: Held | None, order: Order) -> int:
    return max(known.generation if known else 0, order.last.get(key, 0)) + 1


def _written(key: Key, known: Held | None, raw: bytes, generation: int, order: Order) -> Iterable[Change]:
    value = stored_document.encode(raw, generation, order.author, order.now, _created(known, order))
    yield Change(KIND, name_of(key), value, known.version if known else 0)
    yield from _history(key, generation, value)
    if known is None and key in order.last:
        yield Change(DELETED, name_of(key), None)


def _created(known: Held | None, order: Order) -> float:
    """When a document of the order was, or is being, created: an update keeps it."""
    return (known.created if known is not None else 0.0) or order.now


def _dated(document: Document, state: State, order: Order) -> Document:
    """The document as the table will have it, so that notes on which of two is older hold."""
    return msgspec.structs.replace(document, created=_created(state.held.get(document.key), order))


def _deleted(key: Key, known: Held, generation: int, order: Order) -> Iterable[Change]:
    yield Change(KIND, name_of(key), None, known.version)
    yield from _history(key, generation, stored_document.encode(b"null", generation, order.author, order.now))
    yield Change(DELETED, name_of(key), msgspec.json.encode(Tombstone(generation, order.now)))


def _history(key: Key, generation: int, value: bytes) -> Iterable[Change]:
    yield Change(HISTORY, history_name(key, generation), value)
    if generation > KEPT:
        yield Change(HISTORY, history_name(key, generation - KEPT), None)


def _check_room(state: State, order: Order) -> None:
    sizes = {key: len(held.raw) for key, held in state.held.items()}
    grows = {each.document.key: len(each.raw) for each in order.wanted}
    if not grows:
        return
    before = len(sizes), sum(sizes.values())
    sizes |= grows
    if len(sizes) > max(DOCUMENTS, before[0]):
        raise Invalid(f"there would be more than {DOCUMENTS} documents; delete some", 409, kind="too-many")
    if sum(sizes.values()) > max(BYTES, before[1]):
        raise Invalid(f"all documents would be more than {BYTES >> 20} MiB; delete some", 409, kind="too-many")
