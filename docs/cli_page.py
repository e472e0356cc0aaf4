"""docs/reference/cli.md, from the table of options and that of commands."""

from __future__ import annotations

from collections.abc import Sequence

from sidecar.flag_parser import COMMANDS, form
from sidecar.option_table import OPTIONS, TIMEOUT, Option

_HEAD = """\
# Command line

<!-- Made from sidecar/option_table.py and sidecar/flag_parser.py by make docs; change those, not this. -->

```
sidecar --upstream HOST:PORT [FLAG ...]
sidecar COMMAND [...]
```

Without a command it runs the proxy, until SIGTERM or SIGINT has it drain (exit code 0). SIGHUP opens the access log
file anew, for log rotation.

Each flag has a twin in the environment; where both are given the flag wins. Durations are written `10`, `10s`,
`250ms`, `5m` or `1h` (without a unit: seconds), sizes `65536`, `64KiB` or `10MB` (without a unit: bytes). Whatever is
wrong (a value, an unknown flag, an address that is taken) is named in a line each, all at once, and ends the command
with exit code 2. A variable `SIDECAR_...` that is no twin of a flag is named in a warning.
"""
_COMMANDS = """\

## Commands

| command | what it does |
| --- | --- |
{rows}
### sidecar wait

Waits until `/ready` on the admin port (or `/healthz/ready` on the scrape port) says 200, then ends with exit code 0.
When `--timeout` has passed it ends with 1 and a line that says what was seen last, such as
`127.0.0.1:15000 was not ready within 60s; last: connection refused`. Without an address it asks where `SIDECAR_ADMIN`
puts the admin port, or, if that is `off`, where `SIDECAR_SCRAPE` puts the other. In a pod:

```yaml
lifecycle:
  postStart:
    exec:
      command: [sidecar, wait, --timeout, 30s]
```

| flag | default | meaning |
| --- | --- | --- |
{wait}
### sidecar check-config

Takes the flags of `sidecar` itself, reads the environment as well, and prints each setting, its value, and whether it
came from a flag, from the environment, or is the default; or all that is wrong, with exit code 2. It binds, opens and
looks up nothing.

```
$ sidecar check-config --upstream 127.0.0.1:8080 --protocol http | head -2
--upstream              127.0.0.1:8080  flag
--protocol              http            flag
```

### sidecar completion

```
source <(sidecar completion bash)       # in ~/.bashrc
source <(sidecar completion zsh)        # in ~/.zshrc, after compinit
sidecar completion fish | source        # in ~/.config/fish/config.fish
```
"""
_ABOUT = """\

## About

`--version` prints the version and `--help` a short form of this page; both end the command with exit code 0.
"""
_TWINS = "\n## {group}\n\n| flag | twin | default | meaning |\n| --- | --- | --- | --- |\n"


def text() -> str:
    """The page."""
    commands = "".join(f"| `{name} {_cell(words)}` | {means} |\n" for name, (words, means) in COMMANDS.items())
    asked = [option for option in OPTIONS if option.field in ("admin", "scrape")]
    wait = "".join(_row(option) for option in asked) + _row(TIMEOUT)
    groups = dict.fromkeys(option.group for option in OPTIONS)
    flags = [
        _TWINS.format(group=group) + _rows([option for option in OPTIONS if option.group == group]) for group in groups
    ]
    return "".join([_HEAD, _COMMANDS.format(rows=commands, wait=wait), *flags, _ABOUT])


def _rows(options: Sequence[Option]) -> str:
    return "".join(_row(option, f"`{option.twin}`") for option in options)


def _row(option: Option, *twin: str) -> str:
    if not option.default:
        default = ""
    elif option.computed is None:
        default = f"`{option.default}`"
    else:
        default = option.default
    return "| " + " | ".join([f"`{option.flag} {_cell(form(option))}`", *twin, default, _cell(option.help)]) + " |\n"


def _cell(words: str) -> str:
    return words.replace("|", "\\|")
