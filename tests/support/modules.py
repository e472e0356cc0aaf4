"""Which modules a program loads, for the tests that forbid some of them.

A check that a module is absent passes when the module was renamed or removed. `existing` fails there.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def existing(*names: str) -> tuple[str, ...]:
    """Return the names; AssertionError for one that no module has."""
    missing = [name for name in names if not _is_found(name)]
    assert not missing, f"there is no module {', '.join(missing)}: a check for its absence proves nothing"
    return names


def _is_found(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # of the package around it
        return False


def loaded_by(statements: str) -> set[str]:
    """Run the statements in a new interpreter, and return the names of all modules that it has loaded then."""
    done = subprocess.run(
        [sys.executable, "-c", f"{statements}\nimport sys; print(*sys.modules, sep='\\n')"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def among(loaded: set[str], *forbidden: str) -> list[str]:
    """Return which of the loaded modules are a forbidden one or inside one; each forbidden one has to exist."""
    inside = tuple(f"{name}." for name in existing(*forbidden))
    return sorted(name for name in loaded if name in forbidden or name.startswith(inside))
