"""Writes the pages of docs/reference that the code knows best: ``python -m docs.generate``."""

from __future__ import annotations

from pathlib import Path

from sidecar.options import OPTIONS, Option

REFERENCE = Path(__file__).parent / "reference"
FLAGS = REFERENCE / "flags.md"

_HEAD = """\
# Flags

Made from the table in `sidecar/options.py` by `make docs`; change that, not this.

Each flag has a twin in the environment; where both are given the flag wins. Durations are written `10`, `10s`,
`250ms`, `5m` or `1h` (without a unit: seconds), sizes `65536`, `64KiB` or `10MB` (without a unit: bytes). A wrong
value, an unknown flag, or an address that is taken ends the command with one line that names it, and exit code 2. A
variable `SIDECAR_...` that is no twin of a flag is named in a warning.
"""
_FOOT = """\

## About

`--version` prints the version and `--help` a short form of this page; both end the command with exit code 0.
"""


def flags_page() -> str:
    """The text of docs/reference/flags.md."""
    parts = [_HEAD]
    for group in dict.fromkeys(option.group for option in OPTIONS):
        parts.append(f"\n## {group}\n\n| flag | twin | default | meaning |\n| --- | --- | --- | --- |\n")
        parts.extend(_row(option) for option in OPTIONS if option.group == group)
    return "".join(parts) + _FOOT


def _row(option: Option) -> str:
    form = option.metavar if option.bare is None else f"[{option.metavar}]"
    form, meaning = (text.replace("|", "\\|") for text in (form, option.help))
    if not option.default:
        default = ""
    elif option.computed is None:
        default = f"`{option.default}`"
    else:
        default = option.default
    return f"| `{option.flag} {form}` | `{option.twin}` | {default} | {meaning} |\n"


def main() -> None:
    REFERENCE.mkdir(exist_ok=True)
    FLAGS.write_text(flags_page())


if __name__ == "__main__":
    main()
