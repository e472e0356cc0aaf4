"""The one strict grammar of HTTP/1 heads, on bytes: what it does not accept is refused.

``head`` parses complete heads with it, ``body`` trailers. It accepts a subset of what h11 accepts, with the same
meaning, and a property test verifies that. If a head is refused, :func:`explain_request` walks its lines in the order
of their bytes, so that the verdict is the same however the bytes were split. Pure.

Source: RFC 9110 section 5, RFC 9112 sections 2 to 5, with the leniencies that RFC 9112 allows left out (bare LF,
obs-fold, white space around the start line, leading empty lines).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from sidecar.errors import ProxyError, Reason
from sidecar.http.headers import Field

HEAD_BYTES: Final = 32 * 1024  # a head's size, start line to empty line (F6; Envoy allows 60 KiB, nginx 32 KiB)
VERSION_BYTES: Final = 7  # of a status line, which every answer has
HEAD_FIELDS: Final = 100  # Envoy's default

TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]"
VALUE: Final = rb"[^\x00-\x08\x0a-\x1f\x7f]"  # HTAB, visible ASCII, space and obs-text
TARGET: Final = rb"[\x21\x22\x24-\x7e]"  # visible ASCII without the fragment's number sign
FIELD_LINE: Final = TOKEN + rb"++:" + VALUE + rb"*+\r\n"
FIELD_BLOCK: Final = rb"((?:" + FIELD_LINE + rb")*+)\r\n"

REQUEST_HEAD: Final = re.compile(rb"(" + TOKEN + rb"++) (" + TARGET + rb"++) HTTP/1\.([01])\r\n" + FIELD_BLOCK)
RESPONSE_HEAD: Final = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: (" + VALUE + rb"*+))?\r\n" + FIELD_BLOCK)
TRAILER_BLOCK: Final = re.compile(FIELD_BLOCK)

# For a block that is known to be good: the cheapest pattern that still strips the white space around a value.
_FIELD: Final = re.compile(rb"([^:]++):[ \t]*+((?:[^\r]*[^\r \t])?)[ \t]*+\r\n")
_FIELD_LINE: Final = re.compile(FIELD_LINE)
_REQUEST_LINE: Final = re.compile(TOKEN + rb"++ " + TARGET + rb"++ HTTP/1\.[01]\r\n")
_OTHER_VERSION: Final = re.compile(TOKEN + rb"++ " + TARGET + rb"++ HTTP/[0-9]\.[0-9]\r\n")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] [1-9][0-9]{2}(?: " + VALUE + rb"*+)?\r\n")
_TOKEN_BYTE: Final = re.compile(TOKEN)

_COLON: Final = b": ".join


def split_fields(block: bytes) -> list[Field]:
    """Return the fields of a block that a pattern above has matched: (name as sent, value without white space
    around it)."""
    return _FIELD.findall(block)


def field_lines(fields: list[Field]) -> bytes:
    """Return the fields as lines of a head or of trailers."""
    return b"\r\n".join([*map(_COLON, fields), b""])


def explain_request(data: bytes) -> None:
    """Raise ProxyError for the first line of a request head that breaks the grammar or a limit.

    Return if more bytes could still make it a good head. ``data`` starts at the head's first byte.
    """
    if data and not _TOKEN_BYTE.match(data):
        raise ProxyError(Reason.BAD_REQUEST, "the request line does not begin with a method")
    _explain(data, _check_request_line)


def explain_response(data: bytes) -> None:
    """Do as :func:`explain_request`, for the head of a response."""
    if data and not b"HTTP/1.".startswith(data[:VERSION_BYTES]):
        raise ProxyError(Reason.BAD_REQUEST, "the answer does not begin with HTTP/1")
    _explain(data, _check_status_line)


def explain_trailers(data: bytes) -> None:
    """Do as :func:`explain_request`, for the trailers after a chunked body."""
    _explain(data, None)


def _explain(data: bytes, check_first: Callable[[bytes], None] | None) -> None:
    position = count = 0
    while True:
        end = data.find(b"\n", position, HEAD_BYTES)
        if end < 0:
            if len(data) >= HEAD_BYTES:
                if check_first is _check_request_line:
                    raise ProxyError(
                        Reason.REQUEST_LINE_TOO_LONG, f"the request line is longer than {HEAD_BYTES} bytes"
                    )
                raise ProxyError(Reason.HEAD_TOO_LARGE, f"the head is longer than {HEAD_BYTES} bytes")
            return
        line = data[position : end + 1]
        position = end + 1
        if not line.endswith(b"\r\n"):
            raise ProxyError(Reason.BAD_REQUEST, "a line of the head ends with a bare LF")
        if check_first is not None:
            check_first(line)
            check_first = None
        elif line == b"\r\n":
            return
        elif not _FIELD_LINE.fullmatch(line):
            raise ProxyError(Reason.BAD_REQUEST, _why_no_field(line))
        else:
            count += 1
            if count > HEAD_FIELDS:
                raise ProxyError(Reason.HEAD_TOO_LARGE, f"the head has more than {HEAD_FIELDS} fields")


def _check_request_line(line: bytes) -> None:
    if _REQUEST_LINE.fullmatch(line):
        return
    if _OTHER_VERSION.fullmatch(line):
        raise ProxyError(Reason.BAD_VERSION, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    raise ProxyError(Reason.BAD_REQUEST, "the request line is not METHOD SP TARGET SP HTTP/1.1")


def _check_status_line(line: bytes) -> None:
    if not _STATUS_LINE.fullmatch(line):
        raise ProxyError(Reason.BAD_REQUEST, "the status line is not HTTP/1.1 SP STATUS SP REASON")


def _why_no_field(line: bytes) -> str:
    name, colon, _ = line.partition(b":")
    if line[:1] in b" \t":
        return "a field is folded over several lines (obs-fold)"
    if not colon:
        return "a line of the head has no colon"
    if name[-1:] in (b" ", b"\t"):
        return "white space stands before a field's colon"
    if not name or not re.fullmatch(TOKEN + rb"+", name):
        return "a field's name is not a token"
    return "a field's value has a control byte"
