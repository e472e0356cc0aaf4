"""HTTP/1's request and response heads: the one constructor of each, which enforces every rule on it.

A head is a ``message.Request`` or ``message.Response`` with the properties that only HTTP/1 has. Only the codecs of
``http.h1.server_stream`` and ``http.h1.client`` read these, and nothing between them. A head that goes out is rebuilt
from such an object, never copied through. Pure.

Source: RFC 9112 sections 3, 6 and 9.3; ``grammar`` for the bytes, ``headers`` for the meaning of names, ``paths`` for
the target.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Final

from sidecar.errors import ProxyError, Reason
from sidecar.http import headers, paths
from sidecar.http.authority import canonical_authority, check_authority
from sidecar.http.h1 import grammar
from sidecar.http.h1.grammar import HEAD_BYTES, HEAD_FIELDS
from sidecar.http.headers import Field
from sidecar.http.message import EMPTY, UNKNOWN, Body, LocalReply, Request, Response

_LENGTH: Final = re.compile(rb"0|[1-9][0-9]{0,17}")
_WITH_PORT: Final = re.compile(rb":[0-9]+\Z")
_ABSOLUTE: Final = re.compile(rb"([A-Za-z][A-Za-z0-9+.-]*)://([^/?]*)([/?].*)?")


class RequestHead(Request, frozen=True, gc=False):
    """A request that came over HTTP/1; ``keep_alive``: the client wants its connection kept."""

    minor: int = 1
    keep_alive: bool = True


class ResponseHead(Response, frozen=True, gc=False):
    """An answer that came over HTTP/1; ``until_close``: its body ends with the connection. ``keep_alive``: the
    connection may be used again."""

    phrase: bytes = b""
    minor: int = 1
    keep_alive: bool = True
    until_close: bool = False

    def switches_to(self, wanted: bytes) -> bool:
        """Return whether this 101's Upgrade names only protocols that ``wanted`` (a request's Upgrade) has offered."""
        offered = headers.tokens(wanted)
        chosen = headers.tokens(self.known.get(headers.UPGRADE, b""))
        return bool(chosen) and all(protocol in offered for protocol in chosen)


_PHRASES: Final = {status.value: status.phrase.encode() for status in HTTPStatus}


def phrase_for(status: int) -> bytes:
    """Return the usual reason phrase of a status; b"" if there is none."""
    return _PHRASES.get(status, b"")


NO_CONTENT: Final = frozenset({204, 304})  # statuses of responses that never have a body


def phrase_of(response: Response) -> bytes:
    """Return the reason phrase to send: the upstream's own, if the answer came over HTTP/1."""
    return response.phrase if isinstance(response, ResponseHead) else phrase_for(response.status)


def local_reply_head(reply: LocalReply, *, close: bool) -> bytes:
    """Return the head of a local reply as bytes; ``close``: the connection takes no request after it."""
    # RFC 9110 section 8.6: a 204 must not have a length, and that of a 304 is another representation's.
    length = b"" if reply.status in NO_CONTENT else b"content-length: %d\r\n" % len(reply.body)
    return b"HTTP/1.1 %d %b\r\n%b%b%b\r\n" % (
        reply.status,
        phrase_for(reply.status),
        grammar.field_lines(reply.fields),
        length,
        b"connection: close\r\n" if close else b"",
    )


def parse_request(data: bytes) -> tuple[RequestHead, int] | None:
    """Return the head at the start of ``data`` and its size in bytes; None if it is incomplete. Raises ProxyError."""
    match = grammar.REQUEST_HEAD.match(data)
    if match is None or match.end() > HEAD_BYTES:
        grammar.explain_request(data)
        return None
    method, target, minor, block = match.groups()
    fields = grammar.split_fields(block)
    if len(fields) > HEAD_FIELDS:
        grammar.explain_request(data)
    return request_head(method, target, 1 if minor == b"1" else 0, fields), match.end()


def request_head(method: bytes, target: bytes, minor: int, fields: list[Field]) -> RequestHead:
    """Construct a request's head. Raises ProxyError if any rule on a request is broken."""
    known, kept = _index(fields)
    body = _body(known, minor)
    authority = known.get(headers.HOST)
    if authority is None:
        if minor:
            raise ProxyError(Reason.BAD_REQUEST, "an HTTP/1.1 request has no Host")
        authority = b""
    else:
        check_authority(authority)
    absolute = False
    sent = target
    if target[0] == 0x2F:
        target = paths.forwarded(target)
    else:
        target, authority, absolute = _other_form(method, target, authority, body, minor)
    if method == b"CONNECT" and target[0] == 0x2F:
        raise ProxyError(Reason.BAD_REQUEST, "the target of CONNECT is not HOST:PORT")
    protocol = b""
    connection = known.get(headers.CONNECTION)
    keep_alive = minor == 1
    if connection is not None:
        options = headers.tokens(connection)
        keep_alive = b"close" not in options and (keep_alive or b"keep-alive" in options)
        if b"upgrade" in options and minor and not body:
            protocol = _wanted_upgrade(known.get(headers.UPGRADE, b""))
        if not _ONLY_USUAL.issuperset(options):
            kept = headers.without_nominated(kept, connection)
    if not minor:
        known.pop(headers.EXPECT, None)  # RFC 9110 section 10.1.1: an HTTP/1.0 client can't wait for 100
    return RequestHead(method, target, authority, kept, known, body, absolute, protocol, sent, minor, keep_alive)


