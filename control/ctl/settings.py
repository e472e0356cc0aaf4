"""Where to call, and with which token: flags, then the environment, then the configuration file.

Who calls it: the commands, by ``Session``. The only reader of the environment here, besides the twins of flags, which
click reads. The file is for this user alone, and a token never stands in it.

A token goes to nobody whom it was not meant for: the context's token is used with the context's server only, so
``--server`` with another one needs ``--token-file`` as well.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from control.ctl import contexts
from control.ctl.contexts import Config, Context
from control.ctl.exit_codes import Exit, Failed
from control.secret_files import read_private, replace_file
from sidecar.control_url import CONTROL_ID, ControlUrl, parse_control, parse_spiffe_id
from sidecar.errors import StartError

CONFIG_BYTES: Final = 1 << 20
TOKEN_BYTES: Final = 16 * 1024


class Flags(msgspec.Struct, frozen=True):
    """What stood on the command line, or in its twins; empty where nothing did."""

    server: str = ""
    token_file: str = ""
    control_ca: str = ""
    control_id: str = ""
    context: str = ""
    config: str = ""


class Target(msgspec.Struct, frozen=True):
    """One control plane to call. ``context``: the name under which it stands in the file, empty where by flags."""

    control: ControlUrl
    token_file: str
    control_ca: str = ""
    control_id: str = CONTROL_ID
    context: str = ""


def config_path(flags: Flags, environ: Mapping[str, str] | None = None) -> Path:
    """Where the configuration file is: ``--config``, or below XDG_CONFIG_HOME, which is ``~/.config``."""
    told = os.environ if environ is None else environ
    if flags.config:
        return Path(flags.config)
    home = told.get("XDG_CONFIG_HOME", "")
    try:
        directory = (
            Path(home) if home.startswith("/") else Path("~/.config").expanduser()
        )  # a relative one is void (XDG)
    except RuntimeError:
        raise Failed(Exit.USAGE, "--config: is needed where this user has no home directory; name a file") from None
    return directory / "sidecarctl" / "config.yaml"


def wants_color(environ: Mapping[str, str] | None = None) -> bool:
    """Unless NO_COLOR says otherwise (no-color.org)."""
    return not (os.environ if environ is None else environ).get("NO_COLOR")


def load(path: Path) -> Config:
    """What is in the file; an empty one where there is none. Failed where it can't be used."""
    data = private(path, CONFIG_BYTES)
    return Config() if data is None else contexts.parse(data, str(path))


def private(path: Path, most: int) -> bytes | None:
    """A file that only this user can read; None where there is none. Failed otherwise."""
    try:
        return read_private(path, "--config", most)
    except StartError as error:
        raise Failed(Exit.USAGE, str(error)) from None


def save(path: Path, config: Config) -> None:
    """Replaces the file, for this user alone. Failed where that is not possible."""
    write_private(path, contexts.text(config))


def write_private(path: Path, data: bytes) -> None:
    """Replaces a file, in a directory that is made for this user where it is missing. Failed where it can't be."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_file(path, data)
    except OSError as error:
        raise Failed(Exit.USAGE, f"{path} can't be written ({error.strerror}); name another --config") from None


def kept_token(path: Path, name: str) -> Path:
    """Where the copy of a context's token is, beside the configuration file ``path``."""
    return path.parent.absolute() / "tokens" / name


def target(flags: Flags, path: Path) -> Target:
    """Whom to call. Failed where nobody said so, or something said can't be used."""
    context, name = chosen(flags, path)
    server = flags.server or context.server
    if not server:
        raise Failed(Exit.USAGE, "no control plane is named; write --server URL and --token-file FILE, or log in once")
    url = read_url(server)
    ours = not flags.server or (bool(context.server) and read_url(context.server) == url)
    token_file = flags.token_file or (context.token_file if ours else "")
    if not token_file:
        raise Failed(Exit.USAGE, f"--token-file: is missing; name the file with a token for {url}")
    return Target(
        url,
        token_file,
        flags.control_ca or (context.control_ca if ours else ""),
        read_id(flags.control_id or (context.control_id if ours else "") or CONTROL_ID),
        name if ours and not flags.token_file else "",
    )


def chosen(flags: Flags, path: Path) -> tuple[Context, str]:
    """The context that is meant, and its name; an empty one where there is none. Failed where it is named and
    missing."""
    if flags.server and flags.token_file and not flags.context:
        return Context(""), ""  # all that is needed was said; a file that can't be read is no matter
    config = load(path)
    name = flags.context or config.current
    if not name:
        return Context(""), ""
    if name not in config.contexts:
        known = ", ".join(config.contexts) or "none"
        raise Failed(Exit.USAGE, f"--context: there is no {name!r} in {path}; there are: {known}")
    return config.contexts[name], name


def read_url(text: str) -> ControlUrl:
    """``https://HOST[:15012]``, or ``http://`` on loopback. Failed for anything else."""
    try:
        url = parse_control(text)
    except ValueError as error:
        raise Failed(Exit.USAGE, f"--server: {error}; write for example https://control.example:15012") from None
    if url is None:
        raise Failed(Exit.USAGE, "--server: none is no control plane; write for example https://control.example:15012")
    return url


def read_id(text: str) -> str:
    """A SPIFFE id. Failed for anything else."""
    try:
        return parse_spiffe_id(text)
    except ValueError as error:
        raise Failed(Exit.USAGE, f"--control-id: {error}; write for example {CONTROL_ID}") from None
