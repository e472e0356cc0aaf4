"""Another revision of this project as a proxy under test: its checkout, its packages, and its command lines.

Called by the command line for ``--against``. Both sides of such a run, the working tree and the other revision, are
started in the same way, so that their figures differ by their code alone. Each runs with its own root as working
directory and as PYTHONPATH, and its own ``bench`` writes its command lines, since flags may differ.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.hops import Hop
from bench.processes import ROOT, BenchError, which
from bench.proxies import OURS, Mode, Place, Proxy

# The tree's own command line, by its own bench: for a place, or as one of the two sidecars of a call in a mesh.
_COMMAND = """
import json, sys
from pathlib import Path
from bench.proxies import OURS, Mode, Place
mode, place = json.loads(sys.argv[1])
print(json.dumps(list(OURS.command(Mode(mode), Place(**{**place, "run": Path(place["run"])})))))
"""
_HOP = """
import json, sys
from pathlib import Path
from bench.hops import Hop
from bench.proxies import OURS
from tests.support.papers import Papers
hop = json.loads(sys.argv[1])
papers = {name: text if name == "spiffe_id" else Path(text) for name, text in hop["papers"].items()}
known = {name: value for name, value in hop.items() if name in Hop.__dataclass_fields__ or value}
print(json.dumps(list(OURS.hop(Hop(**{**known, "run": Path(hop["run"]), "papers": Papers(**papers)})))))
"""
_COMPILED = ("bench", "certs", "control", "init", "sidecar", "tests/support")


@dataclass(frozen=True, slots=True)
class Tree:
    """A checkout: its root, the interpreter that has its packages, and what it is in words."""

    root: Path
    python: str
    what: str

    def command(self, *words: str) -> list[str]:
        """The command line that runs the words in the tree, with its modules before all others."""
        return [which("env", "coreutils"), "-C", str(self.root), f"PYTHONPATH={self.root}", *words]

    def python_prints(self, *arguments: str) -> str:
        """What the tree's interpreter prints; raises BenchError with its last line where it fails."""
        return _output(self.command(self.python, *arguments)).strip()


@contextlib.contextmanager
def checked_out(revision: str, directory: Path) -> Iterator[Tree]:
    """Check the revision out below ``directory``, which is the caller's to remove; with packages of its own where it
    depends on others than the working tree does. Raises BenchError where there is no such revision."""
    if not (ROOT / ".git").exists():
        raise BenchError(f"--against needs a git checkout, and {ROOT} is none")
    git = [which("git", "git"), "-C", str(ROOT)]
    parse = [*git, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}"]
    commit = subprocess.run(parse, capture_output=True, text=True, check=False).stdout.strip()
    if not commit:
        raise BenchError(f"there is no revision {revision!r}")
    root, packed = directory / "other", directory / "other.tar"
    root.mkdir()
    # Not `git worktree`: an archive leaves nothing in the repository, even where this process is killed.
    _output([*git, "archive", "--format=tar", f"--output={packed}", commit])
    _output([which("tar", "tar"), "-xf", str(packed), "-C", str(root)])
    packed.unlink()
    python = sys.executable
    if dependencies(root) != dependencies(ROOT):
        python = _environment(directory / "environment", dependencies(root))
    yield ready(Tree(root, python, f"{revision}, {commit[:12]}"))


def working_tree() -> Tree:
    """The tree that this benchmark is of."""
    git = [which("git", "git"), "-C", str(ROOT)]
    return ready(Tree(ROOT, sys.executable, _output([*git, "describe", "--always", "--dirty", "--abbrev=12"]).strip()))


def ready(tree: Tree) -> Tree:
    """The tree, compiled; raises BenchError where its interpreter would run the sidecar of another one."""
    # A process that compiles its modules itself takes more memory; the exit code is 1 for any file that can't be.
    if compiled := [name for name in _COMPILED if (tree.root / name).is_dir()]:
        tree.python_prints("-m", "compileall", "-q", "-x", r"/\.venv", *compiled)
    file = tree.python_prints("-c", "import sidecar; print(sidecar.__file__)")
    if Path(file).resolve() != (tree.root / "sidecar" / "__init__.py").resolve():
        raise BenchError(f"{tree.root} was to be measured, and its interpreter imports {file}")
    return tree


def side(name: str, tree: Tree) -> Proxy:
    """The tree's sidecar as a proxy of this name, which plays whatever ours plays."""

    def command(mode: Mode, place: Place) -> Sequence[str]:
        return _asked(tree, _COMMAND, [mode.value, asdict(place)])

    def hop(hop: Hop) -> Sequence[str]:
        return _asked(tree, _HOP, asdict(hop))

    return Proxy(
        name, command, lambda: f"{tree.what}; {tree.python_prints('-m', 'sidecar', '--version')}",
        ready_line=OURS.ready_line, hop=hop, part=OURS.name, tree=tree.root,
    )  # fmt: skip


def dependencies(root: Path) -> list[str]:
    """What the sidecar of the tree needs, as pyproject.toml says it."""
    found: list[str] = tomllib.loads((root / "pyproject.toml").read_text())["project"]["dependencies"]
    return sorted(found)


def _environment(place: Path, packages: Sequence[str]) -> str:
    print("bench: its dependencies differ; installing them ...", file=sys.stderr)
    python = str(place / "bin" / "python")
    inside = ["env", f"TMPDIR={place.parent}"]  # so that an interrupted pip leaves nothing behind either
    _output([*inside, sys.executable, "-m", "venv", str(place)])
    _output([*inside, python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", *packages])
    return python


def _asked(tree: Tree, program: str, given: object) -> list[str]:
    words: list[str] = json.loads(tree.python_prints("-c", program, json.dumps(given, default=str)))
    return tree.command(*words)


def _output(command: Sequence[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no output"]
        raise BenchError(f"{' '.join(command[:6])} ... ended with {done.returncode}: {last[0]}")
    return done.stdout