def parse_response(data: bytes, method: bytes) -> tuple[ResponseHead, int] | None:
    """Parse, as :func:`parse_request` does, the answer to a request with ``method``. Errors carry reasons of a client's
    fault; the caller that reads an upstream's bytes converts them."""
    match = grammar.RESPONSE_HEAD.match(data)
    if match is None or match.end() > HEAD_BYTES:
        grammar.explain_response(data)
        return None
    minor, status, phrase, block = match.groups()
    fields = grammar.split_fields(block)
    if len(fields) > HEAD_FIELDS:
        grammar.explain_response(data)
    head = response_head(int(status), phrase or b"", 1 if minor == b"1" else 0, fields, method)
    return head, match.end()


def response_head(status: int, phrase: bytes, minor: int, fields: list[Field], method: bytes) -> ResponseHead:
    """Construct an answer's head. Raises ProxyError if any rule on an answer is broken."""
    known, kept = _index(fields)
    body = _body(known, minor)
    until_close = False
    announced = False  # a body where none is allowed: if its bytes came anyway, they would belong to no answer
    if status < 200 or status == 204 or status == 304 or method == b"HEAD":
        if status < 200 or status == 204:
            announced = body != EMPTY
            kept = headers.without(kept, _LENGTH_ONLY)
        body = EMPTY
    elif method == b"CONNECT" and status < 300:
        body = EMPTY
        kept = headers.without(kept, _LENGTH_ONLY)  # RFC 9110 section 9.3.6
    elif not body and headers.CONTENT_LENGTH not in known:
        body = UNKNOWN
        until_close = True
    keep_alive = minor == 1
    connection = known.get(headers.CONNECTION)
    if connection is not None:
        options = headers.tokens(connection)
        keep_alive = b"close" not in options and (keep_alive or b"keep-alive" in options)
        if not _ONLY_USUAL.issuperset(options):
            kept = headers.without_nominated(kept, connection)
    reusable = keep_alive and not announced and not until_close
    return ResponseHead(status, kept, known, body, phrase, minor, reusable, until_close)


_ONLY_USUAL: Final = frozenset({b"close", b"keep-alive", b"upgrade", b"te"})
_LENGTH_ONLY: Final = frozenset({headers.CONTENT_LENGTH})
_ONCE: Final = frozenset({headers.HOST, headers.CONTENT_LENGTH, headers.TRANSFER_ENCODING, headers.EXPECT})


def _index(fields: list[Field]) -> tuple[dict[bytes, bytes], list[Field]]:
    """Return the values of fields that have a meaning here, and the fields that are not hop-by-hop."""
    known: dict[bytes, bytes] = {}
    kept: list[Field] = []
    spelling = headers.SPELLINGS
    for field in fields:
        name, value = field
        key = spelling.get(name)
        if key is None:
            key = headers.meaning(name)
        if key:
            if key not in known:
                known[key] = value
            elif key in _ONCE:
                raise ProxyError(Reason.BAD_FRAMING, f"{key.decode()} is sent more than once")
            else:
                known[key] += b", " + value
            if key in headers.HOP_BY_HOP:
                continue
        kept.append(field)
    return known, kept


def _body(known: dict[bytes, bytes], minor: int) -> Body:
    """Return the length of the body by RFC 9112 section 6.3. Raises ProxyError for every ambiguity."""
    coding = known.get(headers.TRANSFER_ENCODING)
    length = known.get(headers.CONTENT_LENGTH)
    if coding is not None:
        if length is not None:
            raise ProxyError(Reason.BAD_FRAMING, "both Content-Length and Transfer-Encoding are sent")
        if not minor:
            raise ProxyError(Reason.BAD_FRAMING, "Transfer-Encoding is not part of HTTP/1.0")
        if coding.lower() != b"chunked":
            raise ProxyError(Reason.UNKNOWN_CODING, "the only Transfer-Encoding understood is chunked")
        return UNKNOWN
    if length is None:
        return EMPTY
    if not _LENGTH.fullmatch(length):
        raise ProxyError(Reason.BAD_FRAMING, "Content-Length is not one decimal number")
    return int(length)


def _other_form(method: bytes, target: bytes, authority: bytes, body: Body, minor: int) -> tuple[bytes, bytes, bool]:
    """Parse the absolute, authority and asterisk forms (RFC 9112 section 3.2).

    Return (target, authority, whether the target was absolute). Raises ProxyError."""
    if method == b"CONNECT":
        if body or not minor:
            raise ProxyError(Reason.BAD_REQUEST, "CONNECT has a body, or is HTTP/1.0")
        check_authority(target)
        if not _WITH_PORT.search(target):
            raise ProxyError(Reason.BAD_REQUEST, "the target of CONNECT is not HOST:PORT")
        if authority and canonical_authority(authority) != canonical_authority(target) and b":" in authority:
            raise ProxyError(Reason.BAD_REQUEST, "CONNECT names another authority than Host")
        return target, target, False
    if target == b"*" and method == b"OPTIONS":
        return target, authority, False
    match = _ABSOLUTE.fullmatch(target)
    if match is None or match[1].lower() != b"http":
        raise ProxyError(Reason.BAD_REQUEST, "the target is neither a path nor an http:// URL")
    named, rest = match[2], match[3] or b"/"
    check_authority(named)
    if authority not in (named, b"") and canonical_authority(authority) != canonical_authority(named):
        raise ProxyError(Reason.BAD_REQUEST, "the target names another authority than Host")
    if method == b"OPTIONS" and match[3] is None:
        return b"*", named, True  # RFC 9112 section 3.2.4
    return paths.forwarded(rest if rest[0] == 0x2F else b"/" + rest), named, True


def _wanted_upgrade(value: bytes) -> bytes:
    """Return the protocols to upgrade to. h2c is never offered: the proxy could not read it (RFC 9113 section 3.1)."""
    wanted = [member.strip(b" \t") for member in value.split(b",")]
    return b", ".join([member for member in wanted if member and member.lower() not in (b"h2c", b"h2")])
