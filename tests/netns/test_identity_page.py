"""The example of docs/identity.md is typed into a shell, and what comes is held against what stands there."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

from tests.netns.conftest import MakePod
from tests.netns.environment import ROOT

PAGE = ROOT / "docs" / "identity.md"
CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def example() -> list[tuple[str, list[str]]]:
    """Each command of the example, and the lines that have to come."""
    section = PAGE.read_text().split("\n## A mesh on one machine\n")[1].split("\n## ")[0]
    steps: list[tuple[str, list[str]]] = []
    ends = ""  # of a here document
    for line in "".join(CONSOLE.findall(section)).splitlines():
        if line.startswith("$ "):
            steps.append((line[2:], []))
            ends = "END" if line.endswith("<<'END'") else ""
        elif ends or steps[-1][0].endswith("\\"):
            steps[-1] = (f"{steps[-1][0]}\n{line}", [])
            ends = "" if line == ends else ends
        else:
            steps[-1][1].append(line)
    return steps


def pattern(lines: list[str]) -> str:
    return "\n".join(r"\S+".join(re.escape(part) for part in line.split("...")) for line in lines)


def commands(directory: Path) -> str:
    """Where ``sidecar`` and ``sidecar-control`` are, as if they were installed."""
    for name, module in (("sidecar", "sidecar"), ("sidecar-control", "control")):
        path = directory / name
        path.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m {module} "$@"\n')
        path.chmod(0o755)
    return shlex.quote(str(directory))


def test_what_stands_there_can_be_typed(make_pod: MakePod, tmp_path: Path) -> None:
    pod, steps = make_pod("a"), example()
    assert len(steps) > 25
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    typed = "".join(f"echo @@{number}\n{command}\n" for number, (command, _) in enumerate(steps))
    script = tmp_path / "typed"
    script.write_text(f"PATH={commands(tmp_path)}:$PATH\ncd {shlex.quote(str(tmp_path))}\n{typed}")
    heard = pod.run("bash", str(script), deadline=60.0)
    answers = re.split(r"^@@\d+\n", heard, flags=re.MULTILINE)[1:]
    assert len(answers) == len(steps), heard
    for (command, lines), answer in zip(steps, answers, strict=True):
        assert re.fullmatch(pattern(lines), answer.rstrip("\n")), f"$ {command}\n{answer}"
