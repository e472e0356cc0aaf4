"""``login``, ``context``, ``completion``: with whom one talks, and how the shell helps."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from control.ctl import contexts, settings, tables
from control.ctl.command_base import Command, Group, output, with_session
from control.ctl.contexts import Config, Context
from control.ctl.exit_codes import Exit, Failed
from control.ctl.session import Session
from control.ctl.settings import Target

SHELLS: Final = ("bash", "zsh", "fish")


@click.command(
    cls=Command,
    short_help="remember a control plane and a token",
    examples=(
        "sidecarctl login --server https://control.example:15012 --token-file token",
        "sidecarctl login --server http://127.0.0.1:15010 --token-file sidecar-control.d/operator-token --name local",
    ),
)
@click.option("--name", default="default", show_default=True, metavar="NAME", help="what to call it in the file")
@click.option("--keep-path", is_flag=True, help="note where the token file is, in place of keeping a copy of it")
@with_session
def login(session: Session, name: str, keep_path: bool) -> int:
    """Remember a control plane and a token.

    Asks it for the roots that it trusts, so that a token that is not taken is noticed here, and writes both to the
    configuration file as the current entry. The token itself goes to a file of its own beside that, mode 0600.
    """
    contexts.check_name(name)
    if not session.flags.server or not session.flags.token_file:
        raise Failed(Exit.USAGE, "--server and --token-file: are both needed; write whom to remember, and its token")
    target = settings.target(session.flags, session.config_path)
    found = session.server.get("/v1/bundle")
    path = session.config_path
    token_file = Path(target.token_file).absolute() if keep_path else _keep(path, name, target)
    control_ca = str(Path(target.control_ca).absolute()) if target.control_ca else ""
    control_id = target.control_id if session.flags.control_id else ""
    entry = Context(str(target.control), str(token_file), control_ca, control_id)
    config = settings.load(path)
    settings.save(path, Config(name, {**config.contexts, name: entry}))
    domain = found.get("trustDomain", "?")
    session.says(f"{target.control}, trust domain {domain}, is {name!r} in {path} now, and the current entry")
    return Exit.DONE


def _keep(path: Path, name: str, target: Target) -> Path:
    """A copy of the token, for this user alone."""
    try:
        data = Path(target.token_file).read_bytes()[: settings.TOKEN_BYTES]
    except OSError as error:
        raise Failed(Exit.USAGE, f"--token-file: {error.strerror}; name a file that can be read") from None
    kept = settings.kept_token(path, name)
    settings.write_private(kept, data)
    return kept


@click.group(cls=Group, short_help="the entries of the configuration file")
def context() -> None:
    """The entries of the configuration file."""


@context.command("list")
@output
@with_session
def list_contexts(session: Session) -> int:
    """List them."""
    config = settings.load(session.config_path)
    rows = [
        {"name": name, "server": each.server, "tokenFile": each.token_file, "current": "*" * (name == config.current)}
        for name, each in config.contexts.items()
    ]
    whole = {"contexts": [{**row, "current": bool(row["current"])} for row in rows]}
    session.printer.rows(tables.CONTEXTS, rows, whole, "there is none yet; log in (sidecarctl login)")
    return Exit.DONE


@context.command("use")
@click.argument("name")
@with_session
def use_context(session: Session, name: str) -> int:
    """Make another entry the current one."""
    config = settings.load(session.config_path)
    _known(config, name)
    settings.save(session.config_path, Config(name, config.contexts))
    session.says(f"{name!r} is the current entry now")
    return Exit.DONE


@context.command("forget")
@click.argument("name")
@with_session
def forget_context(session: Session, name: str) -> int:
    """Take an entry out of the file, and delete the copy of its token."""
    path = session.config_path
    config = settings.load(path)
    _known(config, name)
    rest = {each: entry for each, entry in config.contexts.items() if each != name}
    settings.save(path, Config("" if config.current == name else config.current, rest))
    kept = settings.kept_token(path, name)
    if config.contexts[name].token_file == str(kept):
        kept.unlink(missing_ok=True)
    session.says(f"{name!r} is forgotten; its token is good until it expires, or is revoked (sidecarctl token revoke)")
    return Exit.DONE


def _known(config: Config, name: str) -> None:
    if name not in config.contexts:
        known = ", ".join(config.contexts) or "none"
        raise Failed(Exit.NOT, f"there is no entry {name!r}; there are: {known}")


@click.command(
    cls=Command,
    short_help="a script for your shell",
    connects=False,
    examples=("source <(sidecarctl completion bash)",),
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> int:
    """Print a script that completes commands, flags, kinds and names.

    Names come from the control plane, where it answers within a second.
    """
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None
    root = ctx.find_root().command
    complete = made(root, {}, "sidecarctl", "_SIDECARCTL_COMPLETE")
    click.echo(complete.source_template % complete.source_vars())  # without asking which version bash is
    return Exit.DONE


COMMANDS: Final = (login, context, completion)
