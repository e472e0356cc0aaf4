"""An index of the matches of a virtual host, so that 10,000 of them cost a request what ten do. Pure.

Called by ``policy.http_routes``. Matches are found by their path: whole paths by hash, prefixes (and the text that a
regex begins with) in a radix tree, without regard to case in a second index of both. What shares a place there, and
what asks for no path, is divided once more by the fields, pseudo-headers and parameters that it needs with one value.
Only what is left is tested. Of all that hold the first one in the document counts.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Final

import msgspec

from sidecar.policy.route_conditions import PARAM, Conditions, Holds, PathKey
from sidecar.policy.route_question import PSEUDO, RouteQuestion

FEW: Final = 8  # so many are tested one by one
_PER_STEP: Final = 16
_FEW_NAMES: Final = 16
_DEEPEST: Final = 16  # names by which one place is divided, one below the other

Steps = Generator[None, None, None]


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """A match by its order in the document. ``tests`` are those that its place in the index does not decide."""

    order: int
    tests: tuple[Holds, ...]
    keys: tuple[tuple[bytes, bytes], ...]


class _Bucket:
    """Matches with one place in the index, in their order. Many are divided by the name with the most values."""

    __slots__ = ("_listed", "_tables")

    def __init__(self) -> None:
        self._listed: list[Candidate] = []
        self._tables: dict[bytes, dict[bytes, _Bucket]] = {}

    def add(self, candidate: Candidate) -> None:
        """Add the next one."""
        self._listed.append(candidate)

    def divide(self, few: int, used: frozenset[bytes] = frozenset()) -> Steps:
        """Divide what is more than a few. ``used`` are the names that are decided already."""
        if len(self._listed) <= few or len(used) == _DEEPEST:
            return
        counts = yield from self._count_values(used)
        listed, self._listed = self._listed, []
        for number, candidate in enumerate(listed, 1):
            keys = [key for key in candidate.keys if key[0] not in used]
            if keys:
                name, value = max(keys, key=lambda key: counts[key[0]])
                table = self._tables.setdefault(name, {})
                if value not in table:
                    table[value] = _Bucket()
                table[value].add(candidate)
            else:
                self._listed.append(candidate)
            if not number % _PER_STEP:
                yield
        below = [(name, bucket) for name, table in self._tables.items() for bucket in table.values()]
        for number, (name, bucket) in enumerate(below, 1):
            yield from bucket.divide(few, used | {name})
            if not number % _PER_STEP:
                yield

    def _count_values(self, used: frozenset[bytes]) -> Generator[None, None, dict[bytes, int]]:
        """Return how many values there are of each name."""
        seen: set[tuple[bytes, bytes]] = set()
        counts: dict[bytes, int] = {}
        for number, candidate in enumerate(self._listed, 1):
            for key in candidate.keys:
                if key[0] not in used and key not in seen:
                    seen.add(key)
                    counts[key[0]] = counts.get(key[0], 0) + 1
            if not number % _PER_STEP:
                yield
        return counts

    def first(self, question: RouteQuestion, below: int) -> int:
        """Return the order of the first one that holds, if that is less than ``below``; otherwise ``below``."""
        for candidate in self._listed:
            if candidate.order >= below:
                break
            for test in candidate.tests:
                if not test(question):
                    break
            else:
                below = candidate.order
                break
        if self._tables:
            for bucket in self._of_values(question):
                below = bucket.first(question, below)
        return below

    def _of_values(self, question: RouteQuestion) -> Iterator[_Bucket]:
        tables = self._tables
        names: Iterable[bytes] = tables
        if len(tables) > _FEW_NAMES:
            names = {*question.headers(), *[PARAM + name for name in question.params()], *PSEUDO} & tables.keys()
        for name in names:
            table = tables[name]
            if name.startswith(PARAM):
                value = question.params().get(name[len(PARAM) :])
                if value is not None and value in table:
                    yield table[value]
            else:
                for value in question.values(name):
                    if value in table:
                        yield table[value]


class _Node:
    """A node of the radix tree: ``label`` leads to it from its parent, ``children`` are found by their first byte."""

    __slots__ = ("bucket", "children", "label")

    def __init__(self, label: bytes) -> None:
        self.label = label
        self.children: dict[int, _Node] = {}
        self.bucket: _Bucket | None = None


class _Prefixes:
    """Prefixes as a radix tree: a path passes those that it starts with, and forks, and nothing more."""

    __slots__ = ("_root", "buckets")

    def __init__(self) -> None:
        self._root = _Node(b"")
        self.buckets: list[_Bucket] = []

    def add(self, text: bytes, candidate: Candidate) -> None:
        """Add a candidate for all paths that start with a text."""
        node, at = self._root, 0
        while at < len(text):
            child = node.children.get(text[at])
            if child is None:
                child = node.children[text[at]] = _Node(text[at:])
            elif not text.startswith(child.label, at):
                child = _split(node, child, _in_common(child.label, text, at))
            node = child
            at += len(child.label)
        if node.bucket is None:
            node.bucket = _Bucket()
            self.buckets.append(node.bucket)
        node.bucket.add(candidate)

    def finish(self, few: int) -> Steps:
        """Complete what was added."""
        for number, bucket in enumerate(self.buckets, 1):
            yield from bucket.divide(few)
            if not number % _PER_STEP:
                yield

    def find(self, path: bytes) -> list[_Bucket]:
        """Return what stands for prefixes of a path, the shortest first."""
        found: list[_Bucket] = []
        node, at, size = self._root, 0, len(path)
        while True:
            if node.bucket is not None:
                found.append(node.bucket)
            if at == size:
                return found
            child = node.children.get(path[at])
            if child is None or not path.startswith(child.label, at):
                return found
            at += len(child.label)
            node = child


def _in_common(label: bytes, text: bytes, at: int) -> int:
    """Return how many bytes a label and a text from ``at`` have in common."""
    least, most = 0, len(label)
    while least < most:
        middle = (least + most + 1) // 2
        if text.startswith(label[:middle], at):
            least = middle
        else:
            most = middle - 1
    return least


def _split(parent: _Node, child: _Node, size: int) -> _Node:
    """Return a new node in the midst of a label, above the child."""
    between = parent.children[child.label[0]] = _Node(child.label[:size])
    child.label = child.label[size:]
    between.children[child.label[0]] = child
    return between


class _Paths:
    """Candidates by their paths, as they are written or in lower case."""

    __slots__ = ("_exact", "_prefixes", "used")

    def __init__(self) -> None:
        self.used = False
        self._exact: dict[bytes, _Bucket] = {}
        self._prefixes = _Prefixes()

    def add(self, key: PathKey, candidate: Candidate) -> None:
        """Add a candidate."""
        self.used = True
        if key.kind == "prefix":
            self._prefixes.add(key.text, candidate)
            return
        if key.text not in self._exact:
            self._exact[key.text] = _Bucket()
        self._exact[key.text].add(candidate)

    def buckets(self) -> list[_Bucket]:
        """Return those that have a place here."""
        return [*self._exact.values(), *self._prefixes.buckets]

    def finish(self, few: int) -> Steps:
        """Complete what was added."""
        for number, bucket in enumerate(self._exact.values(), 1):
            yield from bucket.divide(few)
            if not number % _PER_STEP:
                yield
        yield from self._prefixes.finish(few)

    def first(self, path: bytes, question: RouteQuestion, below: int) -> int:
        """Return as ``_Bucket.first``."""
        exact = self._exact.get(path)
        if exact is not None:
            below = exact.first(question, below)
        for bucket in reversed(self._prefixes.find(path)):
            below = bucket.first(question, below)
        return below


class RouteIndex:
    """The index of one virtual host. Made by :func:`build_index`."""

    __slots__ = ("_anywhere", "_candidates", "_folded", "_plain", "_size", "_somewhere")

    def __init__(self, size: int) -> None:
        self._size = size
        self._plain = _Paths()
        self._folded = _Paths()
        self._anywhere = _Bucket()
        self._candidates: list[Candidate] = []
        self._somewhere = True  # all of them ask for a path

    def fill(self, matches: Sequence[Conditions], few: int) -> Steps:
        """Put all matches in their places."""
        for order, match in enumerate(matches):
            key = match.path
            decided = match.uri if key is not None and key.decides else None
            tests = tuple([test.holds for test in match.tests if test is not decided])
            candidate = Candidate(order, tests, match.keys)
            self._candidates.append(candidate)
            if key is None:
                self._somewhere = False
                self._anywhere.add(candidate)
            else:
                (self._folded if key.folded else self._plain).add(key, candidate)
            if not order % _PER_STEP:
                yield
        yield from self._plain.finish(few)
        yield from self._folded.finish(few)
        yield from self._anywhere.divide(few)

    def parts(self) -> list[object]:
        """Return what it is made of, in small pieces."""
        return [*self._candidates, *self._plain.buckets(), *self._folded.buckets()]

    def first(self, question: RouteQuestion) -> int:
        """Return the place of the first match that holds; -1 if none does."""
        path = question.path()
        below = self._plain.first(path, question, self._size)
        if self._folded.used:
            below = self._folded.first(path.lower(), question, below)
        if not self._somewhere:
            below = self._anywhere.first(question, below)
        return below if below < self._size else -1


def build_index(matches: Sequence[Conditions], few: int) -> Generator[None, None, RouteIndex]:
    """Return the index of matches, by their place in this list; yield after every few. ``few`` of one place in the
    index are not divided."""
    index = RouteIndex(len(matches))
    yield from index.fill(matches, few)
    return index
