"""``python -m tests.guards``: take out each guard of the h11 table in turn, and name the test that notices.

A guard that no test misses is a guard that the next change may lose. Each row of the table names the exact text of its
guard and what stands there without it; the text is replaced in a temporary copy of the tree, and the hostile cases of
that row (and the strict head's own tests) are run there. The exit code is 1 where a removed guard made no test fail,
or where the text of a guard is no longer found.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.hostile.cases.traps import ROWS

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True)
class Patch:
    """Replace ``old``, which must be there exactly once, by ``new`` in ``file``."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Guard:
    """What holds one row: ``row`` is its id in the table, ``patches`` take the guard out, ``tests`` are pytest's
    arguments that must fail then; by default the row's hostile cases."""

    row: str
    what: str
    patches: tuple[Patch, ...]
    tests: tuple[str, ...] = ()

    @property
    def arguments(self) -> tuple[str, ...]:
        return self.tests or ("tests/hostile/test_cases.py", "-k", f"{self.row}- and one_verdict")


GUARDS: tuple[Guard, ...] = ()


def copy_tree(into: Path) -> Path:
    """The checkout without its history, environments and results."""
    target = into / "tree"
    ignored = shutil.ignore_patterns(".git", ".venv", "venv", "__pycache__", "results", ".*_cache", "*.egg-info")
    shutil.copytree(ROOT, target, ignore=ignored)
    return target


def apply(tree: Path, patches: tuple[Patch, ...]) -> None:
    """Take the guard out; ValueError where the text is not there exactly once."""
    for patch in patches:
        path = tree / patch.file
        text = path.read_text()
        if text.count(patch.old) != 1:
            raise ValueError(f"{patch.file}: {text.count(patch.old)} times, not once: {patch.old!r}")
        path.write_text(text.replace(patch.old, patch.new))


def run(tree: Path, arguments: tuple[str, ...]) -> tuple[int, list[str]]:
    """pytest in the copy: its exit code and the names of the tests that failed."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-header", "-rfE", *arguments]
    done = subprocess.run(command, cwd=tree, capture_output=True, text=True, timeout=600, check=False)
    failed = re.findall(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    if done.returncode not in (0, 1):
        failed = [f"pytest ended with {done.returncode}: {(done.stdout + done.stderr)[-400:]}"]
    return done.returncode, failed


def judge(guard: Guard) -> str | None:
    """Print the row's line; what is wrong, or None."""
    with tempfile.TemporaryDirectory(prefix="guards-") as directory:
        tree = copy_tree(Path(directory))
        try:
            apply(tree, guard.patches)
        except ValueError as error:
            return f"{guard.row}: {error}"
        code, failed = run(tree, guard.arguments)
    words = ROWS[guard.row][0]
    if code != 1:
        return f"{guard.row} ({words}): {guard.what} taken out, and no test fails ({code} {failed})"
    print(f"{guard.row:7} {words}\n        guard: {guard.what}\n        fails: {', '.join(failed)}", flush=True)
    return None


def main() -> int:
    """The command; 0 where each row has a guard that a test misses."""
    parser = argparse.ArgumentParser(prog="python -m tests.guards", description=__doc__)
    parser.add_argument("rows", nargs="*", help="ids such as H11-4; all by default")
    wanted = parser.parse_args().rows or list(ROWS)
    wrong = [f"{row} ({ROWS[row][0]}): no guard is named" for row in wanted if not any(g.row == row for g in GUARDS)]
    for guard in GUARDS:
        if guard.row in wanted:
            found = judge(guard)
            if found is not None:
                wrong.append(found)
    for line in wrong:
        print(f"WRONG {line}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
