"""What goes to standard output: a table, YAML or JSON; and to standard error: what one waits for.

Who calls it: the commands, with values as they came. On a terminal there are colours (rich, imported there alone); in a
pipe or a file there is plain text, a line per row, columns two spaces apart, and nothing that moves.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TextIO

if TYPE_CHECKING:
    from rich.console import Console

FORMATS: Final = ("table", "wide", "json", "yaml")
Row = Mapping[str, Any]
_STYLES: Final = {
    "yes": "green", "no": "bold red", "refused": "bold red", "stale": "yellow", "unhealthy": "bold red",
    "healthy": "green", "in sync": "green", "behind": "yellow", "issuing": "green", "published": "yellow",
    "retiring": "yellow",
}  # fmt: skip


class Column(NamedTuple):
    """``of`` makes a cell of a row; a ``wide`` one is shown with ``-o wide`` alone."""

    title: str
    of: Callable[[Row], str]
    wide: bool = False


class Printer:
    """``form`` is one of FORMATS. ``color``: where the stream is a terminal."""

    def __init__(self, form: str = "table", *, headers: bool = True, color: bool = True) -> None:
        self.form = form
        self._headers = headers
        self._color = color

    def rows(self, columns: Sequence[Column], rows: Sequence[Row], whole: object, none: str) -> None:
        """A list: as a table of ``rows``, or ``whole`` as it is. ``none`` is said where there are no rows."""
        if self.form in ("json", "yaml"):
            self.value(whole)
            return
        if not rows:
            sys.stderr.write(f"{none}\n")
            return
        shown = [column for column in columns if self.form == "wide" or not column.wide]
        cells = [[_line(column.of(row)) for column in shown] for row in rows]
        self._table([column.title for column in shown] if self._headers else [], cells)

    def value(self, value: object) -> None:
        """A value as JSON, or as YAML that can be read again."""
        if self.form == "json":
            self.text(json.dumps(value, indent=2) + "\n", "json")  # ASCII: whatever others wrote is escaped
        else:
            self.text(as_yaml(value), "yaml")

    def text(self, text: str, language: str = "") -> None:
        """A text with its line ends; coloured by its language on a terminal."""
        if language and self._color and sys.stdout.isatty():
            from rich.syntax import Syntax

            _console(sys.stdout).print(Syntax(text.rstrip("\n"), language, background_color="default"), soft_wrap=True)
        else:
            sys.stdout.write(printable(text))

    def _table(self, titles: list[str], cells: list[list[str]]) -> None:
        widths = [max(map(len, column)) for column in zip(*([titles] if titles else []), *cells, strict=True)]
        console = _console(sys.stdout) if self._color and sys.stdout.isatty() else None
        for number, row in enumerate([*([titles] if titles else []), *cells]):
            padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
            if console is None:
                sys.stdout.write("  ".join(padded).rstrip() + "\n")
            else:
                _print_row(console, padded, "bold" if titles and number == 0 else "")

    @contextlib.contextmanager
    def waiting(self, sentence: str) -> Iterator[Callable[[str], None]]:
        """While the block lasts, a sentence on standard error that can be replaced; on a terminal alone."""
        if not sys.stderr.isatty():
            yield lambda _: None
            return
        with _console(sys.stderr, self._color).status(sentence) as status:
            yield status.update


def as_yaml(*values: object) -> str:
    """Documents of YAML, one after the other, as people write them; what can't be printed is escaped, and reads the
    same."""
    text = "---\n".join(_dumped(each, True) for each in values)
    return text if printable(text) == text else "---\n".join(_dumped(each, False) for each in values)


def _dumped(value: object, as_it_is: bool) -> str:
    import yaml

    text: str = yaml.dump(value, Dumper=_dumper(), sort_keys=False, allow_unicode=as_it_is, width=4096)
    return text


def _dumper() -> Any:
    import yaml

    class Indented(yaml.SafeDumper):
        """Texts that YAML 1.1 reads as something else are quoted by PyYAML already; several lines become a block."""

        def ignore_aliases(self, _: object) -> bool:
            return True

    def text(dumper: Any, value: str) -> Any:
        style = "|" if "\n" in value.rstrip("\n") else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)

    Indented.add_representer(str, text)
    return Indented


def printable(text: str) -> str:
    """Without what could move a terminal's cursor: what others wrote is shown, never obeyed."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each in "\n\t" else f"\\x{ord(each):02x}" for each in text)


def _line(cell: str) -> str:
    return printable(cell.replace("\n", " ").replace("\t", " ")) or "-"


def _print_row(console: Console, cells: list[str], style: str) -> None:
    from rich.text import Text

    line = Text("  ").join([Text(cell, style or _STYLES.get(cell.strip().lower(), "")) for cell in cells])
    line.rstrip()
    console.print(line, soft_wrap=True)


def _console(stream: TextIO, color: bool = True) -> Console:
    from rich.console import Console

    return Console(file=stream, highlight=False, markup=False, emoji=False, no_color=not color)
