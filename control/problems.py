"""What a caller is told when it does not get what it asked for: ``application/problem+json`` (RFC 9457). Pure.

Who raises: everything behind ``control.gate``; only the gate turns one into a reply. A refusal is opaque: its body
depends on the status alone, so that nobody learns from it whether a token exists, has expired or belongs to somebody
else. The reason goes to the audit log, and the two meet by the request id. What was wrong with a request is told to
callers that have proven who they are, and never where identity is what is asked for.
"""

from __future__ import annotations

import msgspec

TITLES = {
    400: "Bad Request",
    401: "Unauthenticated",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Content Too Large",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class Refused(Exception):
    """The caller may not, or not now. ``reason`` is for the audit log alone, and free of secrets."""

    def __init__(self, status: int, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


class Invalid(Exception):
    """The caller may, and what it asked for can't be: ``detail`` is told to it, with ``more`` as further members."""

    def __init__(self, detail: str, status: int = 400, more: dict[str, object] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.more = more or {}


def unauthenticated(reason: str) -> Refused:
    """The one refusal of whoever is not known, or wants an identity that is not its own."""
    return Refused(401, reason)


def body(status: int, detail: str = "", more: dict[str, object] | None = None) -> bytes:
    """The document."""
    members: dict[str, object] = {"type": "about:blank", "title": TITLES[status], "status": status}
    if detail:
        members["detail"] = detail
    return msgspec.json.encode(members | (more or {}))
