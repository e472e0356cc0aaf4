"""Which documents a list is to show, and which page of them. Pure.

Who calls it: ``api``. All pages of a list are of one moment: the state that the first one was cut from is kept
until a few others have been, and ``continue`` names it. States share what did not change, so keeping one costs the
references.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
from starlette.requests import Request

from control.documents.state import State
from control.documents.stored_document import Held, name_of
from control.pagination import Mark, Wanted, page
from control.problems import Invalid

STATES: Final = 16  # that lists are being read from: about 1 MB each with 10,000 documents
PAGE_BYTES: Final = 4 << 20  # of documents on one page, which is made in memory


class Listing(msgspec.Struct, frozen=True):
    """What is asked for. Empty: any."""

    page: Wanted
    kind: str = ""
    namespace: str = ""
    labels: Mapping[str, str] = {}

    @classmethod
    def read(cls, request: Request) -> Listing:
        """From ``?kind=&namespace=&label=KEY=VALUE&limit=&continue=`` and the path; Invalid where these are none."""
        query, path = request.query_params, request.path_params
        labels: dict[str, str] = {}
        for text in query.getlist("label"):
            key, equals, value = text.partition("=")
            if not key or not equals or key in labels:
                raise Invalid("label: write KEY=VALUE, each key once")
            labels[key] = value
        return cls(
            Wanted.read(query),
            path.get("kind", query.get("kind", "")),
            path.get("namespace", query.get("namespace", "")),
            labels,
        )

    def cut(self, state: State) -> tuple[list[Held], str]:
        """The documents of the page, and what to continue with; empty where there are no more."""
        found, after = page(self._matching(state.held.values()), _name, self.page)
        size = 0
        for number, held in enumerate(found):
            size += len(held.raw)
            if size > PAGE_BYTES and number:
                found, after = found[:number], _name(found[number - 1])
                break
        return found, str(Mark(after, state.version)) if after else ""

    def _matching(self, held: Iterable[Held]) -> Iterable[Held]:
        for one in held:
            here = self.kind in ("", one.key[0]) and self.namespace in ("", one.key[1])
            if here and self.labels.items() <= one.labels.items():
                yield one


class States:
    """Those that lists are being read from."""

    def __init__(self, most: int = STATES) -> None:
        self._most = most
        self._kept: OrderedDict[int, State] = OrderedDict()

    def of(self, wanted: Wanted, current: State) -> State:
        """The state that the page is of; Invalid (410) where it is not kept any more."""
        version = wanted.mark.version
        if not wanted.mark.after or version == current.version:
            return current
        if version not in self._kept:
            raise Invalid("continue: the list that it is of is not kept any more; begin again", 410, kind="expired")
        return self._kept[version]

    def keep(self, state: State) -> None:
        """Keeps it for a while."""
        self._kept[state.version] = state
        self._kept.move_to_end(state.version)
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)


def _name(held: Held) -> str:
    return name_of(held.key)
