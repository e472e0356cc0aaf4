"""``-f``: files, directories and standard input -> documents, each with the lines where its parts stand.

Who calls it: the commands that take documents. What they may say is judged elsewhere; here they are texts, and a text
that is no YAML is refused at once, with all others that are not. A problem that the control plane finds is told with
the file and line of what it is about.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from control.ctl.exit_codes import Exit, Failed
from control.rate_limits import APPLY_BODY_BYTES
from sidecar.resources import yaml_reader
from sidecar.resources.validation import path_text

SUFFIXES: Final = (".yaml", ".yml", ".json")
STDIN: Final = "stdin"
MAX_BYTES: Final = 32 << 20  # of all together
Where = tuple[str | int, ...]


class Source:
    """One document as it was written. ``value`` is what it says."""

    def __init__(self, file: str, text: yaml_reader.Text, namespace: str) -> None:
        self.file = file
        self.value: Any = text.root
        self._text = text
        self._lines: dict[str, int] | None = None
        metadata = self.value.get("metadata") if isinstance(self.value, dict) else None
        if namespace and isinstance(metadata, dict):
            metadata.setdefault("namespace", namespace)

    @property
    def title(self) -> str:
        """As the control plane names it: ``Service shop/web``; empty where that can't be read."""
        key = self.key
        return f"{key[0]} {key[1]}/{key[2]}" if key else ""

    @property
    def key(self) -> tuple[str, str, str] | None:
        """Kind, namespace, name; None where that can't be read."""
        metadata = self.value.get("metadata") if isinstance(self.value, dict) else None
        if not isinstance(metadata, dict):
            return None
        kind, namespace, name = self.value.get("kind"), metadata.get("namespace", "default"), metadata.get("name")
        if isinstance(kind, str) and isinstance(namespace, str) and isinstance(name, str):
            return kind, namespace, name
        return None

    def at(self, path: str = "") -> str:
        """``file:line`` of what stands at this path, or of the nearest that is there."""
        if self._lines is None:
            self._lines = {path_text(each): self._text.line(each) for each in _paths(self.value, ())}
        while path not in self._lines:
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return f"{self.file}:{self._lines[path]}"


def _paths(value: Any, path: Where) -> Iterator[Where]:
    """The path of every value in this one."""
    yield path
    items: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, dict):
        items = ((str(key), each) for key, each in value.items())
    elif isinstance(value, list):
        items = enumerate(value)
    for key, each in items:
        yield from _paths(each, (*path, key))


def contents(names: Sequence[str], recursive: bool = False) -> list[tuple[str, bytes]]:
    """Each file's name and content: of a directory those with a suffix of SUFFIXES, in the order of their names; ``-``
    is standard input. Failed where one can't be read, or there is none."""
    found: list[tuple[str, bytes]] = []
    for name in names:
        if name == "-":
            found.append((STDIN, sys.stdin.buffer.read(MAX_BYTES + 1)))
            continue
        try:
            found += [(str(path), path.read_bytes()) for path in _files(Path(name), recursive)]
        except OSError as error:
            why = f"-f {error.filename}: {error.strerror}; name a file, a directory, or - for standard input"
            raise Failed(Exit.USAGE, why) from None
    if sum(len(content) for _, content in found) > MAX_BYTES:
        raise Failed(Exit.USAGE, f"-f: more than {MAX_BYTES >> 20} MiB in all; take fewer files at a time")
    return found


def _files(path: Path, recursive: bool) -> list[Path]:
    if not path.is_dir():
        return [path]
    beside = path.rglob("*") if recursive else path.iterdir()
    found = sorted(each for each in beside if each.suffix in SUFFIXES and not each.name.startswith("."))
    if not found:
        raise Failed(Exit.USAGE, f"-f {path}: there is no file in it whose name ends with {', '.join(SUFFIXES)}")
    return [each for each in found if each.is_file()]


def documents(files: Sequence[tuple[str, bytes]], namespace: str = "") -> list[Source]:
    """All documents of files as ``contents`` has them; those that name no namespace are of ``namespace``. Failed with a
    line for each file that is no YAML, or has no document."""
    found: list[Source] = []
    problems: list[str] = []
    for file, content in files:
        try:
            found += [Source(file, text, namespace) for text in yaml_reader.read_all(content.decode("utf-8"))]
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            problems.append(f"{file}:{line}: this is no UTF-8")
        except yaml_reader.BadText as error:
            problems.append(f"{file}:{error.line}: {error.why}" if error.line else f"{file}: {error.why}")
    if problems:
        raise Failed(Exit.NOT, *problems)
    if len(json.dumps([source.value for source in found])) > APPLY_BODY_BYTES:
        why = f"{len(found)} documents have more than {APPLY_BODY_BYTES >> 20} MiB in all; take fewer files at a time"
        raise Failed(Exit.USAGE, f"-f: {why}")
    return found


def placed(problems: Sequence[Mapping[str, Any]], sources: Sequence[Source]) -> list[str]:
    """The control plane's problems, each as ``file:line: path: why``."""
    by_title = {source.title: source for source in reversed(sources)}
    by_title |= {f"#{number}": source for number, source in enumerate(sources, 1)}
    lines = []
    for problem in problems:
        title, path, why = (str(problem.get(name, "")) for name in ("document", "path", "why"))
        source = by_title.get(title)
        if source is not None:
            lines.append(": ".join(part for part in (source.at(path), path, why) if part))
            continue
        # It is about a document that is there; ours, if any, is the one that it is said to contradict.
        other = max((each for each in by_title if each and each in why), key=len, default="")
        place = by_title[other].at() if other else ""
        lines.append(": ".join(part for part in (place, title, path, why) if part))
    return lines
