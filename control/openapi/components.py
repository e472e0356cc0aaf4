"""Of what the description of a call is made. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from control.documents.parse import Problem

DURATION: Final = {"type": "string", "pattern": r"^[0-9]{1,9}(\.[0-9]{1,6})?(ms|s|m|h)?$"}
VERSION: Final = {"type": "string", "pattern": r"^[0-9]{1,15}\.[0-9]{1,15}$"}
TEXT: Final = {"type": "string"}
_TAGS: Final = {"type": "string", "pattern": r'^(\*|(W/)?"[!#-~]*")$'}


class Parameter(msgspec.Struct, frozen=True):
    """A part of a request beside its body. ``many``: it may be there several times."""

    name: str
    does: str
    schema: Mapping[str, Any]
    where: Literal["query", "header"] = "query"
    many: bool = False


class Described(msgspec.Struct, frozen=True):
    """What a call takes and gives. ``gives`` has the body of each status that is no problem, None where there is none;
    ``problems`` the statuses of this call beside those that all calls have. ``body`` is a type, or the name of a schema
    of ``document``; ``etag``: the answer has one."""

    gives: Mapping[int, Any]
    query: tuple[Parameter, ...] = ()
    body: Any = None
    optional: bool = False
    yaml: bool = False
    problems: tuple[int, ...] = ()
    media: str = "application/json"
    etag: bool = False
    example: Any = None


class ProblemDocument(msgspec.Struct, frozen=True, omit_defaults=True):
    """RFC 9457. ``type`` is ``about:blank``, or ours: ``urn:sidecar:problem:`` and a word. ``request_id`` is that of
    ``x-request-id`` and of the audit log; ``problems`` all that is wrong with documents."""

    type: str
    title: str
    status: int
    request_id: str
    detail: str = ""
    problems: list[Problem] = []


LIMIT: Final = Parameter(
    "limit",
    "items of a page; more than 1000 is taken for that",
    {"type": "integer", "minimum": 1, "maximum": 999999999},
)
CONTINUE: Final = Parameter("continue", "what the page before had as `continue`", TEXT)
NAMESPACE: Final = Parameter("namespace", "only those of this namespace", TEXT)
HELD: Final = Parameter("version", "what the caller has: the answer is 304 while there is no other", VERSION)
WAIT: Final = Parameter("wait", "how long to wait for another version; at most 60s", DURATION)
INSTANCE: Final = Parameter("instance", "tells replicas apart", {"type": "string", "pattern": "^[a-z0-9.-]{0,63}$"})
PROCESS: Final = Parameter("process", "as it was registered", {"type": "string", "pattern": "^[A-Za-z0-9_-]{0,64}$"})
SCHEMA: Final = Parameter(
    "schema", "the newest schema that the caller understands", {"type": "string", "pattern": r"^1\.[0-9]{1,4}$"}
)
IF_MATCH: Final = Parameter("if-match", "only if it is at this generation", _TAGS, "header")
IF_NONE_MATCH: Final = Parameter("if-none-match", "`*`: only if it is not there", _TAGS, "header")
SEEN: Final = Parameter("if-none-match", "304 if it is at this generation still", _TAGS, "header")
