"""The configuration file: which control planes there are, and which of them is meant. Pure; YAML.

Who calls it: ``control.ctl.settings``, which reads and writes the file::

    current: prod
    contexts:
      prod:
        server: https://control.example:15012
        tokenFile: /home/ann/.config/sidecarctl/tokens/prod
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from control.ctl.exit_codes import Exit, Failed

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", re.ASCII)


class Context(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel", omit_defaults=True):
    """One control plane, and what is shown to it. Files are absolute paths; no token stands here."""

    server: str
    token_file: str = ""
    control_ca: str = ""
    control_id: str = ""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of them, by name; ``current`` is the one that is meant where none is named."""

    current: str = ""
    contexts: dict[str, Context] = {}


def parse(data: bytes, path: str) -> Config:
    """The inverse of ``text``. Failed where it can't be read."""
    from sidecar.resources import yaml_reader

    try:
        return msgspec.convert(yaml_reader.read(data.decode("utf-8")).root, Config)
    except yaml_reader.BadText as error:
        why = f"{path}:{error.line}: {error.why}"
    except (UnicodeDecodeError, msgspec.ValidationError) as error:
        why = f"{path}: {error}"
    raise Failed(Exit.USAGE, f"{why}; mend the file, or delete it and log in again (sidecarctl login)")


def text(config: Config) -> bytes:
    """As it stands in the file."""
    import yaml

    written: str = yaml.safe_dump(msgspec.to_builtins(config), sort_keys=False)
    return written.encode()


def check_name(name: str) -> str:
    """A name that a context may have, which is a file's name, too. Failed for another."""
    if not NAME.fullmatch(name):
        raise Failed(Exit.USAGE, f"--name: {name!r} is not a name of letters, digits, dots and hyphens; choose another")
    return name
