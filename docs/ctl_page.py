"""docs/reference/sidecarctl.md, from the commands themselves."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import click

from control.ctl.command import SECTIONS, command
from control.ctl.command_base import Command
from control.ctl.exit_codes import MEANINGS
from control.ctl.kinds import NAMES

_HEAD = """\
# sidecarctl

<!-- Made from control/ctl by make docs; change that, not this. -->

```
sidecarctl [FLAG ...] COMMAND [...]
```

What people use of a mesh: documents, services, proxies, tokens and certificates, and a look into one proxy. A session
to read is [on its own page](../sidecarctl.md).

## Where to call

These flags stand before the command's name or behind it. Each but `--no-color` has a twin in the environment; the flag
wins over that, and that over the configuration file, which `sidecarctl login` writes. A token of the file is shown to
the server that it was kept for and to no other: with another `--server`, name a `--token-file` as well.

| flag | twin | meaning |
| --- | --- | --- |
"""
_KINDS = """\

## Kinds

In any case; the short form is the last.

| kind | written as well |
| --- | --- |
"""
_CODES = """\

## Exit codes

| code | meaning |
| --- | --- |
"""


def text() -> str:
    """The page."""
    parts = [_HEAD]
    for option in command.params:
        if isinstance(option, click.Option) and option.name not in ("version", "help"):
            twin = f"`{option.envvar}`" if option.envvar else ""
            parts.append(f"| `{_form(option)}` | {twin} | {_cell(option.help or '')} |\n")
    parts.append(_KINDS)
    parts += [f"| `{kind}` | {', '.join(f'`{name}`' for name in more)} |\n" for kind, more in NAMES.items()]
    parts.append(_CODES)
    parts += [f"| {code.value} | {meaning} |\n" for code, meaning in MEANINGS.items()]
    for title, commands in SECTIONS.items():
        parts.append(f"\n## {title}\n")
        for each in commands:
            parts += _command(each, f"sidecarctl {each.name}")
    return "".join(parts)


def _command(found: click.Command, path: str) -> Iterator[str]:
    if isinstance(found, click.Group):
        for name, each in found.commands.items():
            yield from _command(each, f"{path} {name}")
        return
    arguments = [each for each in found.params if isinstance(each, click.Argument)]
    words = "".join(f" {each.make_metavar(click.Context(found))}" for each in arguments)
    yield f"\n### {path}\n\n```\n{path}{words} [FLAG ...]\n```\n\n{_prose(found.help or '')}\n"
    own = [each for each in found.params if isinstance(each, click.Option)]
    if isinstance(found, Command):
        own = [each for each in own if each not in found.shared]
    if own:
        yield "\n| flag | default | meaning |\n| --- | --- | --- |\n"
        yield from (f"| `{_form(each)}` | {_default(each)} | {_cell(_meaning(each))} |\n" for each in own)
    if isinstance(found, Command) and found.examples:
        yield "\n```\n" + "".join(f"$ {example}\n" for example in found.examples) + "```\n"


def _prose(help_text: str) -> str:
    paragraphs = help_text.replace("\b", "").split("\n\n")
    return "\n\n".join(textwrap.fill(" ".join(each.split()), 118) for each in paragraphs)


def _form(option: click.Option) -> str:
    flags = ", ".join([*option.opts, *option.secondary_opts])
    if option.is_flag and option.is_bool_flag:
        return flags
    metavar = option.metavar or option.make_metavar(click.Context(command))
    return _cell(f"{flags} {metavar}")


def _default(option: click.Option) -> str:
    shown = option.show_default and option.default not in (None, "", False)
    return f"`{option.default}`" if shown else ""


def _meaning(option: click.Option) -> str:
    words = option.help or ""
    return f"{words} (`{option.envvar}`)" if option.envvar else words


def _cell(words: str) -> str:
    return words.replace("|", "\\|")
