"""docs/reference/api.md, from the control plane's own description of its API."""

from __future__ import annotations

from typing import Any

from control.openapi.document import document

_HEAD = """\
# The control plane's API

<!-- Made from control/openapi by make docs; change that, not this. -->

HTTP/1.1 and JSON; documents as YAML, too. A running control plane describes itself at `/openapi.json` (OpenAPI 3.1),
which has the schemas of all that is named here. Who calls shows a token, `authorization: Bearer ...`, or on the port
for sidecars its certificate; what it may call is said by its role. What all of it is for is told in [the control
plane](../control.md).

Whatever is not granted is `application/problem+json` (RFC 9457): `type`, `title`, `status`, `request_id` (that of
`x-request-id` and of the audit log), and where the caller has proven who it is `detail`; what is wrong with documents
is in `problems`, each with `document`, `why`, `path`, and `line` where the body had lines. Types of ours begin with
`urn:sidecar:problem:`: `documents` (they can't be taken), `precondition` (If-Match, If-None-Match), `conflict`
(others change the same all the time), `too-many` (no room for so many), `deleted` (a generation that is a deletion),
`expired` (a list that is not kept any more).

Lists come in pages: `limit` says how many, `continue` in the answer leads to the next page, and is not there with the
last. All pages of documents are of one moment; in other lists, what is there all the time comes once.
"""
_CALL = "\n## `{method} {path}`\n\n{does}. {roles}\n"


def text() -> str:
    """The page."""
    described = document()
    calls = [
        _call(method.upper(), path, operation)
        for path, operations in described["paths"].items()
        for method, operation in operations.items()
    ]
    return "".join([_HEAD, *calls])


def _call(method: str, path: str, operation: dict[str, Any]) -> str:
    roles = operation["x-roles"]
    who = f"For {_joined([f'**{role}**' for role in roles])}." if roles else "For whoever reaches the port."
    does = operation["summary"][0].upper() + operation["summary"][1:]
    told = [_CALL.format(method=method, path=path, does=does, roles=who)]
    told += [
        f"- `{one['name']}`{' (header)' if one['in'] == 'header' else ''}: {one['description']}\n"
        for one in operation["parameters"]
        if one["in"] != "path"
    ]
    if "requestBody" in operation:
        media = operation["requestBody"]["content"]
        name = next(iter(media.values()))["schema"]["$ref"].rpartition("/")[2]
        told.append(f"- body: `{name}`, as {_joined([f'`{each}`' for each in media])}\n")
    told.append(f"- answers: {', '.join(_answer(status, one) for status, one in operation['responses'].items())}\n")
    listed = "".join(told[1:])
    return f"{told[0]}\n{listed}"


def _answer(status: str, response: dict[str, Any]) -> str:
    for media, content in response.get("content", {}).items():
        name = content.get("schema", {}).get("$ref", "").rpartition("/")[2]
        if name == "ProblemDocument":
            return status
        return f"**{status}** `{name or media}`"
    return f"**{status}**"


def _joined(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
