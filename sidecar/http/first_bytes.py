"""Detection of a protocol by its first bytes. If in doubt, it is HTTP: bytes that an HTTP server might serve are never
opaque.

Called by ``proxy.protocol_detection`` with all bytes that have come so far. Pure.

The first line decides. A line that ends in ``HTTP/...`` is HTTP, even if the rest of it is malformed; so is a known
method followed by a path, an asterisk or an http URL, since HTTP/0.9 servers take such a line without a version. Any
other complete line is opaque: ``OPTIONS sip:pbx SIP/2.0`` and Redis' ``GET counter`` begin with methods, too. A line
that begins with a token (RFC 9110 section 5.6.2) and is still incomplete after DETECT_BYTES is never opaque: otherwise
a long method would let a request bypass HTTP's rules.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

DETECT_BYTES: Final = 1024  # a first line that may be opaque is complete within these
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113 section 3.4
PROXY_V1: Final = b"PROXY "  # the PROXY protocol's headers, sections 2.1 and 2.2 of its specification
PROXY_V2: Final = b"\r\n\r\n\0\r\nQUIT\n"

# RFC 9110 section 9.3, RFC 5789, WebDAV (RFC 4918, 3253, 3648, 3744, 5323) and methods seen in the wild.
_METHODS: Final = (
    b"GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH PROPFIND PROPPATCH MKCOL COPY MOVE LOCK UNLOCK "
    b"VERSION-CONTROL REPORT CHECKOUT CHECKIN UNCHECKOUT MKWORKSPACE UPDATE LABEL MERGE BASELINE-CONTROL "
    b"MKACTIVITY ORDERPATCH ACL SEARCH BIND REBIND UNBIND LINK UNLINK MKREDIRECTREF UPDATEREDIRECTREF QUERY "
    b"PURGE SUBSCRIBE UNSUBSCRIBE NOTIFY M-SEARCH"
).split()
_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_METHOD: Final = rb"(?:" + b"|".join(re.escape(m) for m in sorted(_METHODS, key=len, reverse=True)) + rb")"
_PREFIXES: Final = frozenset(m[:n] for m in (*_METHODS, b"PRI") for n in range(1, len(m) + 1))

# Bytes that lenient servers take for white space between the parts of a request line (RFC 9112 section 3). Those from
# 0x1c on are Python's, whose http.server splits the line as Latin-1 text. A carriage return does not end the line: some
# servers end it at a bare line feed, none at a bare carriage return.
_BLANKS: Final = b" \t\x0b\x0c\r\x1c\x1d\x1e\x1f\x85\xa0"
_BLANK: Final = rb"[ \t\x0b\x0c\r\x1c-\x1f\x85\xa0]"
_NO_BLANK: Final = rb"[^ \t\x0b\x0c\r\x1c-\x1f\x85\xa0]"
_REQUEST: Final = re.compile(_METHOD + _BLANK + rb"++(?:/|\*|[hH][tT][tT][pP][sS]?://)")
_METHOD_BEGUN: Final = re.compile(_METHOD + _BLANK)
_PATH_BEGUN: Final = re.compile(_TOKEN + _BLANK + rb"++(?:/|[hH][tT][tT][pP][sS]?://)")
# A token, a blank, then anything up to the line's end: some servers accept control bytes in a target.
_LINE_BEGUN: Final = re.compile(_TOKEN + rb"(?:" + _BLANK + rb"[^\n]*+)?+")
_VERSIONED: Final = re.compile(_BLANK + rb"HTTP/" + _NO_BLANK + rb"*+" + _BLANK + rb"*+\Z", re.IGNORECASE)


class Detected(Enum):
    """The outcomes of detection by a connection's first bytes."""

    TLS = "tls"
    HTTP1 = "http"
    HTTP2 = "http2"
    PROXY = "proxy"  # a PROXY protocol header, behind which any protocol may follow
    OPAQUE = "opaque"
    MORE = "more"  # too little to decide, or the beginning of a method or of a request line: wait
    LIKELY_OPAQUE = "likely_opaque"  # could still become an unusual HTTP request; silence makes it opaque


def detect(data: bytes) -> Detected:
    """Return the protocol that ``data``, the first bytes of a connection, begins.

    Every verdict except MORE and LIKELY_OPAQUE is final, whatever bytes follow. These two are never returned for
    DETECT_BYTES or more.
    """
    if not data:
        return Detected.MORE
    if data[0] == 0x16:
        return Detected.MORE if len(data) == 1 else Detected.TLS if data[1] == 0x03 else Detected.OPAQUE
    if _REQUEST.match(data):  # as nearly all requests begin
        return Detected.HTTP1
    if data.startswith(PREFACE):
        return Detected.HTTP2
    if data.startswith(PROXY_V2):
        return Detected.PROXY
    may_wait = len(data) < DETECT_BYTES
    text = data[:DETECT_BYTES].lstrip(b"\n" + _BLANKS)
    if not text:
        # So much white space can only serve to hide a method: treat it as HTTP, which answers 400.
        return Detected.MORE if may_wait else Detected.HTTP1
    if may_wait and (PREFACE.startswith(data) or PROXY_V2.startswith(data) or text in _PREFIXES):
        return Detected.MORE
    if text.startswith(PROXY_V1):
        return Detected.PROXY
    return _of_line(text, may_wait)


def _of_line(text: bytes, may_wait: bool) -> Detected:
    """Judge the first line, without the white space in front of it."""
    if _REQUEST.match(text):
        return Detected.HTTP1
    begun = _LINE_BEGUN.match(text)
    if begun is None:
        return Detected.OPAQUE
    end = begun.end()
    if end < len(text):
        # The line is complete, or its first word is no token.
        complete = text[end] == 0x0A
        return Detected.HTTP1 if complete and _VERSIONED.search(begun[0]) else Detected.OPAQUE
    if not may_wait:
        return Detected.HTTP1
    if _METHOD_BEGUN.match(text) or (_PATH_BEGUN.match(text) and b"\0" not in text):
        return Detected.MORE
    return Detected.LIKELY_OPAQUE
