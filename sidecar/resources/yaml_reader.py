"""YAML text -> plain values, each with the line where it stands. Strict, and bounded.

Who calls it: ``load`` and ``documents``, with text from a file. PyYAML reads the text into events (by libyaml where
that is there) and no further: what they mean is decided here, since its own loaders take more than anyone means. Here

- a plain ``null``, ``true``, ``false``, a decimal number is that; every other word is text (``on``, ``yes``, ``0x1f``,
  ``1:30`` and dates too, as in YAML 1.2);
- tags are refused: no text makes an object;
- a key stands once in its mapping, and is text or a number;
- nothing is deeper than DEPTH, and all documents of a text together have no more than NODES values. An alias counts as
  often as it is used, so that ten lines can't grow into a billion values, and its anchor stands in the same document.

PyYAML is imported at the first call: a proxy without such files has no need of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, Protocol

DEPTH: Final = 32  # our deepest document has eight
NODES: Final = 1_000_000  # 50,000 endpoints, with all that can be said of each
SHOWN: Final = 63  # characters of what is named in a problem
DIGITS: Final = 18  # of a number; none that we take has more

_WORDS: Final = {"": None, "~": None, "null": None, "true": True, "false": False}
_WHOLE: Final = re.compile(rf"-?(?:0|[1-9][0-9]{{0,{DIGITS - 1}}})", re.ASCII)
_FLOAT: Final = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,18}", re.ASCII)

Key = str | int
Lines = dict[tuple[int, Key | None], int]  # by the id of a list or mapping, and a key or index; None: itself


class _Mark(Protocol):
    line: int  # from 0


class _Event(Protocol):
    """What is used of PyYAML's events; the last three only some of them have."""

    start_mark: _Mark
    anchor: str | None
    tag: str | None
    style: str | None
    value: str


class BadText(Exception):
    """The text can't be read: ``line`` counts from 1, 0 where there is none to name."""

    def __init__(self, line: int, why: str) -> None:
        super().__init__(why)
        self.line = line
        self.why = why


class Text:
    """A text that was read: ``root`` is what it says. Lines are known as long as this object lives."""

    __slots__ = ("_begins", "_lines", "root")

    def __init__(self, root: object, lines: Lines, begins: int = 1) -> None:
        self.root = root
        self._lines = lines
        self._begins = begins

    def line(self, path: Sequence[Key]) -> int:
        """The line of the value at this path (keys and indices from the root down), or of the last part of the path
        that is there."""
        at: Any = self.root
        line = self._lines.get((id(at), None), self._begins)
        for key in path:
            if (id(at), key) not in self._lines:
                break
            line = self._lines[id(at), key]
            at = at[key]
        return line


def read(text: str | bytes) -> Text:
    """What the text says, which is one document. Raises BadText for the first place where it can't be read."""
    reader = _read(text, several=False)
    return Text(reader.roots[0], reader.lines)


def read_all(text: str | bytes) -> list[Text]:
    """What each document of the text says, but for empty ones. Raises BadText as ``read`` does, and where all are."""
    reader = _read(text, several=True)
    found = [Text(root, reader.lines, line) for root, line in zip(reader.roots, reader.begins, strict=True)]
    said = [each for each in found if each.root is not None]
    if not said:
        raise BadText(0, "there is nothing in it")
    return said


