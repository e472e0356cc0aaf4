"""One record, one line: the access log as text in the form of Envoy's default, or as JSON with named fields.

Who calls it: ``Telemetry.finish``, once per record, on the hot path. So a line is one bytes-format, the part of the
timestamp down to the second is kept until the second changes, and the fields that a peer chose are escaped only when
one regex over all of them says that something in them is not plain.

What a peer sent is bytes, in no charset. A byte that could end a field, a line or a JSON string, or that is not
printable ASCII, is written as ``\\xNN`` in text and as ``\\u00NN`` in JSON (which is: the JSON string is the bytes read
as Latin-1, so that none is lost); quote and backslash get a backslash. Absent is ``-`` in text and null in JSON.
"""

from __future__ import annotations

import re
from time import gmtime, strftime
from typing import Protocol

from sidecar.telemetry import interception_labels
from sidecar.telemetry.log_writer import LogWriter
from sidecar.telemetry.record import Record

# Envoy's default format (its documentation, "Access logging", "Default format string"), and the reason at its end.
_TEXT = b'[%b.%03dZ] "%b %b %b" %d %b %d %d %d %b "%b" "%b" "%b" "%b" "%b" %b\n'
_JSON = (
    b'{"start_time":"%b.%03dZ","direction":"%b","protocol":"%b","method":%b,"path":%b,"authority":%b,'
    b'"response_code":%d,"response_flags":"%b","response_code_details":%b,"detail":%b,'
    b'"bytes_received":%d,"bytes_sent":%d,"duration_ms":%d,"upstream_service_time_ms":%b,"client":%b,'
    b'"user_agent":%b,"x_forwarded_for":%b,"request_id":%b,"upstream_host":%b,"requested_server_name":%b,'
    b'"attempts":%d,"connection_reused":%b,"route_name":%b}\n'
)

_all_plain = re.compile(rb"[ !#-\[\]-~]*").fullmatch  # printable ASCII but quote and backslash
_TEXT_ESCAPES = [bytes([c]) if 0x20 <= c < 0x7F else b"\\x%02x" % c for c in range(256)]
_JSON_ESCAPES = [bytes([c]) if 0x20 <= c < 0x7F else b"\\u%04x" % c for c in range(256)]
for _table in (_TEXT_ESCAPES, _JSON_ESCAPES):
    _table[0x22] = b'\\"'
    _table[0x5C] = b"\\\\"

_WORDS = {word: word.encode() for word in ("inbound", "outbound", "HTTP/1.1", "HTTP/1.0", "HTTP/2", "TCP", "TLS")}


class Counting(Protocol):
    """Where the number of lost lines and failed writes is shown."""

    access_log_dropped: int
    access_log_errors: int


