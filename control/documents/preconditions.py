"""``If-Match`` and ``If-None-Match`` (RFC 9110, 13.1). Pure.

Who calls it: ``api`` for what is read, ``writer`` for what is written, there with the document as it is at the
moment of the write. A document's entity tag is its generation.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from control.problems import Invalid

_TAG: Final = re.compile(r'\s*(?:(W/)?"([\x21\x23-\x7e\x80-\xff]*)"|(\*))\s*', re.ASCII)


class Conditions(msgspec.Struct, frozen=True):
    """What the caller makes its call depend on; None: not on that. ``*`` stands for whatever is there."""

    match: frozenset[str] | None = None
    none_match: frozenset[str] | None = None

    def check(self, tag: str) -> None:
        """Invalid (412) where what is there is not what the caller said; ``tag`` is empty where nothing is there."""
        if self.match is not None and not _in(tag, self.match):
            there = f'it is at generation "{tag}"' if tag else "there is no such document"
            raise Invalid(f"if-match: {there}; get it again", 412, kind="precondition")
        if self.none_match is not None and _in(tag, self.none_match):
            raise Invalid(f'if-none-match: it is there already, at generation "{tag}"', 412, kind="precondition")

    def unchanged(self, tag: str) -> bool:
        """Whether a reader has this one already (304)."""
        return self.none_match is not None and _in(tag, self.none_match)


def read(match: list[str], none_match: list[str]) -> Conditions:
    """From the fields of these names; Invalid where they can't be read. A weak tag never matches for a write."""
    return Conditions(
        _tags("if-match", match, weak=False) if match else None,
        _tags("if-none-match", none_match, weak=True) if none_match else None,
    )


def _tags(name: str, fields: list[str], *, weak: bool) -> frozenset[str]:
    found: set[str] = set()
    if not any(map(str.strip, fields)):
        raise Invalid(f'{name}: write * or entity tags, as in "3"')
    for text in ",".join(fields).split(","):
        if not text.strip():
            continue
        tag = _TAG.fullmatch(text)
        if tag is None:
            raise Invalid(f'{name}: write * or entity tags, as in "3"')
        if tag[3]:
            found.add("*")
        elif weak or not tag[1]:
            found.add(tag[2])
    return frozenset(found)


def _in(tag: str, tags: frozenset[str]) -> bool:
    return bool(tag) and ("*" in tags or tag in tags)
