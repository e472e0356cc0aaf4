"""What is installed: every line that says what to install names this distribution, and extras that it has."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NAME = PROJECT["project"]["name"]
EXTRAS = PROJECT["project"]["optional-dependencies"]
FOLDERS = ("bench", "certs", "control", "docs", "init", "sidecar")


def test_every_line_that_says_what_to_install_names_this_distribution() -> None:
    pages = [ROOT / "README.md", *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.*"))]
    texts = [path.read_text() for path in pages if path.suffix in (".md", ".py") and ".venv" not in str(path)]
    named = [found for text in texts for found in re.findall(r"'(\.|[\w-]+)\[([a-z,]+)\]'", text)]
    assert {name for name, _ in named} == {".", NAME}
    assert {extra for _, extras in named for extra in extras.split(",")} <= EXTRAS.keys()
    assert all(f"{name}[" not in text for text in texts for name in ("pip install sidecar", "pip install 'sidecar"))


def test_extras_that_take_others_name_this_distribution() -> None:
    own = [each for extra in EXTRAS.values() for each in extra if each.startswith("sidecar")]
    assert own == [f"{NAME}[control,ctl,docs]"]
