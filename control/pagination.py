"""Long lists, page by page. Pure.

Who calls it: every call that shows a list which may be long. A page has so many items from the start, or from where
the one before ended; ``continue`` in the answer says where that is, and is not there with the last one. Items have a
name by which they are ordered, and a page begins after a name: so what is there all the time comes once, whatever
comes and goes meanwhile.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final, TypeVar

import msgspec

from control.problems import Invalid

LIMIT: Final = 500  # items of a page where nobody says how many
MOST: Final = 1000
_NUMBER: Final = re.compile(r"[0-9]{1,9}", re.ASCII)
_T = TypeVar("_T")


class Mark(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where a page begins: after this name. ``version``: of which state, where a list is of one."""

    after: str = ""
    version: int = 0

    def __str__(self) -> str:
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode().rstrip("=")

    @classmethod
    def parse(cls, text: str) -> Mark:
        """The inverse of ``str``; ValueError for anything else."""
        try:
            data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
            return msgspec.json.decode(data, type=cls)
        except ValueError:  # of base64, of msgspec, of UTF-8
            raise ValueError("it is what an answer had as continue, and nothing else") from None


class Wanted(msgspec.Struct, frozen=True):
    """Which page a caller asks for."""

    limit: int = LIMIT
    mark: Mark = Mark()

    @classmethod
    def read(cls, query: Mapping[str, str]) -> Wanted:
        """From ``?limit=&continue=``; Invalid where these are none. More than MOST is taken for that."""
        limit, mark = query.get("limit", str(LIMIT)), query.get("continue", "")
        if not _NUMBER.fullmatch(limit) or int(limit) == 0:
            raise Invalid(f"limit: a number from 1 to {MOST}")
        try:
            return cls(min(int(limit), MOST), Mark.parse(mark) if mark else Mark())
        except ValueError as error:
            raise Invalid(f"continue: {error}") from None


def page(items: Iterable[_T], name: Callable[[_T], str], wanted: Wanted) -> tuple[list[_T], str]:
    """The items of that page, in the order of their names, and the name of the last one where more come after it."""
    after = wanted.mark.after
    rest = sorted((item for item in items if name(item) > after), key=name)
    found = rest[: wanted.limit]
    return found, name(found[-1]) if len(rest) > len(found) else ""
