"""``/stats``: every number as ``name: value``, for people and for grep; the same numbers as ``/metrics``.

``filter=`` is a small part of regular expressions, matched in a time that grows with the length of a line and no
faster: ``|`` between alternatives, ``^`` and ``$`` at their ends, ``.*`` between pieces; every other character is
itself. What else regular expressions have is refused, not misread.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

from sidecar.admin.context import AdminContext
from sidecar.admin.metrics import metrics
from sidecar.admin.responses import Reply, Request, as_json

LONGEST_FILTER = 256
_ELSEWHERE = re.compile(r"[\\()\[\]+?]|(?<!\.)\*|.\^|\$.")
_UNKNOWN = re.compile(r',?[a-z_]+="unknown"')  # a label that says nothing is for scrapers, which want all of them
_NAMES = {"format", "filter", "usedonly", "buckets"}

Matches = Callable[[str], bool]


async def stats(context: AdminContext, request: Request) -> Reply:
    """All numbers, or those whose name (with its labels) the filter finds."""
    parameters = request.parameters
    if set(parameters) - _NAMES:
        return Reply(400, f"there is no such parameter; there are {', '.join(sorted(_NAMES))}\n".encode())
    try:
        matches = compile_filter(parameters.get("filter", ""))
    except ValueError as error:
        return Reply(400, f"filter=: {error}\n".encode())
    page = await metrics(context, replace(request, accept="text/plain"))
    found = [
        (name, value)
        for name, value in _samples(page.body.decode(), buckets="buckets" in parameters)
        if matches(name) and (value or "usedonly" not in parameters)
    ]
    if request.json:
        return as_json({"stats": [{"name": name, "value": value} for name, value in found]})
    return Reply(200, "".join([f"{name}: {value}\n" for name, value in found]).encode())


def compile_filter(text: str) -> Matches:
    """A test for names. Raises ValueError, with a sentence, for what is not in the language above."""
    if len(text) > LONGEST_FILTER:
        raise ValueError(f"at most {LONGEST_FILTER} characters")
    alternatives = text.split("|")
    if any(_ELSEWHERE.search(alternative) for alternative in alternatives):
        raise ValueError("only | ^ $ and .* mean anything here, where they mean what they do in a regular expression")
    tests = [_alternative(alternative) for alternative in alternatives]
    return lambda name: any(test(name) for test in tests)


def _alternative(text: str) -> Matches:
    from_start, to_end = text.startswith("^"), text.endswith("$")
    pieces = text.removeprefix("^").removesuffix("$").split(".*")
    if from_start and to_end and len(pieces) == 1:
        return pieces[0].__eq__
    first = pieces.pop(0) if from_start else ""
    last = pieces.pop() if to_end else ""

    def test(name: str) -> bool:
        if not name.startswith(first):
            return False
        at = len(first)
        for piece in pieces:  # the first place that fits is as good as any later one
            found = name.find(piece, at)
            if found < 0:
                return False
            at = found + len(piece)
        return name.endswith(last) and len(name) - len(last) >= at

    return test


def _samples(page: str, *, buckets: bool) -> Iterator[tuple[str, float]]:
    for line in page.splitlines():
        if not line.startswith("#"):
            name, _, text = line.rpartition(" ")
            name = _UNKNOWN.sub("", name).replace("{,", "{").replace("{}", "")
            if buckets or not name.partition("{")[0].endswith("_bucket"):
                value = float(text)
                yield name, int(value) if value.is_integer() else value
