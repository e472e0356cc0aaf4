"""Changes to the fields of a message, compiled from a VirtualService's ``headers``. Pure.

Called by ``proxy.routed_request`` with the fields that go on. As in Envoy's ``HeaderParser``, removal comes first, then
``set``, then ``add``, and an operation without a value does nothing. As in Istio, the operations of a rule and of its
only destination are one list, in which the destination's count; those of one destination among several come first, so
that the rule's count.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from sidecar.http.headers import Field
from sidecar.resources.virtual_service import HeaderOperations

_AUTHORITY: Final = frozenset({b"host", b":authority"})


class HeaderEdits(msgspec.Struct, frozen=True, gc=False):
    """``removed`` are names in lower case; ``added`` is appended. ``authority`` is the new one; b"": it stays."""

    removed: frozenset[bytes] = frozenset()
    added: tuple[Field, ...] = ()
    authority: bytes = b""

    @property
    def changes(self) -> bool:
        """Whether any field changes."""
        return bool(self.removed or self.added)

    def apply(self, fields: Sequence[Field]) -> list[Field]:
        """Return the fields after the changes."""
        removed = self.removed
        kept = [field for field in fields if field[0].lower() not in removed] if removed else list(fields)
        kept.extend(self.added)
        return kept

    def then(self, later: HeaderEdits) -> HeaderEdits:
        """Return one edit that does the same as this one and then ``later``."""
        added = tuple([field for field in self.added if field[0].lower() not in later.removed])
        return HeaderEdits(self.removed | later.removed, (*added, *later.added), later.authority or self.authority)


NO_EDITS: Final = HeaderEdits()


def compile_edits(*lists: HeaderOperations) -> HeaderEdits:
    """Return one edit of all these operations: all removals, then all of ``set``, then all of ``add``, list by list.
    ``Host`` and ``:authority`` change the authority; of several lists the first that does counts."""
    if not any(each.set or each.add or each.remove for each in lists):
        return NO_EDITS
    removed = {name.lower().encode() for each in lists for name in each.remove}
    replaced: dict[bytes, bytes] = {}
    added: list[Field] = []
    authority = b""
    for each in lists:
        for name, value in each.set.items():
            key, text = name.lower().encode(), literal(value)
            if key in _AUTHORITY:
                authority = authority or text
            elif text:
                replaced[key] = text
    for each in lists:
        for name, value in each.add.items():
            key, text = name.lower().encode(), literal(value)
            if key in _AUTHORITY:
                authority = authority or text
            elif text:
                added.append((key, text))
    return HeaderEdits(frozenset([*removed, *replaced]), (*replaced.items(), *added), authority)


def literal(value: str) -> bytes:
    """Return the value as bytes; ``%%`` stands for a percent sign, as in Envoy's format strings."""
    return value.replace("%%", "%").encode("utf-8", "surrogatepass")
