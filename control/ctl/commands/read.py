"""``get``, ``describe``, ``history``, ``services``, ``proxies``: what is there, and how it is."""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import quote

import click

from control.ctl import kinds, tables
from control.ctl.command_base import Command, output, with_session
from control.ctl.commands.write import named, path_of
from control.ctl.completion import complete_kind, complete_name
from control.ctl.exit_codes import Exit, Failed
from control.ctl.output import as_yaml
from control.ctl.session import Session

Row = dict[str, Any]
_SPACE: Final = click.option(
    "-n", "--namespace", metavar="NS", default="", help="of which namespace (default: default)"
)
_ALL: Final = click.option("-A", "--all-namespaces", is_flag=True, help="of every namespace")


@click.command(
    cls=Command,
    short_help="list documents, or show one",
    examples=(
        "sidecarctl get svc -A",
        "sidecarctl get pa strict -n shop -o yaml > strict.yaml    # can be applied again",
        "sidecarctl get svc -l team=web",
    ),
)
@click.argument("words", metavar="[KIND [NAME]]", nargs=-1, shell_complete=complete_name)
@_SPACE
@_ALL
@click.option(
    "-l", "--label", "labels", metavar="KEY=VALUE", multiple=True, help="only with this label; several may be given"
)
@output
@with_session
def get(session: Session, words: tuple[str, ...], namespace: str, all_namespaces: bool, labels: tuple[str, ...]) -> int:
    """List documents, or show one.

    With -o yaml or json documents come as they would be applied again.
    """
    kind, name = kinds.split(words)
    if all_namespaces and (name or namespace):
        raise Failed(Exit.USAGE, "-A is every namespace; leave out " + ("the name" if name else "-n"))
    if name:
        found = [session.server.get(path_of((kind, namespace or "default", name)))]
    else:
        query = [("kind", kind)] * bool(kind) + [("label", label) for label in labels]
        if not all_namespaces:
            query.append(("namespace", namespace or "default"))
        found = list(session.server.pages("/v1/resources", "items", query))
    _show(session, found, bool(name), kind)
    return Exit.DONE


def _show(session: Session, found: list[Row], one: bool, kind: str) -> None:
    form = session.printer.form
    if form == "yaml":
        session.printer.text(as_yaml(*(each["document"] for each in found)), "yaml")
    elif form == "json":
        session.printer.value(found[0]["document"] if one else [each["document"] for each in found])
    else:
        columns = (*tables.DOCUMENTS, *tables.SPECS.get(kind, ()), *tables.WRITTEN)
        session.printer.rows(columns, found, None, "there is no such document; see sidecarctl get -A")


@click.command(
    cls=Command,
    short_help="the generations of a document: who changed it, and when",
    examples=("sidecarctl history svc web -n shop", "sidecarctl history pa strict -o yaml"),
)
@click.argument("words", metavar="KIND NAME", nargs=-1, required=True, shell_complete=complete_kind)
@_SPACE
@output
@with_session
def history(session: Session, words: tuple[str, ...], namespace: str) -> int:
    """Show the generations of a document, the newest first: who changed it, and when.

    With -o yaml or json each with what the document was.
    """
    found = list(session.server.pages(path_of(named(words, namespace)) + "/history", "items"))
    session.printer.rows(tables.HISTORY, found, {"items": found}, "there is no such document")
    return Exit.DONE


@click.command(
    cls=Command,
    short_help="all about one document, and who serves a service",
    examples=(
        "sidecarctl describe svc web -n shop",
        "sidecarctl describe proxy web -n shop",
        "sidecarctl describe authz callers --proxy 127.0.0.1:15000",
    ),
)
@click.argument("words", metavar="KIND NAME", nargs=-1, required=True, shell_complete=complete_kind)
@_SPACE
@click.option("--proxy", "place", metavar="HOST:PORT", help="of a policy: what its dry run would have done there")
@with_session
def describe(session: Session, words: tuple[str, ...], namespace: str, place: str | None) -> int:
    """Tell all about one document, its last changes, and of a service who serves it.

    KIND may be proxy as well, and NAME then a service account, a SPIFFE id or an instance.
    """
    if words[0].lower() in ("proxy", "proxies"):
        return _describe_proxies(session, words[1:], namespace)
    key = named(words, namespace)
    found = session.server.get(path_of(key))
    session.printer.text(f"{key[0]} {key[1]}/{key[2]}, generation {found['generation']}, {_changed(found)}\n\n")
    if found.get("unreadable"):
        session.printer.text(f"It counts for nothing, as it can't be read: {found['unreadable']}\n\n")
    session.printer.text(as_yaml(found["document"]), "yaml")
    if key[0] == "Service":
        _describe_service(session, key)
    if place is not None:
        _describe_dry_run(session, key, place)
    changes = session.server.get(path_of(key) + "/history", {"limit": "5"})["items"]
    session.printer.text("\nLast changes:\n")
    session.printer.rows(tables.HISTORY, changes, None, "")
    return Exit.DONE


