"""The page at ``/`` and what it is made of: a few files of this package, served as they are.

Read at the first request and kept: most processes are never looked at. The policy lets the page load from here and
nowhere else, run no script but its own files, be framed by nobody and send nothing to anybody, so that even a way to
put bytes of a peer into it would lead nowhere.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Final

from sidecar.admin.context import AdminContext
from sidecar.admin.responses import Reply, Request

POLICY: Final = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
_FIELDS: Final = (
    ("content-security-policy", POLICY),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
)
_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_FILES: Final = frozenset(("page.css", "page.js", "charts.js", "story.js", "verdict.js", "words.js", "icon.svg"))


async def page(_: AdminContext, __: Request) -> Reply:
    """The page itself."""
    return _reply("index.html")


async def part(_: AdminContext, request: Request) -> Reply:
    """A file that the page loads."""
    name = request.path.removeprefix("/page/")
    return _reply(name) if name in _FILES else Reply(404, b"the page has no such part\n")


def _reply(name: str) -> Reply:
    return Reply(200, _read(name), _TYPES[name.rpartition(".")[2]], more=_FIELDS)


@cache
def _read(name: str) -> bytes:
    return files("sidecar.admin").joinpath("pages", name).read_bytes()
