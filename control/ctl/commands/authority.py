"""``ca status|rotate``, ``revoke``, ``revocations``: who is trusted, and what was taken back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final

import click

from certs import jointoken
from control.ctl import settings, tables
from control.ctl.command_base import Command, Group, output, with_session, yes
from control.ctl.exit_codes import Exit, Failed
from control.ctl.session import Session

SETTLED_SECONDS: Final = 30.0  # a control plane shows a root that it issues from well before that
LOOK_SECONDS: Final = 1.0  # how often to look, where one waits


@click.group(cls=Group, short_help="the authority: its roots, and replacing them")
def ca() -> None:
    """The authority: its roots, and replacing them."""


@ca.command("status")
@output
@with_session
def status(session: Session) -> int:
    """Show its roots, and how far a rotation is."""
    found = session.server.get("/v1/ca")
    session.printer.rows(tables.ROOTS, found["roots"], found, "there is no root")
    if session.printer.form in ("table", "wide") and found["unconfirmed"]:
        session.says("waits for: " + ", ".join(found["unconfirmed"]))
    return Exit.DONE


@ca.command("rotate", examples=("sidecarctl ca rotate --wait=issuing", "sidecarctl ca rotate --deadline 10m --yes"))
@click.option(
    "--deadline",
    metavar="DURATION",
    default="1h",
    show_default=True,
    help="issue from the new root after that, even if not every proxy has said that it knows it",
)
@click.option(
    "--wait",
    type=click.Choice(("issuing", "done")),
    is_flag=False,
    flag_value="done",
    metavar="[issuing|done]",
    help="stay until certificates come from the new root, or (done) until the old one is gone as well",
)
@click.option("--timeout", metavar="DURATION", default="48h", show_default=True, help="how long to stay at most")
@yes
@with_session
def rotate(session: Session, deadline: str, wait: str | None, timeout: str, yes: bool) -> int:
    """Replace the root.

    Tokens that name the old root are void then, so it asks before it goes on. Traffic goes on all the while.
    """
    until = time.monotonic() + _duration(timeout, "--timeout")
    body = {"deadline": deadline, "voidTokens": False}
    reply, found = session.server.ask("POST", "/v1/ca:rotate", body, taken=(409,))
    void = False
    if reply.status == 409:
        found, void = _confirmed(session, found, deadline, yes)
    if not void:
        keep_pins(session, found["roots"], retiring=True)
    fresh = next((root for root in found["roots"] if root["phase"] == "published"), found["roots"][-1])
    session.says(f"root {fresh['id']} is published; it issues when all know it, or from {fresh.get('until', 'now on')}")
    if wait is None or not void:
        return Exit.DONE if wait is None else _follow(session, fresh["id"], wait, until)
    raise Failed(Exit.FORBIDDEN, "--wait: nothing more can be asked with this token; log in with another")


def _confirmed(session: Session, problem: Any, deadline: str, yes: bool) -> tuple[Any, bool]:
    """The answer after a yes to the tokens that would be void, and whether ours was one of them. Failed where it is no
    yes, or can't be for another reason."""
    tokens = problem.get("tokens") if isinstance(problem, dict) else None
    if not tokens:
        raise Failed(Exit.CONFLICT, str((problem or {}).get("detail", "it can't be rotated now")))
    ours = _own_id(session)
    for one in tokens:
        whose = f"{one.get('namespace')}/{one.get('serviceAccount')}" if one.get("serviceAccount") else one["role"]
        session.says(f"  {one['id']}  {whose}" + ("  (the one that you show)" * (one["id"] == ours)))
    question = f"{len(tokens)} tokens name the root that is to be replaced, and would be void. Go on?"
    session.confirm(question, yes, "Say --yes to go on.")
    _, found = session.server.ask("POST", "/v1/ca:rotate", {"deadline": deadline, "voidTokens": True})
    void = any(one["id"] == ours for one in tokens)
    if void:
        session.says("the token that you show is void now; log in with another (the operator's file has a good one)")
    return found, void


def _own_id(session: Session) -> str:
    token = _own(session)
    return token.id if token is not None else ""


def _own(session: Session) -> jointoken.JoinToken | None:
    try:
        with open(session.target.token_file, encoding="ascii") as file:
            return jointoken.parse(file.read(jointoken.TOKEN_CHARS + 1).strip())
    except (OSError, ValueError):
        return None


