"""No two modules import each other, at once or by way of others: also not in a function, nor for their types alone."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.unit.test_laws import PACKAGES, ROOT

Imports = dict[str, frozenset[str]]


def imports_of(sources: Mapping[str, str]) -> Imports:
    """What each of these modules, given by name and source, imports of the others, anywhere in it."""
    return {name: frozenset(_imported(source, sources)) - {name} for name, source in sources.items()}


def _imported(source: str, known: Mapping[str, str]) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, "imports are absolute"
            wanted = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        found.update(_module_of(name, known) for name in wanted)
    return found - {""}


def _module_of(name: str, known: Mapping[str, str]) -> str:
    """The module that this is, or that it is a name of; empty if it is none of ours."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name


def circles(imports: Imports) -> list[list[str]]:
    """The modules of each circle, sorted; a module that no circle goes through is in none."""
    left = dict(imports)
    while free := [name for name, wanted in left.items() if not wanted & left.keys()]:
        for name in free:
            del left[name]
    reached = {name: _reached(name, left) for name in left}
    found = {frozenset(each for each in reached[name] if name in reached[each]) for name in left}
    return sorted(sorted(circle) for circle in found if circle)


def _reached(start: str, imports: Imports) -> set[str]:
    """All that importing ``start`` leads to; itself only by a circle."""
    reached: set[str] = set()
    queue = [start]
    while queue:
        for name in imports[queue.pop()] & imports.keys() - reached:
            reached.add(name)
            queue.append(name)
    return reached


def sources() -> dict[str, str]:
    """All modules that are shipped, by name."""
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            found[module_name(path)] = path.read_text()
    return found


def module_name(path: Path) -> str:
    """As it is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_module_imports_itself_by_way_of_others() -> None:
    imports = imports_of(sources())
    assert {"certs.verify", "control.app", "init.plan", "sidecar.app"} <= imports.keys()
    assert "sidecar.net.connection" in imports["sidecar.tls.handshake"]
    assert circles(imports) == []


@pytest.mark.parametrize(
    "closing",
    [
        "from p import a",
        "import p.a",
        "from p.a import name",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.a import Name",
        "def later():\n    from p import a",
        "from p import d",
    ],
)
def test_a_circle_is_found(closing: str) -> None:
    planted = {
        "p": "",
        "p.a": "from p.b import name",
        "p.b": "import os\nfrom p import c",
        "p.c": closing,
        "p.d": "from p.a import name",
        "p.e": "from p import a",
    }
    members = ["p.a", "p.b", "p.c"] + (["p.d"] if closing == "from p import d" else [])
    assert circles(imports_of(planted)) == [members]


def test_two_circles_are_told_apart() -> None:
    planted = {"a": "import b", "b": "import a", "c": "import d", "d": "import c\nimport a"}
    assert circles(imports_of(planted)) == [["a", "b"], ["c", "d"]]
