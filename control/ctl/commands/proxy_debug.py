"""``tap``, ``explain``, ``limits``, ``admin``, ``support-bundle``: a look into one proxy, by its admin port."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlencode

import click

from control.ctl import settings, tables
from control.ctl import support_bundle as archive
from control.ctl.command_base import Command, output, with_session
from control.ctl.exit_codes import Exit, Failed
from control.ctl.output import printable
from control.ctl.proxy import DEFAULT, Proxy, line, record
from control.ctl.session import Session
from sidecar import __version__

_F = TypeVar("_F", bound=Callable[..., Any])
_FILTERS: Final = (
    ("status", "503|5xx", "only with this status, or of this class; 0: without any"),
    ("flag", "FLAG", "only with this response flag; -: without any"),
    ("reason", "WORD", "only with this reason"),
    ("path", "PREFIX", "only paths that begin so"),
    ("source", "PREFIX", "only clients whose address begins so"),
    ("direction", "inbound|outbound", "only in this direction"),
)


def proxied(function: _F) -> _F:
    """``--proxy`` and ``--admin-token-file``; the command gets them as a ``Proxy``."""

    def run(*words: Any, place: str, admin_token_file: str, **more: Any) -> Any:
        return function(*words, proxy=Proxy(place, admin_token_file), **more)

    run.__name__, run.__doc__ = function.__name__, function.__doc__
    run.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
    where = click.option(
        "--proxy", "place", metavar="HOST:PORT", default=DEFAULT, show_default=True, envvar="SIDECARCTL_PROXY",
        help="its admin port, on loopback",
    )  # fmt: skip
    token = click.option(
        "--admin-token-file", metavar="FILE", default="", type=click.Path(), envvar="SIDECARCTL_ADMIN_TOKEN_FILE",
        help="what it asks for where something is changed",
    )  # fmt: skip
    return where(token(run))  # type: ignore[return-value]


def filtered(function: _F) -> _F:
    """The filters of ``/tap``."""
    for name, metavar, meaning in reversed(_FILTERS):
        function = click.option(f"--{name}", metavar=metavar, help=meaning)(function)
    return function


_FORM: Final = click.option(
    "-o", "--output", "form", type=click.Choice(("text", "json")), default="text", show_default=True,
    help="for people, or for programs",
)  # fmt: skip


@click.command(
    cls=Command, short_help="requests and connections as they end, live", connects=False,
    examples=("sidecarctl tap --status 5xx", "sidecarctl tap --direction outbound --limit 10 -o json"),
)  # fmt: skip
@filtered
@click.option("--limit", metavar="N", type=click.IntRange(1, 1000), help="end after so many")
@_FORM
@proxied
@with_session
def tap(session: Session, proxy: Proxy, form: str, limit: int | None, **wanted: str | None) -> int:
    """Show requests and connections as they end, live.

    A line each; with -o json an object each. Nothing is shown of bodies, of header fields or of values in a query.
    """
    parameters = {name: value for name, value in wanted.items() if value is not None}
    left = limit
    while left is None or left > 0:
        if left is not None:
            parameters["limit"] = str(left)
        ended = True
        for event, data in proxy.events("/tap", parameters):
            if event == "dropped":
                session.says("some are missing: they came faster than they were read; it goes on")
                ended = False
                continue
            session.printer.text((data if form == "json" else line(record(data))) + "\n")
            sys.stdout.flush()
            left = None if left is None else left - 1
        if ended and left != 0:
            raise Failed(Exit.UNREACHED, f"{proxy.place}: it ended the stream; is it going down?")
    return Exit.DONE


@click.command(
    cls=Command,
    short_help="the story of one request, or what would become of one",
    connects=False,
    examples=(
        "sidecarctl explain 4e6c1bc6-5347-4112-bfdc-25359697861d",
        "sidecarctl explain --from spiffe://cluster.local/ns/shop/sa/web GET /orders/1",
    ),
)
@click.argument("words", metavar="ID | METHOD PATH", nargs=-1, required=True)
@click.option("--from", "peer", metavar="SPIFFE-ID", help="who calls; without it a caller without a certificate")
@click.option("--ip", "address", metavar="ADDRESS", help="where the call comes from")
@click.option("--host", metavar="HOST[:PORT]", help="what the call names")
@click.option("--port", metavar="N", type=click.IntRange(1, 65535), help="the app's port, where there are several")
@click.option("--outbound", is_flag=True, help="a call that the proxy's own app makes: which route it takes")
@click.option("-H", "fields", metavar="NAME:VALUE", multiple=True, help="a header field; may be given again")
@_FORM
@proxied
@with_session
def explain(
    session: Session,
    proxy: Proxy,
    words: tuple[str, ...],
    form: str,
    peer: str | None,
    address: str | None,
    host: str | None,
    port: int | None,
    outbound: bool,
    fields: tuple[str, ...],
) -> int:
    """Tell the story of one request, by its id (x-request-id of its reply, or a line of tap).

    With METHOD PATH, tell what would become of a request that was never made: which policy decides, and what differs
    from each rule. That is asked of the proxy of the app that is called, and changes nothing there.
    """
    described = {"from": peer, "ip": address, "host": host, "port": port}
    if len(words) == 1:
        if fields or outbound or any(each is not None for each in described.values()):
            raise Failed(Exit.USAGE, "a request that was made has these itself; for another one write METHOD PATH")
        path = f"/explain/{quote(words[0], safe='')}?format={form}"
        session.printer.text(proxy.get(path).decode("utf-8", "replace"), "json" if form == "json" else "")
        return Exit.DONE
    if len(words) != 2:
        raise Failed(Exit.USAGE, "explain takes an ID, or METHOD PATH")
    target = words[1]
    if outbound and target.startswith("http://"):  # as one types it for curl
        named, slash, rest = target.removeprefix("http://").partition("/")
        described["host"], target = host or named, slash + rest or "/"
    asked = {"method": words[0], "path": target, "format": form}
    if outbound:
        asked["direction"] = "outbound"
    asked |= {name: str(value) for name, value in described.items() if value is not None}
    for field in fields:
        name, colon, value = field.partition(":")
        if not name or not colon:
            raise Failed(Exit.USAGE, f"{printable(field)!r} is not NAME:VALUE")
        asked[f"header.{name.strip()}"] = value.strip()
    answer = proxy.post(f"/explain?{urlencode(asked)}")
    session.printer.text(answer.decode("utf-8", "replace"), "json" if form == "json" else "")
    return Exit.DONE


@click.command(
    cls=Command,
    short_help="what rate limits count, and who is limited now",
    connects=False,
    examples=("sidecarctl limits --proxy 127.0.0.1:15000", "sidecarctl limits -o json"),
)
@output
@proxied
@with_session
def limits(session: Session, proxy: Proxy) -> int:
    """List the limits of the RateLimitPolicies that a proxy obeys: what each admitted, and whom it holds back now."""
    found = json.loads(proxy.get("/limits"))
    session.printer.rows(tables.LIMITS, found, {"items": found}, "no RateLimitPolicy applies to this proxy")
    return Exit.DONE


@click.command(
    cls=Command,
    short_help="how a proxy routes what its app calls",
    connects=False,
    examples=("sidecarctl routes --proxy 127.0.0.1:15000", "sidecarctl routes -o json"),
)
@output
@proxied
@with_session
def routes(session: Session, proxy: Proxy) -> int:
    """List the rules of the VirtualServices that a proxy obeys, in the order in which they count: what each matches,
    what it does, and how many requests it has routed where."""
    found = json.loads(proxy.get("/routes"))
    session.printer.rows(tables.ROUTES, found, {"items": found}, "no VirtualService is in force at this proxy")
    return Exit.DONE


@click.command(
    cls=Command, short_help="what the admin port says at a path", connects=False,
    examples=(
        "sidecarctl admin /help",
        "sidecarctl admin '/stats?usedonly&filter=pool'",
        "sidecarctl admin --post '/logging?level=debug' --admin-token-file token",
    ),
)  # fmt: skip
@click.argument("path")
@click.option("--post", is_flag=True, help="change something; without it nothing is")
@proxied
@with_session
def admin(session: Session, proxy: Proxy, path: str, post: bool) -> int:
    """Ask the admin port for a path, and print what it says."""
    target = path if path.startswith("/") else f"/{path}"
    if any(each.isspace() or not each.isprintable() or not each.isascii() for each in target):
        raise Failed(Exit.USAGE, f"{printable(path)!r} is not a path; write %20 for a space")
    body = proxy.post(target) if post else proxy.get(target)
    session.printer.text(body.decode("utf-8", "replace"))
    return Exit.DONE


@click.command(
    cls=Command,
    short_help="what a proxy shows, for whoever helps; without secrets",
    connects=False,
    examples=("sidecarctl support-bundle web.tar.gz --proxy 127.0.0.1:15000",),
)
@click.argument("file", metavar="FILE", type=click.Path())
@proxied
@with_session
def support_bundle(session: Session, proxy: Proxy, file: str) -> int:
    """Write what a proxy shows of itself into an archive (tar.gz), for whoever is asked for help.

    Settings, what it was told of its mesh, certificates without keys, figures, the last requests. No logs, no bodies,
    no header fields, no values of queries, no tokens, no keys; names and addresses are in it. Mode 0600.
    """
    parts: dict[str, bytes] = {}
    missing: dict[str, str] = {}
    with session.printer.waiting("asking ..."):
        for name, path in archive.PARTS.items():
            try:
                parts[name] = archive.clean(name, proxy.get(path))
            except Failed as failed:
                if failed.code is Exit.UNREACHED:
                    raise
                missing[name] = archive.clean(name, "; ".join(failed.lines).encode()).decode()
    now = time.time()
    manifest = {
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)), "by": f"sidecarctl {__version__}",
        "parts": sorted(parts), "missing": missing,
    }  # fmt: skip
    packed = archive.pack({"manifest.json": json.dumps(manifest, indent=1).encode(), **parts}, now)
    settings.write_private(Path(file), packed)
    session.says(f"{len(parts)} parts, {len(packed)} bytes, are in {file}; look at them before you hand them on")
    return Exit.DONE


COMMANDS: Final = (tap, explain, limits, routes, admin, support_bundle)
