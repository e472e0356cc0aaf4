"""First bytes to a protocol, without guessing against safety: what begins like HTTP gets HTTP's verdict.

Called by ``proxy.inbound`` and ``proxy.outbound`` with all bytes that came so far. Pure.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

DETECT_BYTES: Final = 1024  # a method, and the first line of an unusual one, must show within these
HELLO_BYTES: Final = 16 * 1024 + 5 * 16  # a ClientHello of 16 KiB, in up to 16 records
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113 section 3.4

# RFC 9110 section 9.3, RFC 5789, WebDAV (RFC 4918, 3253, 3648, 3744, 5323) and what is seen in the wild.
_METHODS: Final = (
    b"GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH PROPFIND PROPPATCH MKCOL COPY MOVE LOCK UNLOCK "
    b"VERSION-CONTROL REPORT CHECKOUT CHECKIN UNCHECKOUT MKWORKSPACE UPDATE LABEL MERGE BASELINE-CONTROL "
    b"MKACTIVITY ORDERPATCH ACL SEARCH BIND REBIND UNBIND LINK UNLINK MKREDIRECTREF UPDATEREDIRECTREF QUERY "
    b"PURGE SUBSCRIBE UNSUBSCRIBE NOTIFY M-SEARCH"
).split()
_BEGINS: Final = re.compile(b"|".join(re.escape(m) for m in sorted(_METHODS, key=len, reverse=True)))
_PREFIXES: Final = frozenset(m[:n] for m in (*_METHODS, b"PRI") for n in range(1, len(m)))
_HTTP_LINE: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+[ \t]+[^ \t\r\n]+[ \t]+HTTP/[0-9]")
_MAYBE_LINE: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:[ \t]+(?:[^ \t\r\n]+(?:[ \t]+[HTP/]{0,5})?)?)?\Z")
_PATH_BEGUN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+[ \t]+(?:/|[hH][tT][tT][pP]://)")


class Detected(Enum):
    """What a connection's first bytes are."""

    TLS = "tls"
    HTTP1 = "http"
    HTTP2 = "http2"
    OPAQUE = "opaque"
    MORE = "more"  # nothing that says anything yet, or the beginning of a method or of a request line: wait
    LIKELY_OPAQUE = "likely_opaque"  # could still become an unusual HTTP request; silence makes it opaque


def detect(data: bytes) -> Detected:
    """What ``data``, the first bytes of a connection, begins."""
    if not data:
        return Detected.MORE
    if data[0] == 0x16:
        return Detected.MORE if len(data) == 1 else Detected.TLS if data[1] == 0x03 else Detected.OPAQUE
    if data.startswith(PREFACE):
        return Detected.HTTP2
    if PREFACE.startswith(data):
        return Detected.MORE
    text = data[:DETECT_BYTES].lstrip(b"\r\n \t")
    if _BEGINS.match(text):
        return Detected.HTTP1
    if not text or text in _PREFIXES:
        # So much white space may only hide a method from us: HTTP's verdict, which is 400.
        return Detected.MORE if len(data) < DETECT_BYTES else Detected.HTTP1
    if _HTTP_LINE.match(text):
        return Detected.HTTP1
    if _MAYBE_LINE.match(text):
        # With a path behind the word, neither a pause nor its length may lead a request past HTTP's rules.
        if _PATH_BEGUN.match(text):
            return Detected.MORE if len(data) < DETECT_BYTES else Detected.HTTP1
        if len(data) < DETECT_BYTES:
            return Detected.LIKELY_OPAQUE
    return Detected.OPAQUE
