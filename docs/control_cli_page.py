"""docs/reference/control-cli.md, from the table of options of the control plane."""

from __future__ import annotations

from control.option_table import OPTIONS, Option

_HEAD = """\
# Command line of the control plane

<!-- Made from control/option_table.py by make docs; change that, not this. -->

```
sidecar-control [FLAG ...]
sidecar-control restore FILE [--void-tokens] [FLAG ...]
sidecar-control new-epoch [FLAG ...]
```

`restore` puts a backup of the store in its place, and `new-epoch` says that it was put back by hand, while no control
plane runs; see [disaster](../control.md#disaster). Without either it runs until SIGTERM or SIGINT
ends it (exit code 0). SIGHUP opens the audit log anew, for log rotation.

Each flag has a twin in the environment; where both are given the flag wins. Durations are written `10`, `10s`,
`250ms`, `5m` or `1h` (without a unit: seconds). Whatever is wrong (a value, an unknown flag, a file that others can
read) is named in a line and ends the command with exit code 2. A variable `SIDECAR_CONTROL_...` that is no twin of a
flag is named in a warning. What each is for is told in [the control plane](../control.md).
"""
_TABLE = "\n## {group}\n\n| flag | twin | default | meaning |\n| --- | --- | --- | --- |\n"
_ABOUT = """\

## About

`--version` prints the version and `--help` a short form of this page; both end the command with exit code 0.
"""


def text() -> str:
    """The page."""
    groups = dict.fromkeys(option.group for option in OPTIONS)
    tables = [
        _TABLE.format(group=group) + "".join(_row(option) for option in OPTIONS if option.group == group)
        for group in groups
    ]
    return "".join([_HEAD, *tables, _ABOUT])


def _row(option: Option) -> str:
    flag = f"`{option.flag} {_cell(option.metavar)}`"
    return f"| {flag} | `{option.twin}` | `{option.default}` | {_cell(option.help)} |\n"


def _cell(words: str) -> str:
    return words.replace("|", "\\|")