def keep_pins(session: Session, roots: Sequence[Any], *, retiring: bool = False) -> bool:
    """Writes the new root's hash into the copy of the token that ``login`` made: by the old one alone the next command
    would not know the control plane. With ``retiring`` the old one stays beside it. A file that somebody else keeps is
    left as it is: False."""
    token, path = _own(session), settings.kept_token(session.config_path, session.target.context)
    if token is None or not session.target.context or session.target.token_file != str(path):
        return False
    newest = sorted(roots, key=lambda root: root["phase"] == "retiring")
    pins = tuple(
        bytes.fromhex(root["pin"]) for root in newest if "pin" in root and (retiring or root["phase"] != "retiring")
    )
    if pins:
        again = jointoken.JoinToken(token.id, token.secret, pins[: jointoken.PINS], token.control_id)
        settings.write_private(path, f"{again}\n".encode())
    return bool(pins)


def _let_go(session: Session, roots: Sequence[Any], until: float) -> None:
    """Forgets the old root, once the control plane shows the new one itself, which it does a moment later."""
    until = min(until, time.monotonic() + SETTLED_SECONDS)
    while keep_pins(session, roots):
        try:
            session.server.get("/v1/ca")
            return
        except Failed as failed:
            keep_pins(session, roots, retiring=True)
            if failed.code is not Exit.UNREACHED or time.monotonic() > until:
                raise
        time.sleep(LOOK_SECONDS)


def _follow(session: Session, fresh: str, wait: str, until: float) -> int:
    """Until the new root is where it is to be. Failed where that takes too long; the rotation goes on by itself."""
    with session.printer.waiting("waiting ...") as says:
        while True:
            found = session.server.get("/v1/ca")
            phases = {root["id"]: root for root in found["roots"]}
            issues = fresh not in phases or phases[fresh]["phase"] != "published"
            if issues and (wait == "issuing" or len(phases) == 1):
                break
            if time.monotonic() > until:
                raise Failed(
                    Exit.UNREACHED, "it takes longer than --timeout; it goes on by itself: sidecarctl ca status"
                )
            says(_progress(found))
            time.sleep(LOOK_SECONDS)
    _let_go(session, found["roots"], until)
    session.says(f"root {fresh} issues" + (", and the one before it is gone" if wait == "done" else ""))
    return Exit.DONE


def _progress(found: Any) -> str:
    missing = found["unconfirmed"]
    parts = [f"{root['id'][:8]} {root['phase']}" + _until(root) for root in found["roots"]]
    return "; ".join(parts) + (f"; {len(missing)} identities have not confirmed it" if missing else "")


def _until(root: Any) -> str:
    when = tables.moment(root.get("until"))
    return f" (at most {tables.span(when - time.time())} more)" if when else ""


def _duration(text: str, flag: str) -> float:
    from sidecar import value_parsers

    try:
        return value_parsers.positive_duration(text)
    except ValueError as error:
        raise Failed(Exit.USAGE, f"{flag}: {error}; write for example 10m") from None


@click.command(
    cls=Command,
    short_help="take back a certificate, or an identity",
    examples=(
        "sidecarctl revoke spiffe://cluster.local/ns/shop/sa/billing",
        "sidecarctl revoke 1f:3a:77:...      # one certificate, by its serial number",
        "sidecarctl revoke --lift spiffe://cluster.local/ns/shop/sa/billing",
    ),
)
@click.argument("what", metavar="SERIAL|SPIFFE-ID")
@click.option("--lift", is_flag=True, help="issue for an identity again; what it had before stays revoked")
@with_session
def revoke(session: Session, what: str, lift: bool) -> int:
    """Take back a certificate, or all that an identity has.

    Every sidecar that reaches the control plane refuses it within seconds, and cuts what is open. An identity gets no
    other certificate until that is lifted.
    """
    if lift:
        return _lift(session, what)
    body = {"spiffeId": what} if what.startswith("spiffe://") else {"serial": what}
    session.server.ask("POST", "/v1/revocations", body)
    session.says(
        f"{what} is revoked" + (f"; lift it by: sidecarctl revoke --lift {what}" if "spiffeId" in body else "")
    )
    return Exit.DONE


def _lift(session: Session, what: str) -> int:
    from control.ctl.api_client import segment

    for one in session.server.pages("/v1/revocations", "revocations"):
        if what in (one["id"], one.get("spiffeId"), one.get("serial")):
            session.server.ask("DELETE", f"/v1/revocations/{segment(one['id'])}")
            session.says(f"{what} may have certificates again")
            return Exit.DONE
    raise Failed(Exit.NOT, f"{what} is not revoked; see sidecarctl revocations")


@click.command(cls=Command, short_help="what is revoked")
@output
@with_session
def revocations(session: Session) -> int:
    """List what is revoked."""
    found = list(session.server.pages("/v1/revocations", "revocations"))
    session.printer.rows(tables.REVOCATIONS, found, {"revocations": found}, "nothing is revoked")
    return Exit.DONE


COMMANDS: Final = (ca, revoke, revocations)
