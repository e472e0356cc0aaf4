"""What is installed: every line that says what to install names this distribution, and the locks in requirements/ have
a hash for everything, no address, and versions that pyproject.toml allows."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
NAME = PROJECT["project"]["name"]
EXTRAS = PROJECT["project"]["optional-dependencies"]
GROUPS = PROJECT["dependency-groups"]
LOCKS = {path.stem: path for path in (ROOT / "requirements").iterdir()}
PYTHONS = ("3.11.0", "3.11.14", "3.12.0", "3.13.0", "3.14.5")
PIN = re.compile(r"([a-z0-9-]+)==([a-z0-9.]+)( ; .+)? \\")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")
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


def test_every_extra_and_group_has_a_lock() -> None:
    assert set(LOCKS) == {"run", *EXTRAS, *GROUPS}
    assert set(PROJECT["build-system"]["requires"]) <= set(GROUPS["build"])


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_versions_and_hashes_and_nothing_else(name: str) -> None:
    text = LOCKS[name].read_text()
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for before, line in zip(["", *lines], [*lines, ""], strict=True):
        assert HASH.fullmatch(line) or PIN.fullmatch(line) or not line, line
        assert HASH.fullmatch(line) or not before.endswith("\\"), f"no hash: {before}"
    assert not re.search(r"://|(^|\s)[/~]|index-url|find-links|@", text)


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_is_within_the_ranges(name: str, python: str) -> None:
    found = pins(name, python)
    for wanted in ranges(name):
        assert wanted.specifier.contains(found[canonicalize_name(wanted.name)]), wanted


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", sorted(LOCKS.keys() - {"mitmproxy"}))  # which is installed by itself
def test_locks_agree(name: str, python: str) -> None:
    all_else = pins("dev", python)
    differing = {each for each, version in pins(name, python).items() if all_else.get(each, version) != version}
    assert differing == set()


def pins(name: str, python: str) -> dict[str, str]:
    """The versions that a lock has for this Python on Linux."""
    environment = {"python_version": python.rpartition(".")[0], "python_full_version": python, "sys_platform": "linux"}
    found: dict[str, str] = {}
    for line in LOCKS[name].read_text().splitlines():
        if PIN.fullmatch(line):
            pin = Requirement(line.rstrip(" \\"))
            if pin.marker is None or pin.marker.evaluate(environment):
                assert pin.name not in found, f"{pin.name} is there twice"
                found[pin.name] = str(pin.specifier).removeprefix("==")
    return found


def ranges(name: str) -> list[Requirement]:
    """What pyproject.toml wants of a lock."""
    if name in GROUPS:
        return [Requirement(each) for each in GROUPS[name]]
    found = [Requirement(each) for each in [*PROJECT["project"]["dependencies"], *EXTRAS.get(name, [])]]
    taken = [extra for each in found if each.name == NAME for extra in each.extras]
    return [each for each in found if each.name != NAME] + [each for extra in taken for each in ranges(extra)]
