"""What a caller is told when it does not get what it asked for: ``application/problem+json`` (RFC 9457). Pure.

Who raises: everything behind ``control.middleware``; only the gate turns one into a reply. A refusal is opaque: its
body depends on the status alone, so that no caller learns from it whether a token exists, has expired or belongs to
somebody else. The reason goes to the audit log, and the two meet by the request id. What was wrong with a request is
told to callers that have proven who they are, and never where identity is what is asked for.
"""

from __future__ import annotations

import msgspec

TYPES = "urn:sidecar:problem:"  # in front of the types that are ours
TITLES = {
    400: "Bad Request",
    401: "Unauthenticated",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    410: "Gone",
    412: "Precondition Failed",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class Refused(Exception):
    """The caller may not, or not now. ``reason`` is for the audit log alone, and free of secrets.

    ``allow``: the methods that there are (405).
    """

    def __init__(self, status: int, reason: str, retry_after: float = 0.0, allow: str = "") -> None:
        super().__init__(reason)
        self.allow = allow
        self.status = status
        self.reason = reason
        self.retry_after = retry_after


class Invalid(Exception):
    """The caller may, and what it asked for can't be: ``detail`` is told to it, with ``more`` as further members.

    ``kind`` is a word by which a program tells this from others of the same status; it stands in ``type``.
    """

    def __init__(
        self, detail: str, status: int = 400, more: dict[str, object] | None = None, *, kind: str = ""
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.more = more or {}
        self.kind = kind


def unauthenticated(reason: str) -> Refused:
    """The one refusal of whoever is not known, or wants an identity that is not its own."""
    return Refused(401, reason)


def body(
    status: int, request_id: str, detail: str = "", more: dict[str, object] | None = None, kind: str = ""
) -> bytes:
    """The document. ``request_id`` is that of the reply's ``x-request-id`` and of the audit log."""
    members: dict[str, object] = {
        "type": f"{TYPES}{kind}" if kind else "about:blank",
        "title": TITLES[status],
        "status": status,
        "request_id": request_id,
    }
    if detail:
        members["detail"] = detail
    return msgspec.json.encode(members | (more or {}))