def _changed(found: Row) -> str:
    when = tables.ago("time")(found)
    return f"by {found['author']} {when} ago" if when else f"by {found['author']}"


def _describe_dry_run(session: Session, key: tuple[str, str, str], place: str) -> None:
    """What the policy would have decided otherwise at that proxy, since it started."""
    from control.ctl.proxy import Proxy

    if key[0] != "AuthorizationPolicy":
        raise Failed(Exit.USAGE, "--proxy is for a policy; leave it out")
    rows = json.loads(Proxy(place).get(f"/dry_runs?policy={quote(f'{key[1]}/{key[2]}')}"))
    session.printer.text(f"\nWhat its dry run would have done at {place}:\n")
    session.printer.rows(tables.DRY_RUNS, rows, None, "nothing that is not done anyway")


def _describe_service(session: Session, key: tuple[str, str, str]) -> None:
    from control.ctl.api_client import segment

    found = session.server.get(f"/v1/services/{segment(key[1])}/{segment(key[2])}")
    where = ", ".join([*found["addresses"], *found["virtualAddresses"]]) or "-"
    session.printer.text(f"\nIts addresses: {where}\nWhat its ports take:\n")
    session.printer.rows(tables.PORTS, found["ports"], None, "it has no port")
    session.printer.text("\nWho serves it:\n")
    session.printer.rows(tables.ENDPOINTS, found["endpoints"], None, "nobody: no endpoint is written or registered")


@click.command(
    cls=Command,
    short_help="services, and how many endpoints are well",
    examples=("sidecarctl services -A", "sidecarctl services -n shop -o wide"),
)
@_SPACE
@_ALL
@output
@with_session
def services(session: Session, namespace: str, all_namespaces: bool) -> int:
    """List services: their ports, who may serve them, and how many endpoints are well."""
    query = {} if all_namespaces else {"namespace": namespace or "default"}
    found = list(session.server.pages("/v1/services", "items", query))
    session.printer.rows(
        tables.SERVICES, found, {"items": found}, "there is no service; apply a document of kind Service"
    )
    return Exit.DONE


@click.command(
    cls=Command,
    short_help="proxies: who is in sync, who refused what, and why",
    examples=("sidecarctl proxies", "sidecarctl proxies -o json"),
)
@click.option("-n", "--namespace", metavar="NS", default="", help="of one namespace only")
@output
@with_session
def proxies(session: Session, namespace: str) -> int:
    """List proxies: who holds what there is for it, who does not yet, and who refused it, with the reason."""
    found = _proxies(session, namespace)
    session.printer.rows(tables.PROXIES, found, {"proxies": found}, "no proxy was heard of within the last hour")
    return Exit.DONE


def _proxies(session: Session, namespace: str) -> list[Row]:
    return list(session.server.pages("/v1/proxies", "proxies", {"namespace": namespace} if namespace else {}))


def _describe_proxies(session: Session, words: tuple[str, ...], namespace: str) -> int:
    if len(words) != 1:
        raise Failed(Exit.USAGE, "which one? write proxy and a service account, a SPIFFE id or an instance")
    found = [
        each
        for each in _proxies(session, namespace)
        if words[0] in (each["proxy"], each["instance"], each["proxy"].rpartition("/sa/")[2])
    ]
    if not found:
        raise Failed(Exit.NOT, f"no proxy {words[0]!r} was heard of within the last hour; see sidecarctl proxies")
    session.printer.text(as_yaml(*found), "yaml")
    return Exit.DONE


COMMANDS: Final = (get, describe, history, services, proxies)
