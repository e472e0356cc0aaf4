"""What one run of the command knows: what its flags said, and whom it calls, once it does.

Who makes it: ``control.ctl.command_base``, for each command, when its flags are read.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import click

from control.ctl import settings
from control.ctl.exit_codes import Exit, Failed
from control.ctl.output import Printer
from control.ctl.settings import Flags, Target

if TYPE_CHECKING:
    from control.ctl.api_client import Server


class Session:
    """``flags`` say whom to call; ``told`` are the flags of output: ``output``, ``no_headers``, ``no_color``."""

    def __init__(self, flags: Flags, told: Mapping[str, object] | None = None) -> None:
        self.flags = flags
        told = told or {}
        self.color = not told.get("no_color") and settings.wants_color()
        form = str(told.get("output") or "table")
        self.printer = Printer(form, headers=not told.get("no_headers"), color=self.color)

    @property
    def config_path(self) -> Path:
        """Where the configuration file is, or would be."""
        return settings.config_path(self.flags)

    @cached_property
    def target(self) -> Target:
        """Whom to call. Failed where nobody said so."""
        return settings.target(self.flags, self.config_path)

    @cached_property
    def server(self) -> Server:
        """The control plane, called at the first use only."""
        from control.ctl.api_client import Server  # and with it the event loop and TLS, which `check` does not need

        return Server(self.target)

    def says(self, sentence: str) -> None:
        """A sentence for people, on standard error: what standard output has is for scripts."""
        sys.stderr.write(f"{sentence}\n")

    def confirm(self, question: str, yes: bool, how: str) -> None:
        """Goes on where ``yes`` was said, or a person at a terminal says so. Failed where not; ``how`` says what to
        write."""
        if yes:
            return
        if not sys.stdin.isatty() or not sys.stderr.isatty():
            raise Failed(Exit.CONFLICT, f"{question} {how}")
        if not click.confirm(question, default=False, err=True):
            raise Failed(Exit.NOT, "nothing was changed")
