"""``token create|list|revoke``: what sidecars join with, and what people log in with."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from control.ctl import settings, tables
from control.ctl.command_base import Group, output, with_session
from control.ctl.exit_codes import Exit
from control.ctl.session import Session


@click.group(cls=Group, short_help="make tokens, list them, make them void")
def token() -> None:
    """Tokens: make one, list those that are good, make one void."""


@token.command(
    "create",
    examples=(
        "sidecarctl token create -n shop --service-account billing --out billing.token",
        "sidecarctl token create --role reader --ttl 8h --out dashboard.token",
    ),
)
@click.option(
    "--role",
    type=click.Choice(("workload", "operator", "reader")),
    default="workload",
    show_default=True,
    help="who shows it: a sidecar, a person who may do everything, one who may look",
)
@click.option("-n", "--namespace", metavar="NS", default="", help="of the workload that it is bound to")
@click.option("--service-account", metavar="NAME", default="", help="of the workload that it is bound to")
@click.option("--ttl", metavar="DURATION", default="24h", show_default=True, help="how long it is good")
@click.option("--single-use", is_flag=True, help="good for one certificate")
@click.option(
    "--address",
    "addresses",
    metavar="CIDR",
    multiple=True,
    help="may register endpoints at these addresses, not only at its own; more than one may be given",
)
@click.option("--out", metavar="FILE", type=click.Path(), help="where to write it, mode 0600, in place of showing it")
@output
@with_session
def create(session: Session, out: str | None, **wanted: Any) -> int:
    """Make a token. Its text is shown once, and nobody can look it up again."""
    body: dict[str, object] = {"role": wanted["role"], "ttl": wanted["ttl"]}
    if wanted["role"] == "workload":
        body["namespace"] = wanted["namespace"] or "default"
    elif wanted["namespace"]:
        body["namespace"] = wanted["namespace"]
    if wanted["service_account"]:
        body["serviceAccount"] = wanted["service_account"]
    if wanted["single_use"]:
        body["singleUse"] = True
    if wanted["addresses"]:
        body["addresses"] = list(wanted["addresses"])
    _, made = session.server.ask("POST", "/v1/tokens", body)
    if out is not None:
        settings.write_private(Path(out), f"{made['token']}\n".encode())
        session.says(f"{made['id']} is in {out}, and good until {made['expires']}")
    elif session.printer.form in ("json", "yaml"):
        session.printer.value(made)
    else:
        session.printer.text(f"{made['token']}\n")
    return Exit.DONE


@token.command("list", examples=("sidecarctl token list -o wide",))
@output
@with_session
def list_tokens(session: Session) -> int:
    """List the tokens that are good, without their secrets."""
    found = list(session.server.pages("/v1/tokens", "tokens"))
    session.printer.rows(tables.TOKENS, found, {"tokens": found}, "there is no token")
    return Exit.DONE


@token.command("revoke", examples=("sidecarctl token revoke 0f1e2d3c4b5a6978",))
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@with_session
def revoke(session: Session, ids: tuple[str, ...]) -> int:
    """Make tokens void, from the next call on.

    A certificate that was issued with one stays good; take back the identity, if that is what is meant (sidecarctl
    revoke).
    """
    from control.ctl.api_client import segment

    for each in ids:
        session.server.ask("DELETE", f"/v1/tokens/{segment(each)}")
        session.says(f"{each} is void")
    return Exit.DONE


COMMANDS: Final = (token,)
