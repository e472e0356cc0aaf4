"""A body -> documents, or all that is wrong with it, each problem with its document, line and path. Pure, and may be
slow.

Who calls it: ``writer``, in a thread where the body is long: 8 MiB of YAML take seconds of a processor. JSON comes as
one document or a list of them, YAML as one or several with ``---`` between them. What one document may say is for
``sidecar.resources.documents``; here are the bounds, and that no document is there twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from sidecar.resources import yaml_reader
from sidecar.resources.documents import Document, Key, parse, plain
from sidecar.resources.validation import Path, path_text

DOCUMENT_BYTES: Final = 64 * 1024  # as JSON; a Service with 500 endpoints. Every proxy that sees it gets it whole
MAX_PROBLEMS: Final = 100  # that are told; the rest is a number
JSON: Final = "application/json"
YAML: Final = ("application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml")


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is wrong. ``document`` is its kind, namespace and name, or ``#3`` for the third where those can't be read;
    ``line`` counts from 1, where the body had lines that mean anything."""

    document: str
    why: str
    line: int = 0
    path: str = ""


class Wanted(msgspec.Struct, frozen=True):
    """One document of a body: as it was understood, and as it will be stored."""

    document: Document
    raw: bytes
    line: int = 0


class Read(msgspec.Struct, frozen=True):
    """All of a body; where there are problems nothing of it is to be taken."""

    wanted: tuple[Wanted, ...] = ()
    problems: tuple[Problem, ...] = ()
    broken: bool = False  # it is no text that could be read at all


def read(body: bytes, content_type: str, namespace: str = "") -> Read:
    """What the body has. Never raises for anything that can be in one. ``content_type`` is JSON or one of YAML;
    ``namespace`` that of documents which say none."""
    try:
        values = _json(body) if content_type == JSON else _yaml(body)
    except _Unreadable as error:
        return Read(problems=(error.problem,), broken=True)
    for each in values:
        metadata = each.value.get("metadata") if isinstance(each.value, dict) else None
        if namespace and isinstance(metadata, dict):
            metadata.setdefault("namespace", namespace)
    return _judged(values)


class _Unreadable(Exception):
    def __init__(self, why: str, line: int = 0) -> None:
        super().__init__(why)
        self.problem = Problem("", why, line)


class _Value:
    """A plain value, and the text that it is from, if that has lines."""

    def __init__(self, value: object, text: yaml_reader.Text | None) -> None:
        self.value = value
        self._text = text

    def line(self, path: Path) -> int:
        return self._text.line(path) if self._text else 0


def _json(body: bytes) -> list[_Value]:
    try:
        found = msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        raise _Unreadable(f"this is no JSON: {error}") from None
    return [_Value(each, None) for each in (found if isinstance(found, list) else [found])]


def _yaml(body: bytes) -> list[_Value]:
    try:
        return [_Value(text.root, text) for text in yaml_reader.read_all(body.decode("utf-8"))]
    except UnicodeDecodeError as error:
        raise _Unreadable("this is no UTF-8", body.count(b"\n", 0, error.start) + 1) from None
    except yaml_reader.BadText as error:
        raise _Unreadable(error.why, error.line) from None


def _judged(values: Sequence[_Value]) -> Read:
    if not values:
        return Read(problems=(Problem("", "there is no document in it"),))
    wanted: list[Wanted] = []
    problems: list[Problem] = []
    seen: set[Key] = set()
    for number, each in enumerate(values, 1):
        document, found = parse(each.value)
        problems += (
            Problem(named(each.value, number), one.why, each.line(one.path), path_text(one.path)) for one in found
        )
        if document is None:
            continue
        raw = msgspec.json.encode(plain(document))
        if len(raw) > DOCUMENT_BYTES:
            why = f"it is longer than {DOCUMENT_BYTES >> 10} KiB as JSON"
            problems.append(Problem(title(document.key), why, each.line(())))
        if document.key in seen:
            problems.append(Problem(title(document.key), "it is there twice", each.line(())))
        seen.add(document.key)
        wanted.append(Wanted(document, raw, each.line(())))
    return Read(problems=bounded(problems)) if problems else Read(tuple(wanted))


def title(key: Key) -> str:
    """As people name it: ``Service shop/web``."""
    return f"{key[0]} {key[1]}/{key[2]}"


def named(value: Any, number: int) -> str:
    """The title of what may not be a document; the ``number``-th, from 1."""
    metadata = value.get("metadata") if isinstance(value, dict) else None
    if isinstance(metadata, dict):
        parts = value.get("kind"), metadata.get("namespace", "default"), metadata.get("name")
        found = [part for part in parts if isinstance(part, str) and 0 < len(part) <= 253 and part.isprintable()]
        if len(found) == len(parts):
            return f"{found[0]} {found[1]}/{found[2]}"
    return f"#{number}"


def bounded(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """The first MAX_PROBLEMS by their lines, and how many more there are."""
    told = sorted(problems, key=lambda each: each.line)
    more = len(told) - MAX_PROBLEMS
    return (*told[:MAX_PROBLEMS], *([Problem("", f"and {more} more problems")] if more > 0 else []))
