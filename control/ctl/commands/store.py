"""``backup``: the whole store, while it runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click

from control.ctl import settings
from control.ctl.command_base import Command, with_session
from control.ctl.exit_codes import Exit, Failed
from control.ctl.session import Session

BYTES: Final = 1 << 32  # of a store; a hundred thousand generations have some hundred MB
SECONDS: Final = 600.0


@click.command(
    cls=Command,
    short_help="a copy of the store, while the control plane runs",
    examples=("sidecarctl backup store-2026-05-04.db", "sidecarctl backup - | age -r ... > store.age"),
)
@click.argument("file", metavar="FILE|-", type=click.Path())
@click.option("--force", is_flag=True, help="replace the file if it is there")
@with_session
def backup(session: Session, file: str, force: bool) -> int:
    """Write a copy of the store, as it is at one moment, while the control plane runs.

    It has no key and no token that could be used (tokens are hashes), but names of all that there is: mode 0600. The
    authority is not in it; keep a copy of --ca-dir as well.
    """
    path = Path(file)
    if file != "-" and path.exists() and not force:
        raise Failed(Exit.CONFLICT, f"{file} is there already; name another, or say --force")
    with session.printer.waiting("fetching the store ..."):
        reply = session.server.raw("GET", "/v1/backup", most=BYTES, wait=SECONDS)
    if reply.status != 200:
        from control.ctl.api_client import refused

        raise refused(reply, session.target)
    if file == "-":
        sys.stdout.buffer.write(reply.body)
        return Exit.DONE
    settings.write_private(path, reply.body)
    session.says(f"{len(reply.body)} bytes are in {file}")
    return Exit.DONE


COMMANDS: Final = (backup,)
