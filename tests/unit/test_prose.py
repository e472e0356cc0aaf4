"""Programs are named for what they are: no "whoever" or "nobody" in the docstrings, comments and messages of the rooms
that are done."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORDS = re.compile(r"\b(whoever|whomever|nobody|somebody|anybody)\b", re.IGNORECASE)
# Rooms and modules that are done; the list only grows.
DONE = (
    "sidecar/proxy",
    "sidecar/http",
    "sidecar/tls",
    "sidecar/net",
    "sidecar/policy",
    "sidecar/upstream",
    "sidecar/resources/app_ports.py",
    "sidecar/resources/protocols.py",
)
FILES = sorted(
    path for place in DONE for path in ([ROOT / place] if place.endswith(".py") else list((ROOT / place).rglob("*.py")))
)


def found_in(source: str) -> list[str]:
    """The words that stand in its comments and strings, with their lines."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    texts = [each for each in tokens if each.type in (tokenize.COMMENT, tokenize.STRING)]
    return [f"{each.start[0]}: {word}" for each in texts for word in WORDS.findall(each.string)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_actor_is_named(path: Path) -> None:
    assert found_in(path.read_text()) == []


def test_a_planted_word_is_seen() -> None:
    assert found_in('x = 1  # for whoever asks\n"""Nobody knows."""\n') == ["1: whoever", "2: Nobody"]
