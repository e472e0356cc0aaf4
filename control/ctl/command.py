"""The table of commands, in sections, and how a command ends: a result, or lines on standard error and an exit code.

Who calls it: ``control.ctl.cli``. Ctrl-C is quiet, and so is a reader of the output who has gone; anything else that
gets out of here is a bug of ours, with a traceback.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Final

import click

from control.ctl.command_base import Group, connection_options
from control.ctl.commands import authority, proxy_debug, read, sessions, store, tokens, write
from control.ctl.exit_codes import Exit, Failed
from control.ctl.output import printable
from sidecar import __version__

SECTIONS: Final = {
    "The mesh": (*write.COMMANDS[:1], *read.COMMANDS, *write.COMMANDS[1:], *store.COMMANDS),
    "Who may join, and whom to trust": (*tokens.COMMANDS, *authority.COMMANDS),
    "One proxy": proxy_debug.COMMANDS,
    "This command": sessions.COMMANDS,
}


class _Root(Group):
    """The command itself: its commands in sections."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in SECTIONS.items():
            if not commands:
                continue
            with formatter.section(title):
                formatter.write_dl([(str(each.name), each.get_short_help_str(90)) for each in commands])

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write(
            "\nFlags win over the environment, and that over the configuration file (sidecarctl login writes it).\n"
            "Exit codes: 0 done, 1 differences, not found or not accepted, 2 usage, 3 not reached, 4 not permitted,\n"
            "5 conflict. sidecarctl COMMAND --help has examples.\n"
        )


@click.group(
    cls=_Root,
    params=list(connection_options(twins=True)),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 116},
)
@click.version_option(__version__, message="sidecarctl %(version)s")
def command() -> None:
    """What people use of a mesh: documents, services, proxies, tokens and certificates, and a look into one proxy."""


for _each in (each for commands in SECTIONS.values() for each in commands):
    command.add_command(_each)


def run(argv: Sequence[str] | None) -> int:
    """Runs the command with the arguments given (None: the process's own); returns the exit code."""
    try:
        code = command.main(argv, prog_name="sidecarctl", standalone_mode=False)
        sys.stdout.flush()
        return int(code or 0)
    except Failed as failed:
        _tell(*failed.lines)
        return failed.code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return Exit.USAGE
    except click.ClickException as error:
        where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "sidecarctl"
        _tell(f"{error.format_message()} (see {where} --help)")
        return Exit.USAGE
    except (click.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except SystemExit as ended:  # click's own: 0 when it has completed a line, 1 where the output's reader has gone
        return Exit.PIPE if ended.code else Exit.DONE
    except BaseExceptionGroup as group:  # trio's, of a Ctrl-C in one of its tasks
        if group.split(KeyboardInterrupt)[1] is not None:
            raise
        return Exit.INTERRUPTED
    except BrokenPipeError:
        with contextlib.suppress(OSError):  # what is left to be written goes nowhere, and nobody is told again
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.PIPE


def _tell(*lines: str) -> None:
    for line in lines:
        sys.stderr.write(f"sidecarctl: {printable(line)}\n")
