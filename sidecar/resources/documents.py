"""Documents: plain values or text -> frozen values, or every problem at once, each with its path and line. Pure.

Who calls it: the control plane for each document that it is given, ``sidecarctl check``, and ``sidecar --config``; so
that what one of them takes, all take. A document is judged alone here; what holds between documents is for ``rules``,
and what is only odd for ``lint``.

What a server adds to a document when it shows it (``status``, ``metadata.uid``, ``resourceVersion`` ...) is left aside,
so that what was got can be applied again; everything else that is not known is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import msgspec

from sidecar.resources import yaml_reader
from sidecar.resources.field_rules import check
from sidecar.resources.kinds import API_VERSIONS, KINDS, Kind, Metadata, Spec
from sidecar.resources.unsupported import KNOWN, OTHER_KINDS, SET_BY_SERVERS
from sidecar.resources.validation import Path, Problem, shape, shown

MAX_BYTES: Final = 8 << 20  # of one file
MAX_PROBLEMS: Final = 100  # that are told; the rest is a number

Key = tuple[str, str, str]  # kind, namespace, name


class Document(msgspec.Struct, frozen=True):
    """One document that is right by itself. ``created``: when the control plane first took it, in seconds since the
    epoch; 0.0 where that is not known, as in files. It is nothing that a document says, so ``plain`` leaves it out."""

    api_version: str
    kind: Kind
    metadata: Metadata
    spec: Spec
    created: float = 0.0

    @property
    def key(self) -> Key:
        """Kind, namespace and name: there is one document of each."""
        return self.kind, self.metadata.namespace, self.metadata.name

    @property
    def title(self) -> str:
        """As people name it: ``Service shop/web``."""
        return f"{self.kind} {self.metadata.namespace}/{self.metadata.name}"

    @property
    def age_rank(self) -> tuple[float, str, str]:
        """What decides which of two comes first where the older counts: creation, then namespace and name."""
        return self.created, self.metadata.namespace, self.metadata.name

    def says(self, other: Document) -> bool:
        """Return whether both say the same, whenever they were created."""
        return msgspec.structs.replace(self, created=other.created) == other


class Placed(msgspec.Struct, frozen=True):
    """A document, and where it stands: in ``text``, which is a part of ``file``."""

    document: Document
    file: str
    text: yaml_reader.Text

    def at(self, path: Path = ()) -> str:
        """``file:line`` of a field of it."""
        return f"{self.file}:{self.text.line(path)}"


class ReadDocuments(msgspec.Struct, frozen=True):
    """The documents that are right by themselves, and what is wrong with the others: ``file:line: path: why``, a line
    each. Where there is any problem nothing is to be taken."""

    documents: tuple[Placed, ...] = ()
    problems: tuple[str, ...] = ()


def parse(value: object) -> tuple[Document | None, list[Problem]]:
    """The document that a plain value is, or None and all that is wrong with it; paths are from the document's root."""
    if not isinstance(value, dict):
        return None, [Problem((), f"{shown(value)} is not a document; one has apiVersion, kind, metadata and spec")]
    problems = [
        Problem((key,), "is not a field here; there are apiVersion, kind, metadata, spec")
        for key in value
        if key not in ("apiVersion", "kind", "metadata", "spec", "status")
    ]
    kind = _kind(value, problems)
    metadata = _metadata(value, problems)
    if kind is None:
        return None, problems
    spec, found = shape(KINDS[kind], {} if value.get("spec") is None else value["spec"], KNOWN)
    problems += _below("spec", found)
    if spec is not None and metadata is not None:
        problems += check(kind, metadata, spec)
        if not problems:
            return Document(cast(str, value["apiVersion"]), kind, metadata, spec), []
    return None, problems


def plain(document: Document) -> dict[str, object]:
    """The document as plain values, without what is at its default; ``parse`` makes the same of it."""
    return {
        "apiVersion": document.api_version,
        "kind": document.kind,
        "metadata": msgspec.to_builtins(document.metadata),
        "spec": msgspec.to_builtins(document.spec, str_keys=True),
    }


def read_documents(content: bytes, file: str) -> ReadDocuments:
    """What a file has: any number of documents as YAML or JSON. Never raises for anything that can be in a file."""
    placed, problems = placed_documents(content, file)
    return ReadDocuments(tuple(placed), bounded(problems, file))


def placed_documents(content: bytes, file: str) -> tuple[list[Placed], list[str]]:
    """The same, with every problem."""
    if len(content) > MAX_BYTES:
        return [], [f"{file}: is longer than {MAX_BYTES >> 20} MiB"]
    try:
        texts = yaml_reader.read_all(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return [], [f"{file}:{line}: this is no UTF-8"]
    except yaml_reader.BadText as error:
        return [], [f"{file}:{error.line}: {error.why}" if error.line else f"{file}: {error.why}"]
    placed: list[Placed] = []
    problems: list[tuple[int, Problem]] = []
    for text in texts:
        document, found = parse(text.root)
        problems += ((text.line(each.path), each) for each in found)
        if document is not None:
            placed.append(Placed(document, file, text))
    problems.sort(key=lambda pair: pair[0])
    return placed, [f"{file}:{line}: {each}" for line, each in problems]


def bounded(problems: Sequence[str], file: str) -> tuple[str, ...]:
    """The first MAX_PROBLEMS of them, and how many more there are."""
    more = len(problems) - MAX_PROBLEMS
    return (*problems[:MAX_PROBLEMS], *([f"{file}: and {more} more problems"] if more > 0 else []))


def _kind(value: Mapping[Any, object], problems: list[Problem]) -> Kind | None:
    """The document's kind, unless it is of another version, whose fields may be others."""
    kind, version = value.get("kind"), value.get("apiVersion")
    for name, each in (("apiVersion", version), ("kind", kind)):
        if name not in value:
            problems.append(Problem((), f"{name} is missing"))
        elif not isinstance(each, str):
            problems.append(Problem((name,), f"{shown(each)} is not text; put it in quotes"))
    if not isinstance(kind, str):
        return None
    if kind not in KINDS:
        known = OTHER_KINDS.get(kind)
        problems.append(Problem(("kind",), known or f"{shown(kind)} is not a kind; there are {', '.join(KINDS)}"))
        return None
    versions = API_VERSIONS[kind]
    if isinstance(version, str) and version not in versions:
        why = f"{shown(version)} is not one of those of {kind}: {', '.join(versions)}"
        if kind == "Service" and version == "v1":
            why = "v1 is Kubernetes' Service; ours is sidecar/v1, and says in serviceAccounts who may serve it"
        problems.append(Problem(("apiVersion",), why))
        return None
    return cast(Kind, kind)


def _metadata(value: Mapping[Any, object], problems: list[Problem]) -> Metadata | None:
    if "metadata" not in value:
        problems.append(Problem((), "metadata is missing; it has the name"))
        return None
    found = value["metadata"]
    if isinstance(found, dict):
        found = {key: each for key, each in found.items() if key not in SET_BY_SERVERS}
    metadata, wrong = shape(Metadata, found, KNOWN)
    problems += _below("metadata", wrong)
    return metadata


def _below(name: str, problems: Sequence[Problem]) -> list[Problem]:
    return [Problem((name, *each.path), each.why) for each in problems]
