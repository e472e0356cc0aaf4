"""``apply``, ``check``, ``diff``, ``delete``, ``rollback``: what changes documents, and what looks before it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

import click

from control.ctl import input_files, kinds
from control.ctl.command_base import Command, output, with_session
from control.ctl.completion import complete_kind, complete_name
from control.ctl.exit_codes import Exit, Failed
from control.ctl.input_files import Source
from control.ctl.output import as_yaml
from control.ctl.session import Session

_F = TypeVar("_F", bound=Callable[..., Any])


def files(*, required: bool = True, namespace: bool = True) -> Callable[[_F], _F]:
    """``-f``, ``-R`` and, with ``namespace``, ``-n``."""

    def wrap(function: _F) -> _F:
        named = click.option(
            "-f", "--filename", "names", metavar="FILE|DIR|-", multiple=True, required=required,
            type=click.Path(), help="documents as YAML or JSON; of a directory its *.yaml, *.yml and *.json",
        )  # fmt: skip
        deep = click.option("-R", "--recursive", is_flag=True, help="directories below it as well")
        space = click.option("-n", "--namespace", metavar="NS", default="", help="of documents that name none")
        return named(deep(space(function) if namespace else function))

    return wrap


@click.command(
    cls=Command,
    short_help="make documents what files say: all of them, or none",
    examples=("sidecarctl apply -f shop/", "sidecarctl apply -f - --dry-run < web.yaml"),
)
@files()
@click.option("--dry-run", is_flag=True, help="judge them, and say what would be changed")
@output
@with_session
def apply(session: Session, names: tuple[str, ...], recursive: bool, namespace: str, dry_run: bool) -> int:
    """Make documents what these files say: all of them, or none.

    Documents that are not in the files stay as they are. What is refused is told with file, line, path and reason.
    """
    wanted = input_files.documents(input_files.contents(names, recursive), namespace)
    query = {"dryRun": "true"} if dry_run else {}
    body = [source.value for source in wanted]
    reply, found = session.server.ask("POST", "/v1/resources:apply", body, query=query, taken=(400, 422))
    if reply.status >= 400:
        raise not_taken(found, wanted, "nothing was changed")
    _tell_notes(session, found, wanted)
    if session.printer.form in ("json", "yaml"):
        session.printer.value(found)
    else:
        for each in found["results"]:
            note = " (dry run)" if dry_run else ""
            session.printer.text(f"{each['kind']} {each['namespace']}/{each['name']} {each['result']}{note}\n")
    return Exit.DONE


def _tell_notes(session: Session, found: Any, wanted: Sequence[Source]) -> None:
    """What is odd about them, which refuses nothing."""
    for line in input_files.placed(found.get("notes") or [], wanted):
        session.says(f"note: {line}")


def not_taken(problem: Any, wanted: Sequence[Source], end: str) -> Failed:
    """All that is wrong with documents, a line each."""
    problems = problem.get("problems") if isinstance(problem, dict) else None
    if not problems:
        return Failed(Exit.NOT, str((problem or {}).get("detail", "the documents are not accepted")))
    return Failed(Exit.NOT, *input_files.placed(problems, wanted), *([end] if end else []))


@click.command(
    cls=Command,
    short_help="judge documents, without a control plane",
    examples=("sidecarctl check -f shop/", "sidecarctl check -f shop/ --server https://..."),
)
@files(namespace=False)
@with_session
def check(session: Session, names: tuple[str, ...], recursive: bool) -> int:
    """Judge documents, without a control plane.

    Together with --server (or --context) also against what is there. What is legal and most likely a mistake is a
    note, and no reason to refuse.
    """
    files = input_files.contents(names, recursive)
    wanted = input_files.documents(files)
    if session.flags.server or session.flags.context:
        _, found = session.server.ask("POST", "/v1/resources:check", [source.value for source in wanted])
        if found["problems"]:
            raise not_taken(found, wanted, "")
        _tell_notes(session, found, wanted)
    else:
        _check_here(session, files)
    session.says(f"right: {len(wanted)} document{'s' * (len(wanted) != 1)}")
    return Exit.DONE


def _check_here(session: Session, files: Sequence[tuple[str, bytes]]) -> None:
    from sidecar.resources.document_files import read_config

    found = read_config(files)
    if found.problems:
        raise Failed(Exit.NOT, *found.problems)
    for note in found.notes:
        session.says(f"note: {note}")


@click.command(
    cls=Command,
    short_help="what apply would change, as a unified diff",
    examples=("sidecarctl diff -f shop/ || sidecarctl apply -f shop/",),
)
@files()
@with_session
def diff(session: Session, names: tuple[str, ...], recursive: bool, namespace: str) -> int:
    """Show what apply would change, as a unified diff. Exit code 1 where there is a difference.

    Defaults that are written out are no difference.
    """
    differs = False
    for source in input_files.documents(input_files.contents(names, recursive), namespace):
        key = source.key
        if key is None:
            raise Failed(Exit.USAGE, f"{source.at()}: it has no kind and name; see sidecarctl check")
        before, generation = _current(session, key)
        lines = difflib.unified_diff(
            before, _normal(source), f"{source.title} {generation}".rstrip(), source.at(), lineterm=""
        )
        shown = "".join(f"{line}\n" for line in lines)
        if shown:
            differs = True
            session.printer.text(shown, "diff")
    return Exit.NOT if differs else Exit.DONE


def _current(session: Session, key: tuple[str, str, str]) -> tuple[list[str], str]:
    reply, found = session.server.ask("GET", path_of(key), taken=(404,))
    if reply.status == 404:
        return [], "(there is none)"
    return as_yaml(found["document"]).splitlines(), f"generation {found['generation']}"


def _normal(source: Source) -> list[str]:
    """As the control plane would keep it."""
    from sidecar.resources.documents import parse, plain
    from sidecar.resources.validation import path_text

    document, problems = parse(source.value)
    if document is None:
        told = [{"document": source.title, "path": path_text(each.path), "why": each.why} for each in problems]
        raise Failed(Exit.USAGE, *input_files.placed(told, [source]))
    return as_yaml(plain(document)).splitlines()


def path_of(key: tuple[str, str, str]) -> str:
    """Where a document is."""
    from control.ctl.api_client import segment

    return "/v1/resources/" + "/".join(map(segment, key))


@click.command(
    cls=Command,
    short_help="take documents away",
    examples=("sidecarctl delete svc web -n shop", "sidecarctl delete -f shop/web.yaml"),
)
@click.argument("words", metavar="[KIND NAME]", nargs=-1, shell_complete=complete_name)
@files(required=False)
@click.option("--ignore-not-found", is_flag=True, help="what is not there is no failure")
@with_session
def delete(
    session: Session, words: tuple[str, ...], names: tuple[str, ...], recursive: bool, namespace: str,
    ignore_not_found: bool,
) -> int:  # fmt: skip
    """Take documents away: one by name, or those that stand in files."""
    if bool(words) == bool(names):
        raise Failed(Exit.USAGE, "name either KIND NAME or -f FILE; see sidecarctl delete --help")
    if words:
        keys = [named(words, namespace)]
    else:
        found = input_files.documents(input_files.contents(names, recursive), namespace)
        keys = [source.key or _nameless(source) for source in found]
    missing = []
    for key in keys:
        reply, _ = session.server.ask("DELETE", path_of(key), taken=(404,))
        if reply.status == 404:
            missing.append(key)
        else:
            session.printer.text(f"{key[0]} {key[1]}/{key[2]} deleted\n")
    if missing and not ignore_not_found:
        raise Failed(Exit.NOT, *(f"there is no {kind} {space}/{name}" for kind, space, name in missing))
    return Exit.DONE


def _nameless(source: Source) -> tuple[str, str, str]:
    raise Failed(Exit.USAGE, f"{source.at()}: it has no kind and name; see sidecarctl check")


def named(words: tuple[str, ...], namespace: str) -> tuple[str, str, str]:
    """The key of one document. Failed where no name was written."""
    kind, name = kinds.split(words)
    if not name:
        raise Failed(Exit.USAGE, "which one? write KIND NAME")
    return kind, namespace or "default", name


@click.command(
    cls=Command,
    short_help="make a document what it was",
    examples=("sidecarctl history svc web -n shop", "sidecarctl rollback svc web -n shop --to 3"),
)
@click.argument("words", metavar="KIND NAME", nargs=-1, required=True, shell_complete=complete_kind)
@click.option("-n", "--namespace", metavar="NS", default="", help="of the document (default: default)")
@click.option("--to", "generation", metavar="N", type=click.IntRange(1), required=True, help="of its history")
@with_session
def rollback(session: Session, words: tuple[str, ...], namespace: str, generation: int) -> int:
    """Make a document what it was. That is a new generation; nothing of the history is lost."""
    kind, space, name = named(words, namespace)
    body = {"kind": kind, "namespace": space, "name": name, "generation": generation}
    _, found = session.server.ask("POST", "/v1/resources:rollback", body)
    how = "is that already" if found["result"] == "unchanged" else f"is generation {found['generation']} now"
    session.printer.text(f"{kind} {space}/{name} {how}\n")
    return Exit.DONE


COMMANDS: Final = (apply, check, diff, delete, rollback)