class AccessLog:
    """Formats records and hands the lines to a LogWriter. ``form`` is "text" or "json"; with ``captured`` each line
    ends with where its connection wanted to go, with ``mesh`` with who its peers have shown to be."""

    def __init__(
        self, form: str, writer: LogWriter, counters: Counting, *, captured: bool = False, mesh: bool = False
    ) -> None:
        self.writer = writer
        self._counters = counters
        self._put = writer.put
        if captured:
            self._line = {"text": self.captured_text_line, "json": self.captured_json_line}[form]
        else:
            self._line = {"text": self.text_line, "json": self.json_line}[form]
        if mesh:
            self._plain_line = self._line
            self._line = {"text": self.mesh_text_line, "json": self.mesh_json_line}[form]
        self._dropped_before = self._errors_before = 0  # the last reset
        self._second = -1
        self._stamp = b""

    def write(self, record: Record) -> None:
        """Logs a finished record. Never blocks."""
        self._put(self._line(record))

    def tick(self, now: float) -> None:
        """To be called every 50-100 ms with the monotonic time: lines go on to the file, losses to the counters."""
        self.writer.tick(now)
        self._count()

    def reopen(self) -> None:
        """For log rotation: lets go of the file and opens the one that has its name now."""
        self.writer.reopen()

    def close(self, seconds: float) -> bool:
        """Writes the last lines within ``seconds``, during which the caller waits; says whether all were written."""
        complete = self.writer.close(seconds)
        self._count()
        return complete

    def reset(self) -> None:
        """What was lost until now is no longer counted."""
        self._dropped_before, self._errors_before = self.writer.dropped, self.writer.errors
        self._count()

    def _count(self) -> None:
        self._counters.access_log_dropped = self.writer.dropped - self._dropped_before
        self._counters.access_log_errors = self.writer.errors - self._errors_before

    # -- lines -------------------------------------------------------------------------------------------------------

    def text_line(self, record: Record) -> bytes:
        """The record as one line of text, with its newline."""
        start = record.start
        second = int(start)
        if second != self._second:
            self._stamp_second(second)
        method = record.method
        path = record.path
        forwarded_for = record.forwarded_for
        user_agent = record.user_agent
        request_id = record.request_id
        authority = record.authority
        protocol = _WORDS.get(record.protocol) or _bytes(record.protocol)
        upstream = _bytes(record.upstream)
        fields = (method, path, forwarded_for, user_agent, request_id, authority, protocol, upstream)
        if not _all_plain(b"".join(fields)):
            method, path, forwarded_for, user_agent, request_id, authority, protocol, upstream = (
                b"".join([_TEXT_ESCAPES[c] for c in field]) for field in fields
            )
        reason = record.reason
        first_byte = record.first_byte
        return _TEXT % (
            self._stamp,
            (start - second) * 1000,
            method or b"-",
            path or b"-",
            protocol,
            record.status,
            b"-" if reason is None and not record.flagged else record.flags.encode(),
            record.bytes_received,
            record.bytes_sent,
            record.duration * 1000,
            b"%d" % ((first_byte - record.began) * 1000) if first_byte else b"-",
            forwarded_for or b"-",
            user_agent or b"-",
            request_id or b"-",
            authority or b"-",
            upstream or b"-",
            b"-" if reason is None else reason.word.encode(),
        )

    def json_line(self, record: Record) -> bytes:
        """The record as one JSON object on one line, with its newline."""
        start = record.start
        second = int(start)
        if second != self._second:
            self._stamp_second(second)
        reason = record.reason
        first_byte = record.first_byte
        fields: tuple[bytes, ...] = (
            record.method,
            record.path,
            record.authority,
            _bytes(record.detail),
            _bytes(record.client),
            record.user_agent,
            record.forwarded_for,
            record.request_id,
            _bytes(record.upstream),
            record.sni,
        )
        if not _all_plain(b"".join(fields)):
            fields = tuple([b"".join([_JSON_ESCAPES[c] for c in field]) for field in fields])
        quoted = [b'"%b"' % field if field else b"null" for field in fields]
        method, path, authority, detail, client, user_agent, forwarded_for, request_id, upstream, sni = quoted
        return _JSON % (
            self._stamp,
            (start - second) * 1000,
            _WORDS[record.direction],
            _WORDS.get(record.protocol) or b"".join([_JSON_ESCAPES[c] for c in _bytes(record.protocol)]),
            method,
            path,
            authority,
            record.status,
            b"-" if reason is None and not record.flagged else record.flags.encode(),
            b"null" if reason is None else b'"%b"' % reason.word.encode(),
            detail,
            record.bytes_received,
            record.bytes_sent,
            record.duration * 1000,
            b"%d" % ((first_byte - record.began) * 1000) if first_byte else b"null",
            client,
            user_agent,
            forwarded_for,
            request_id,
            upstream,
            sni,
            record.attempts,
            b"true" if record.reused else b"false",
            b'"%b"' % record.route.encode() if record.route else b"null",
        )

    def captured_text_line(self, record: Record) -> bytes:
        """As ``text_line``, then the original destination, the cluster, and whether the request named another place."""
        return self.text_line(record)[:-1] + interception_labels.ending(record, "text")

    def captured_json_line(self, record: Record) -> bytes:
        """As ``json_line``, with the same three at its end."""
        return self.json_line(record)[:-2] + interception_labels.ending(record, "json")

    def mesh_text_line(self, record: Record) -> bytes:
        """As without a mesh, then the SPIFFE ids of client and upstream, and the rule that was broken."""
        return b'%b "%b" "%b" %b\n' % (
            self._plain_line(record)[:-1],
            _bytes(record.principal) or b"-",
            _bytes(record.upstream_principal) or b"-",
            _bytes(record.rule) or b"-",
        )

    def mesh_json_line(self, record: Record) -> bytes:
        """As without a mesh, with the same three at its end."""
        ours, theirs, rule = record.principal, record.upstream_principal, record.rule
        return b'%b,"downstream_peer_uri_san":%b,"upstream_peer_uri_san":%b,"rule":%b}\n' % (
            self._plain_line(record)[:-2],
            b'"%b"' % _bytes(ours) if ours else b"null",
            b'"%b"' % _bytes(theirs) if theirs else b"null",
            b'"%b"' % _bytes(rule) if rule else b"null",
        )

    def _stamp_second(self, second: int) -> None:
        self._second = second
        self._stamp = strftime("%Y-%m-%dT%H:%M:%S", gmtime(second)).encode()


def _bytes(text: str) -> bytes:
    """Our own words, nearly always ASCII; anything else is kept readable and escaped like a peer's bytes."""
    return text.encode("utf-8", "backslashreplace")
