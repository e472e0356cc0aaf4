"""The log's writer: it never holds the loop up, never breaks a line, and counts what it loses."""

from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from pathlib import Path

import pytest

from sidecar.telemetry.access_log import AccessLog
from sidecar.telemetry.log_writer import BLOCK_SIZE, FLUSH_SECONDS, LogWriter
from sidecar.telemetry.metrics import Counters


def until(condition: object, *, seconds: float = 30.0) -> None:
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
    assert writer._block == b"three\n"  # too early
    writer.tick(1000.0 + FLUSH_SECONDS)
    until(lambda: writer.pending == 0)
    writer.tick(2000.0)
    writer.put(b"four\n")
    writer.tick(2000.0 + FLUSH_SECONDS / 2)  # after silence the next tick is early enough
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
    assert time.monotonic() - began < 10.0
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
    monkeypatch.setattr("sidecar.telemetry.log_writer.os.write", disk)
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
    monkeypatch.setattr("sidecar.telemetry.log_writer.os.write", disk)
    writer = LogWriter(str(tmp_path / "log"))
    writer.put(b"line\n")
    writer.tick(1.0)
    until(lambda: disk.refused > 0)
    began = time.monotonic()
    assert not writer.close(0.1)
    assert time.monotonic() - began < 10.0
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
    monkeypatch.setattr("sidecar.telemetry.log_writer.os.write", disk)
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
