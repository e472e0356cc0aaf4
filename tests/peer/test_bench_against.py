"""``python -m bench --against``: the other side runs the other revision's code, and nothing is left of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.guards import copy_tree
from tests.peer.programs import run

ROOT = Path(__file__).resolve().parents[2]
_MEGABYTES = 64
_BALLAST = f"\n_BALLAST = bytes(range(256)) * {_MEGABYTES << 12}\n"


@dataclass(frozen=True, slots=True)
class Repository:
    """A copy of this tree with one commit, whose sidecar holds some megabytes that the working tree's does not."""

    root: Path
    temporary: Path

    def bench(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bench", *words], cwd=self.root, capture_output=True, text=True, timeout=120,
            check=False, env={**os.environ, "TMPDIR": str(self.temporary)},
        )  # fmt: skip


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    place = tmp_path_factory.mktemp("against")
    root, temporary = copy_tree(ROOT, place / "tree"), place / "temporary"
    temporary.mkdir()
    init = root / "sidecar" / "__init__.py"
    text = init.read_text()
    init.write_text(text + _BALLAST)
    git = ("-C", str(root), "-c", "user.name=test", "-c", "user.email=test@localhost")
    for words in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "--message", "with ballast"]):
        run("git", *git, *words)
    init.write_text(text)
    yield Repository(root, temporary)
    assert list(temporary.iterdir()) == []


@pytest.mark.alone
def test_each_side_runs_its_own_code(repository: Repository) -> None:
    done = repository.bench("--against", "HEAD", "--only", "http1,start", "--quick")
    assert done.returncode == 0, done.stderr
    assert "\nhttp1 " in done.stdout and "\nstart " in done.stdout
    (written,) = (repository.root / "bench" / "results").glob("*-against.json")
    turns = json.loads(written.read_text())["turns"]["http1"]
    (this,), (other,) = turns["this"], turns["other"]
    more = other["rss_mb"] - this["rss_mb"]
    assert _MEGABYTES - 16 < more < _MEGABYTES + 16, f"{more} MB more"


def test_a_revision_that_there_is_not_is_told(repository: Repository) -> None:
    done = repository.bench("--against", "no-such-branch", "--only", "http1")
    assert done.returncode == 1
    assert done.stderr == "bench: there is no revision 'no-such-branch'\n"


def test_bounds_beside_envoy_are_not_judged_against_a_revision(repository: Repository) -> None:
    done = repository.bench("--against", "HEAD", "--check")
    assert done.returncode == 2 and "--check" in done.stderr
