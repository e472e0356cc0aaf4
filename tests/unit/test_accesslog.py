"""The access log: what a line says, that nothing a peer sends breaks it, and that the writer never holds anybody up."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.errors import Reason, StartError
from sidecar.telemetry.accesslog import AccessLog
from sidecar.telemetry.logwriter import BLOCK_SIZE, FLUSH_SECONDS, LogWriter
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


# -- the writer ------------------------------------------------------------------------------------------------------


def until(condition: object, *, seconds: float = 5.0) -> None:
    """Waits for what another thread does; there is nothing to wait on but its effect."""
    assert callable(condition)
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        threading.Event().wait(0.002)


def test_lines_wait_for_a_tick_and_then_reach_the_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = LogWriter(str(path))
    writer.put(b"one\n")
    writer.put(b"two\n")
    assert writer.pending == 8
    assert path.read_bytes() == b""
    writer.tick(1000.0)
    until(lambda: path.read_bytes() == b"one\ntwo\n")
    until(lambda: writer.pending == 0)
    writer.put(b"three\n")
    writer.tick(1000.0 + FLUSH_SECONDS / 2)
    assert writer.pending == 6  # too early
    writer.tick(1000.0 + FLUSH_SECONDS)
    until(lambda: writer.pending == 0)
    assert writer.close(5.0)


def test_a_full_block_does_not_wait_for_a_tick(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = LogWriter(str(path))
    writer.put(b"x" * (BLOCK_SIZE - 1) + b"\n")
    until(lambda: path.stat().st_size == BLOCK_SIZE)
    assert writer.close(5.0)


def test_an_idle_writer_is_asleep(tmp_path: Path) -> None:
    writer = LogWriter(str(tmp_path / "log"))
    for now in range(100):
        writer.tick(float(now))
    assert writer._queue.empty()
    assert writer.close(5.0)


def test_close_writes_the_last_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    telemetry = Telemetry("json", str(path))
    for _ in range(1000):
        telemetry.finish(finished())
    assert telemetry.close(5.0)
    assert [json.loads(line)["path"] for line in path.read_text().splitlines()] == ["/a?b=c"] * 1000


@pytest.fixture
def stuck_pipe() -> tuple[LogWriter, int]:
    """A writer to a pipe of one page that nobody reads yet; what it has on standard output is the pipe."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    writer = LogWriter("-", max_pending=200_000)
    writer._fd = writing
    return writer, reading


def test_a_blocking_pipe_holds_nobody_up_and_what_does_not_fit_is_counted(stuck_pipe: tuple[LogWriter, int]) -> None:
    writer, reading = stuck_pipe
    line = b"%06d" + b"." * 992 + b"\n"
    began = time.monotonic()
    for number in range(1000):
        writer.put(line % number)
    assert time.monotonic() - began < 1.0
    assert writer.pending <= 200_000 + BLOCK_SIZE
    assert not writer.close(0.05)
    dropped = writer.dropped
    assert 700 < dropped < 1000
    received = b""
    while len(received) < (1000 - dropped) * 999:  # the thread goes on where it was stopped
        received += os.read(reading, 65536)
    numbers = [int(each[:6]) for each in received.splitlines()]
    assert len(numbers) == 1000 - dropped
    assert numbers == sorted(numbers)
    assert {len(each) for each in received.splitlines()} == {998}
    writer._thread.join(5.0)
    os.close(reading)
    os.close(writer._fd)


def test_a_pipe_without_reader_costs_the_lines_and_nothing_else(stuck_pipe: tuple[LogWriter, int]) -> None:
    writer, reading = stuck_pipe
    os.close(reading)
    writer.put(b"a\nb\n")
    assert not writer.close(5.0)
    assert (writer.dropped, writer.errors) == (2, 1)
    os.close(writer._fd)


def test_standard_output_that_is_non_blocking_is_waited_for(stuck_pipe: tuple[LogWriter, int]) -> None:
    writer, reading = stuck_pipe
    os.set_blocking(writer._fd, False)
    writer.put(b"x" * 20_000 + b"\n")
    writer.tick(1.0)
    received = b""
    while len(received) < 20_001:
        received += os.read(reading, 65536)
    assert writer.close(5.0)
    assert writer.errors == 0
    os.close(reading)
    os.close(writer._fd)


class FullDisk:
    """os.write of a disk that takes ``room`` bytes and has no more until ``freed``."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.refused = 0
        self.write = os.write

    def __call__(self, fd: int, data: bytes) -> int:
        if self.room <= 0:
            self.refused += 1
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self.write(fd, data[: self.room])
        self.room -= written
        return written


def test_a_full_disk_is_counted_and_tried_again_at_the_same_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, disk = tmp_path / "log", FullDisk(room=6)
    monkeypatch.setattr("sidecar.telemetry.logwriter.os.write", disk)
    counters = Counters()
    log = AccessLog("text", LogWriter(str(path), retry_seconds=0.01), counters)
    log.writer.put(b"first\nsecond\n")
    log.tick(1.0)
    until(lambda: disk.refused >= 2)
    log.tick(2.0)
    assert counters.access_log_errors >= 2
    assert path.read_bytes() == b"first\n"
    disk.room = 3  # in the middle of a line
    until(lambda: path.read_bytes() == b"first\nsec")
    disk.room = 1_000_000
    assert log.close(5.0)
    assert path.read_bytes() == b"first\nsecond\n"
    assert counters.access_log_dropped == 0


def test_a_full_disk_does_not_keep_the_process_from_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FullDisk(room=0)
    monkeypatch.setattr("sidecar.telemetry.logwriter.os.write", disk)
    writer = LogWriter(str(tmp_path / "log"))
    writer.put(b"line\n")
    writer.tick(1.0)
    until(lambda: disk.refused > 0)
    began = time.monotonic()
    assert not writer.close(0.1)
    assert time.monotonic() - began < 1.0
    disk.room = 100
    writer._thread.join(5.0)


def test_reopen_follows_the_name_and_begins_with_a_whole_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, moved = tmp_path / "log", tmp_path / "log.1"
    writer = LogWriter(str(path), retry_seconds=30.0)
    writer.put(b"before\n")
    writer.tick(1.0)
    until(lambda: path.read_bytes() == b"before\n")
    path.rename(moved)
    writer.reopen()
    until(path.exists)
    writer.put(b"after\n")
    writer.tick(2.0)
    until(lambda: path.read_bytes() == b"after\n")

    disk = FullDisk(room=9)
    monkeypatch.setattr("sidecar.telemetry.logwriter.os.write", disk)
    writer.put(b"third\nfourth\n")
    writer.tick(3.0)
    until(lambda: disk.refused > 0)
    path.rename(tmp_path / "log.2")
    disk.room = 1_000
    writer.reopen()  # also ends the wait for room
    until(lambda: path.exists() and path.read_bytes() == b"fourth\n")
    assert writer.close(5.0)
    assert moved.read_bytes() == b"before\n"
    assert (tmp_path / "log.2").read_bytes() == b"after\nthird\nfou"


def test_a_reopen_that_fails_keeps_the_old_file(tmp_path: Path) -> None:
    directory = tmp_path / "logs"
    directory.mkdir()
    writer = LogWriter(str(directory / "log"))
    directory.rename(tmp_path / "away")
    writer.reopen()
    writer.put(b"line\n")
    assert writer.close(5.0)
    assert writer.errors == 1
    assert (tmp_path / "away" / "log").read_bytes() == b"line\n"


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
