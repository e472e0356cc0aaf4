"""The table of roles and calls on the page of the control plane is that of the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from control.routes import ANYONE, CALLS

PAGE = Path(__file__).parents[3] / "docs" / "control.md"
_ROW = re.compile(r"^\| (`.*) \| ([a-z, -]+) \| .* \|$", re.MULTILINE)
_CALL = re.compile(r"`(?:(GET|PUT|POST|DELETE)\b ?)?((?:\.\.\.)?/[^`?{ ]*[^`? ]*)?`")


def told() -> Iterator[tuple[str, str, str]]:
    """(method, path, roles) of each call in the table; a call may leave out what it has from the one before."""
    text = PAGE.read_text()
    table = text[text.index("| call | role | does |") : text.index("`/v1/bundle` and `/v1/crl` take")]
    for calls, roles in _ROW.findall(table):
        method = path = ""
        for which, where in _CALL.findall(calls):
            method = which or method
            path = path + where[3:] if where.startswith("...") else where or path
            yield method, path, roles


def test_the_page_has_every_call_with_its_roles() -> None:
    expected = set()
    for call in CALLS:
        roles = ", ".join(sorted(role.value for role in call.roles or ())) or "-"
        expected.add((call.method, call.path, "any" if call.roles == ANYONE else roles))
    assert set(told()) == expected
