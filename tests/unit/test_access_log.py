"""The access log: what a line says, and that nothing a peer sends breaks it (HDR-6)."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import Reason, StartError
from sidecar.telemetry.access_log import AccessLog
from sidecar.telemetry.metrics import Counters
from sidecar.telemetry.record import Record
from sidecar.telemetry.telemetry import Telemetry

PEER_FIELDS = ("method", "path", "authority", "user_agent", "forwarded_for", "request_id", "sni")
JSON_NAMES = {
    "method": "method",
    "path": "path",
    "authority": "authority",
    "user_agent": "user_agent",
    "forwarded_for": "x_forwarded_for",
    "request_id": "request_id",
    "sni": "requested_server_name",
}
LINE = re.compile(
    rb"\[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\] "
    rb'"(?:[^"\\]|\\.)*" \d+ \S+ \d+ \d+ \d+ (?:\d+|-)(?: "(?:[^"\\]|\\.)*"){5} \S+\n'
)


def finished() -> Record:
    record = Record("inbound", "HTTP/1.1", "10.0.0.9:4444", 1_700_000_000.25, 100.0)
    record.method, record.path, record.authority = b"GET", b"/a?b=c", b"app:80"
    record.user_agent, record.request_id = b"curl/8", b"abc-1"
    record.status, record.bytes_received, record.bytes_sent = 200, 3, 1234
    record.first_byte, record.duration, record.upstream, record.attempts = 100.007, 0.0125, "127.0.0.1:8080", 1
    return record


class Drawer:
    """Stands where the writer stands, and keeps the lines."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    def put(self, line: bytes) -> None:
        self.lines.append(line)


def formatter() -> AccessLog:
    return AccessLog("text", Drawer(), Counters())  # type: ignore[arg-type]


def test_text_line_has_the_fields_of_envoys_default_and_the_reason() -> None:
    assert formatter().text_line(finished()) == (
        b'[2023-11-14T22:13:20.250Z] "GET /a?b=c HTTP/1.1" 200 - 3 1234 12 7 "-" "curl/8" "abc-1" "app:80"'
        b' "127.0.0.1:8080" -\n'
    )


def test_text_line_of_what_failed_names_flag_and_reason() -> None:
    record = Record("outbound", "TCP", "127.0.0.1:5", 1_700_000_000.0, 1.0)
    record.reason = Reason.CONNECT_FAILED
    assert formatter().text_line(record) == (
        b'[2023-11-14T22:13:20.000Z] "- - TCP" 0 UF 0 0 0 - "-" "-" "-" "-" "-" connect_failed\n'
    )


@pytest.mark.parametrize(
    ("reason", "exhausted", "flags"),
    [
        (None, "attempts", "URX"),
        (None, "budget", "URX"),
        (Reason.CONNECT_FAILED, "attempts", "UF,URX"),
        (Reason.RETRY_BUDGET, "budget", "URX"),
    ],
)
def test_retries_that_are_used_up_have_their_flag_beside_the_others(
    reason: Reason | None, exhausted: str, flags: str
) -> None:
    record = finished()
    record.reason = reason
    record.exhaust(exhausted)
    assert b'HTTP/1.1" 200 %b 3 ' % flags.encode() in formatter().text_line(record)
    assert json.loads(formatter().json_line(record))["response_flags"] == flags


def test_the_kept_second_of_the_timestamp_follows_the_record() -> None:
    log, record = formatter(), finished()
    stamps = []
    for start in (1_700_000_000.999, 1_700_000_001.0, 1_700_000_000.5):
        record.start = start
        stamps.append(log.text_line(record)[1:25])
    assert stamps == [b"2023-11-14T22:13:20.999Z", b"2023-11-14T22:13:21.000Z", b"2023-11-14T22:13:20.500Z"]


def test_json_line_has_named_fields() -> None:
    record = finished()
    record.reason, record.detail, record.sni = Reason.UPSTREAM_CLOSED, 'it said "no"', b"app.example"
    assert json.loads(formatter().json_line(record)) == {
        "start_time": "2023-11-14T22:13:20.250Z",
        "direction": "inbound",
        "protocol": "HTTP/1.1",
        "method": "GET",
        "path": "/a?b=c",
        "authority": "app:80",
        "response_code": 200,
        "response_flags": "UC",
        "response_code_details": "upstream_closed",
        "detail": 'it said "no"',
        "bytes_received": 3,
        "bytes_sent": 1234,
        "duration_ms": 12,
        "upstream_service_time_ms": 7,
        "client": "10.0.0.9:4444",
        "user_agent": "curl/8",
        "x_forwarded_for": None,
        "request_id": "abc-1",
        "upstream_host": "127.0.0.1:8080",
        "requested_server_name": "app.example",
        "attempts": 1,
        "connection_reused": False,
        "route_name": None,
    }


@pytest.mark.parametrize("field", PEER_FIELDS)
@pytest.mark.parametrize(
    ("sent", "in_text", "in_json"),
    [
        (b"a\r\nb", rb"a\x0d\x0ab", rb"a\u000d\u000ab"),
        (b'a" "b', rb"a\" \"b", rb"a\" \"b"),
        (b"a\\", rb"a\\", rb"a\\"),
        (b"\x00\x1b[31m\x7f", rb"\x00\x1b[31m\x7f", rb"\u0000\u001b[31m\u007f"),
        (b"\xc3\xa9\xff", rb"\xc3\xa9\xff", rb"\u00c3\u00a9\u00ff"),
    ],
    ids=["crlf", "quote", "backslash", "control", "not-ascii"],
)
def test_hdr_6_what_could_break_a_line_is_escaped(field: str, sent: bytes, in_text: bytes, in_json: bytes) -> None:
    record = finished()
    setattr(record, field, sent)
    text = formatter().text_line(record)
    assert LINE.fullmatch(text)
    assert (in_text in text) == (field != "sni")  # text has no field for it
    assert in_json in formatter().json_line(record)


@given(st.fixed_dictionaries({name: st.binary(max_size=40) for name in PEER_FIELDS}), st.text(max_size=20))
def test_hdr_6_any_bytes_make_one_line_and_one_json_document(sent: dict[str, bytes], words: str) -> None:
    record = finished()
    for name, value in sent.items():
        setattr(record, name, value)
    record.detail = record.upstream = record.client = record.protocol = words or "TCP"
    text, document = formatter().text_line(record), formatter().json_line(record)
    assert LINE.fullmatch(text)
    assert text.isascii()
    assert document.isascii()
    assert document.count(b"\n") == 1
    read = json.loads(document)
    for name, value in sent.items():
        assert (read[JSON_NAMES[name]] or "").encode("latin-1") == value
    assert read["response_code"] == 200
    assert read["connection_reused"] is False


def test_close_writes_the_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    telemetry = Telemetry("json", str(path))
    for _ in range(1000):
        telemetry.finish(finished())
    assert telemetry.close(5.0)
    assert [json.loads(line)["path"] for line in path.read_text().splitlines()] == ["/a?b=c"] * 1000


def test_a_file_that_cannot_be_opened_is_a_start_error_that_names_the_flag(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"--access-log-file .*/no/log: No such file or directory"):
        Telemetry("text", str(tmp_path / "no" / "log"))


def test_off_starts_nothing() -> None:
    before = threading.active_count()
    telemetry = Telemetry("off", "-")
    telemetry.finish(finished())
    telemetry.tick(1.0, 1.0)
    assert telemetry.close(0.0)
    assert threading.active_count() == before
