"""A document as the store has it: one entry for what holds now, one for each of its generations. Pure.

Who uses it: ``table`` reads entries, ``changes`` makes them. A generation is a number that counts the changes of one
document from 1, over its deletions too, so a number never stands for two contents. What is stored was written by some
version of ours, and may have been written by a newer one: then it is held as it is, with why it can't be read.
"""

from __future__ import annotations

from typing import Final

import msgspec

from control.store import Entry
from sidecar.resources.documents import Document, Key, parse
from sidecar.resources.validation import Problem

KIND: Final = "document"  # name: Kind/namespace/name
HISTORY: Final = "history"  # name: Kind/namespace/name/GENERATION
KEPT: Final = 100  # generations of each: weeks of a document that changes often, and 6 MiB at the worst


class Stored(msgspec.Struct, frozen=True):
    """An entry's value. ``document`` None: it was deleted by this generation. ``time`` in seconds since the epoch;
    ``created`` that of the first generation since the last deletion. Entries of earlier versions are without
    ``created``: then ``time`` is the nearest that is known, and an update keeps it from then on."""

    document: msgspec.Raw
    generation: int
    author: str
    time: float
    created: float = 0.0

    @property
    def deleted(self) -> bool:
        """Whether there is no document in it."""
        return bytes(self.document) == b"null"


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A document as it is held in memory. ``document`` None: this version can't read it, for the reason ``why``;
    ``version`` is that of its entry; ``created`` 0.0: not known, since not even its entry can be read."""

    key: Key
    version: int
    raw: bytes
    generation: int
    author: str
    time: float
    created: float = 0.0
    document: Document | None
    why: str = ""

    @property
    def labels(self) -> dict[str, str]:
        """Those of its metadata."""
        return {} if self.document is None else self.document.metadata.labels


def name_of(key: Key) -> str:
    """The entry's name."""
    return "/".join(key)


def history_name(key: Key, generation: int) -> str:
    """The name of the entry of one generation; they sort by it."""
    return f"{name_of(key)}/{generation:010d}"


def key_of(name: str) -> Key:
    """The inverse of ``name_of``; a name that has another form is kept as it is, under no kind."""
    kind, _, rest = name.partition("/")
    namespace, _, own = rest.partition("/")
    return (kind, namespace, own) if own else ("", "", name)


def generation_of(name: str) -> int:
    """The generation that an entry of a history is; 0 where its name has another form."""
    number = name.rpartition("/")[2]
    return int(number) if number.isdigit() and number.isascii() else 0


def encode(raw: bytes, generation: int, author: str, now: float, created: float = 0.0) -> bytes:
    """An entry's value; ``raw`` is the document as JSON, ``null`` for a deletion; ``created`` as in ``Stored``."""
    return msgspec.json.encode(Stored(msgspec.Raw(raw), generation, author, now, created))


def decode(value: bytes) -> Stored:
    """The inverse; raises ValueError (msgspec's) where it is none."""
    return msgspec.json.decode(value, type=Stored)


def held(entry: Entry) -> Held:
    """What an entry amounts to. Never raises for anything that can be in a store."""
    key = key_of(entry.name)
    try:
        stored = decode(entry.value)
    except ValueError as error:
        return Held(
            key=key, version=entry.version, raw=b"null", generation=0, author="", time=0.0, document=None,
            why=f"it is not stored as this version does that: {error}",
        )  # fmt: skip
    document, why = _read(bytes(stored.document), key)
    created = stored.created or stored.time
    if document is not None:
        document = msgspec.structs.replace(document, created=created)
    return Held(
        key=key,
        version=entry.version,
        raw=bytes(stored.document),
        generation=stored.generation,
        author=stored.author,
        time=stored.time,
        created=created,
        document=document,
        why=why,
    )


def _read(raw: bytes, key: Key) -> tuple[Document | None, str]:
    try:
        document, problems = parse(msgspec.json.decode(raw))
    except (ValueError, RecursionError) as error:
        return None, str(error)
    if document is not None and document.key != key:
        return None, f"it says that it is {document.title}"
    return document, _told(problems)


def _told(problems: list[Problem]) -> str:
    return "; ".join(str(each) for each in problems[:3])
