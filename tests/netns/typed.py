"""A page's example, typed into a shell in a pod of its own, and what comes held against what stands there.

``...`` on the page stands for what differs each time.
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

from tests.netns.environment import ROOT
from tests.netns.pod import Pod

CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMMANDS = {"sidecar": "sidecar", "sidecar-control": "control", "sidecarctl": "control.ctl"}


def example(page: Path, section: str) -> list[tuple[str, list[str]]]:
    """Each command of the section's example, and the lines that have to come."""
    text = page.read_text().split(f"\n## {section}\n")[1].split("\n## ")[0]
    steps: list[tuple[str, list[str]]] = []
    ends = ""  # of a here document
    for line in "".join(CONSOLE.findall(text)).splitlines():
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
    """Where our commands are, as if they were installed."""
    for name, module in COMMANDS.items():
        path = directory / name
        path.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m {module} "$@"\n')
        path.chmod(0o755)
    return shlex.quote(str(directory))


def type_in(pod: Pod, steps: list[tuple[str, list[str]]], directory: Path, deadline: float = 300.0) -> None:
    """AssertionError for the first command that answers otherwise. Errors are part of the answer."""
    (directory / "examples").symlink_to(ROOT / "examples")
    typed = "".join(f"echo @@{number}\n{command}\n" for number, (command, _) in enumerate(steps))
    script = directory / "typed"
    here = shlex.quote(str(directory))
    script.write_text(f"exec 2>&1\nPATH={commands(directory)}:$PATH\nexport HOME={here}\ncd {here}\n{typed}")
    heard = pod.run("bash", str(script), deadline=deadline)
    answers = re.split(r"^@@\d+\n", heard, flags=re.MULTILINE)[1:]
    assert len(answers) == len(steps), heard
    for (command, lines), answer in zip(steps, answers, strict=True):
        assert re.fullmatch(pattern(lines), answer.rstrip("\n")), f"$ {command}\n{answer}"
