"""How the commands look: the flags that all share, what ``--help`` shows, and how a command gets its ``Session``.

Who uses it: the modules of ``control.ctl.commands``. The flags on where to call may stand before the command's name or
behind it; their twins in the environment are read once, before it, and a flag wins over its twin.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

import click

from control.ctl.output import FORMATS
from control.ctl.session import Session
from control.ctl.settings import Flags

_KEY: Final = "control.ctl"  # in the context's meta, which all contexts of one run share
_F = TypeVar("_F", bound=Callable[..., Any])

_CONNECTION: Final = (
    ("server", "URL", "the control plane: https://HOST:15012, or http://127.0.0.1:15010 on loopback"),
    ("token_file", "FILE", "the file with the token to show; read at each call"),
    ("control_ca", "FILE", "roots to trust there (PEM), where the token does not name one"),
    ("control_id", "ID", "the SPIFFE id that it has to prove, where the token does not name one"),
    ("context", "NAME", "which entry of the configuration file to use, in place of the current one"),
    ("config", "FILE", "the configuration file (default: ~/.config/sidecarctl/config.yaml)"),
)


def _note(context: click.Context, parameter: click.Parameter, value: object) -> object:
    if value not in (None, False) and parameter.name is not None:
        context.meta.setdefault(_KEY, {})[parameter.name] = value
    return value


def connection_options(*, twins: bool) -> list[click.Option]:
    """The flags on where to call; with ``twins`` those of the group, which read the environment."""
    made = [
        click.Option(
            ["--" + field.replace("_", "-")],
            metavar=metavar,
            help=meaning,
            callback=_note,
            expose_value=False,
            envvar=f"SIDECARCTL_{field.upper()}" if twins else None,
            show_envvar=twins,
            type=click.Path() if metavar == "FILE" else None,
        )
        for field, metavar, meaning in _CONNECTION
    ]
    return [
        *made,
        click.Option(
            ["--no-color"], is_flag=True, callback=_note, expose_value=False,
            help="no colours; so does NO_COLOR in the environment, and a pipe",
        ),
    ]  # fmt: skip


def session_of(context: click.Context) -> Session:
    """The session of a command whose flags were read."""
    told: dict[str, Any] = context.meta.get(_KEY, {})
    flags = Flags(**{field: str(told.get(field, "")) for field, _, _ in _CONNECTION})
    return Session(flags, {**told, **context.params})


class Command(click.Command):
    """A command with examples in its help. ``connects``: it takes the flags on where to call."""

    def __init__(self, *words: Any, examples: Iterable[str] = (), connects: bool = True, **more: Any) -> None:
        super().__init__(*words, **more)
        self.examples = tuple(examples)
        self.connects = connects
        self.shared = connection_options(twins=False) if connects else []
        self.params += self.shared

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The command's own flags, then the shared ones, then examples."""
        own = [
            found for each in self.get_params(ctx) if each not in self.shared and (found := each.get_help_record(ctx))
        ]
        with formatter.section("Flags"):
            formatter.write_dl(own)
        if self.shared:
            with formatter.section("Where to call"):
                formatter.write_text(", ".join(option.opts[0] for option in self.shared) + " (see sidecarctl --help)")
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"{'':{formatter.current_indent}}{example}\n")


class Group(click.Group):
    """A group of such commands; a name that is not there is answered with the nearest."""

    command_class = Command
    group_class = type

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, and says what might have been meant."""
        import difflib

        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            hint = f"did you mean {near[0]}?" if near else f"see {ctx.command_path} --help"
            raise click.UsageError(f"{args[0]}: there is no such command; {hint}", ctx) from error


def with_session(function: _F) -> _F:
    """Hands the command its ``Session`` as its first argument."""

    def run(*words: Any, **more: Any) -> Any:
        return function(session_of(click.get_current_context()), *words, **more)

    run.__name__, run.__doc__ = function.__name__, function.__doc__
    run.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
    return run  # type: ignore[return-value]


def output(function: _F) -> _F:
    """The flags of commands that list something; ``Session`` reads them."""
    form = click.option(
        "-o", "--output", type=click.Choice(FORMATS), default="table", show_default=True, expose_value=False,
        callback=_note, help="as a table for people, with all columns, or whole for programs",
    )  # fmt: skip
    bare = click.option(
        "--no-headers", is_flag=True, expose_value=False, callback=_note, help="tables without their first line"
    )
    return form(bare(function))


def yes(function: _F) -> _F:
    """``--yes``."""
    return click.option("-y", "--yes", is_flag=True, help="go on without asking")(function)
