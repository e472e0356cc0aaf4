"""``POST /explain``: what would become of a request that was never made; ``/dry_runs``: what would have become of those
that were made, by policies that are not in force yet; ``/limits``: what limits count."""

from __future__ import annotations

from typing import cast

from sidecar.admin.context import AdminContext
from sidecar.admin.recent_requests import outline
from sidecar.admin.responses import Reply, Request, as_json
from sidecar.proxy.explain_request import Question

_KNOWN = ("direction", "format", "from", "host", "ip", "method", "path", "port")


async def would_be(context: AdminContext, request: Request) -> Reply:
    """Each step, and why; by the code that judges real requests."""
    if context.hypothetical is None:
        return Reply(404, b"nothing is forwarded here\n")
    try:
        asked = _question(request.parameters)
        outward = request.parameters.get("direction", "inbound")
        if outward not in ("inbound", "outbound"):
            raise ValueError("direction= is inbound or outbound")
        told = (context.hypothetical if outward == "inbound" else context.outbound)(asked)
    except ValueError as error:
        return Reply(400, f"{error}\n".encode())
    if request.parameters.get("format") == "text":
        return Reply(200, "\n".join([*outline(told, ""), ""]).encode())
    return as_json(told)


async def dry_runs(context: AdminContext, request: Request) -> Reply:
    """What the policies of dry runs would have decided otherwise, by policy and caller."""
    wanted = request.parameters.get("policy", "")
    return as_json([row for row in context.dry_runs() if not wanted or row["policy"] == wanted])


async def limits(context: AdminContext, request: Request) -> Reply:
    """Each limit of a RateLimitPolicy, with what it counted and the keys that it refuses now."""
    wanted = request.parameters.get("policy", "")
    return as_json([row for row in context.limits() if not wanted or row["policy"] == wanted])


async def routes(context: AdminContext, request: Request) -> Reply:
    """Each rule of a VirtualService: what it matches, what it does, and how many requests it has routed where."""
    wanted = request.parameters.get("host", "")
    return as_json([row for row in context.routes() if not wanted or wanted in cast("list[str]", row["hosts"])])


def _question(parameters: dict[str, str]) -> Question:
    unknown = [name for name in parameters if name not in _KNOWN and not name.startswith("header.")]
    if unknown:
        raise ValueError(f"{unknown[0]}= is not a parameter; there are {', '.join(_KNOWN)} and header.NAME")
    port = parameters.get("port", "0")
    if not port.isdigit() or int(port) > 65_535:
        raise ValueError("port= is a number up to 65535")
    target = parameters.get("path", "/")
    if not target.startswith("/"):
        raise ValueError("path= begins with a slash")
    fields = [(name.removeprefix("header."), text) for name, text in parameters.items() if name.startswith("header.")]
    return Question(
        parameters.get("method", "GET"),
        target,
        parameters.get("host", "app"),
        parameters.get("from", ""),
        parameters.get("ip", "192.0.2.1"),
        int(port),
        tuple(fields),
    )