def _read(text: str | bytes, *, several: bool) -> _Reader:
    import yaml

    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    events: Any = yaml.parse(text, Loader=loader)
    reader = _Reader(several)
    try:
        for event in events:
            reader.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise BadText(mark.line + 1 if mark else 0, f"this is no YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:  # a character that no text may have
        raise BadText(0, f"this is no YAML: {str(error).splitlines()[0]}") from None
    if not reader.roots:
        raise BadText(0, "there is nothing in it")
    return reader


class _Open:
    """A list or mapping whose end has not come yet. ``before`` is the number of values that stood before it."""

    __slots__ = ("anchor", "before", "key", "key_line", "value")

    def __init__(self, value: list[Any] | dict[Key, Any], anchor: str | None, before: int) -> None:
        self.value = value
        self.anchor = anchor
        self.before = before
        self.key: Key | None = None
        self.key_line = 0


class _Reader:
    """Makes values of events, one after the other. ``roots`` are what the documents say, ``begins`` their first
    lines."""

    def __init__(self, several: bool) -> None:
        self._several = several
        self.roots: list[object] = []
        self.begins: list[int] = []
        self.lines: Lines = {}
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int]] = {}  # the value, and how many values it is
        self._nodes = 0

    def take(self, event: _Event) -> None:
        """The next event."""
        line = event.start_mark.line + 1
        kind = type(event).__name__
        if kind == "ScalarEvent":
            self._count(1, line)
            value = _scalar(event, line)
            self._anchor(event.anchor, value, 1, line)
            self._put(value, line)
        elif kind in ("MappingStartEvent", "SequenceStartEvent"):
            self._begin({} if kind == "MappingStartEvent" else [], event, line)
        elif kind in ("MappingEndEvent", "SequenceEndEvent"):
            done = self._open.pop()
            if done.anchor is not None:
                self._anchor(done.anchor, done.value, self._nodes - done.before, line)
        elif kind == "AliasEvent":
            value, nodes = self._anchors.get(event.anchor or "", (None, 0))
            if not nodes:
                raise BadText(line, f"*{_cut(event.anchor or '')} stands for nothing that ends before it")
            self._count(nodes, line)
            self._put(value, line)
        elif kind == "DocumentStartEvent":
            if self.roots and not self._several:
                raise BadText(line, "a second document begins here, and only one is read")
            self._anchors = {}

    def _begin(self, value: list[Any] | dict[Key, Any], event: _Event, line: int) -> None:
        if event.tag is not None:
            raise BadText(line, f"the tag {_cut(event.tag)!r} is not taken")
        if len(self._open) >= DEPTH:
            raise BadText(line, f"it is nested more than {DEPTH} deep")
        before = self._nodes
        self._count(1, line)
        self._put(value, line)
        self.lines[id(value), None] = line
        self._open.append(_Open(value, event.anchor, before))

    def _put(self, value: Any, line: int) -> None:
        if not self._open:
            self.roots.append(value)
            self.begins.append(line)
            return
        parent = self._open[-1]
        if isinstance(parent.value, list):
            self.lines[id(parent.value), len(parent.value)] = line
            parent.value.append(value)
        elif parent.key is None:
            if isinstance(value, bool) or not isinstance(value, str | int):
                raise BadText(line, "a key has to be text or a number; put it in quotes")
            if value in parent.value:
                named = _cut(value) if isinstance(value, str) else value
                raise BadText(line, f"{named!r} stands twice in one mapping")
            parent.key = value
            parent.key_line = line
        else:
            self.lines[id(parent.value), parent.key] = parent.key_line
            parent.value[parent.key] = value
            parent.key = None

    def _anchor(self, name: str | None, value: Any, nodes: int, line: int) -> None:
        if name is None:
            return
        if name in self._anchors:
            raise BadText(line, f"&{_cut(name)} is given twice")
        self._anchors[name] = value, nodes

    def _count(self, nodes: int, line: int) -> None:
        self._nodes += nodes
        if self._nodes > NODES:
            raise BadText(line, f"it has more than {NODES} values, each use of an alias counted")


def _scalar(event: _Event, line: int) -> object:
    if event.tag is not None:
        raise BadText(line, f"the tag {_cut(event.tag)!r} is not taken")
    text: str = event.value
    if event.style:  # quoted, or a block; libyaml says "" for neither, Python None
        return text
    if text in _WORDS:
        return _WORDS[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _cut(text: str) -> str:
    """As much of it as a line about it has room for."""
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."
