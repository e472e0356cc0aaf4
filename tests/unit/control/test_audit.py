"""The audit log's files: what is written stays as long as there is room for it, and what went is counted."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from control import audit
from control.audit import AGAIN_BYTES, KEPT, AuditLog, Line

LENGTH = 400  # of a file here: three lines


def line(number: int) -> Line:
    return Line(
        time="2026-05-04T10:12:13.123Z", id=f"{number:04d}", who="token:0f1e", peer="127.0.0.1",
        what="endpoints.register", verdict="granted", status=200,
    )  # fmt: skip


def ids(path: Path) -> list[int]:
    """The numbers of the lines of all files, oldest first."""
    files = [path.with_name(f"{path.name}.{number}") for number in range(KEPT, 0, -1)]
    whole = b"".join(each.read_bytes() for each in (*files, path) if each.exists())
    return [int(each.partition(b'"id":"')[2][:4]) for each in whole.splitlines()]


def test_the_log_has_a_bound_and_what_goes_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, dropped = tmp_path / "audit.jsonl", list[int]()
    log = AuditLog(str(path), dropped.append, LENGTH)
    with caplog.at_level(logging.WARNING):
        for number in range(100):
            log.write(line(number))
    log.close()
    found = ids(path)
    assert found == list(range(100 - len(found), 100)), "the newest lines are there, each once and in order"
    assert len(found) >= 3 * KEPT and len(list(tmp_path.iterdir())) == KEPT + 1
    a_line = (path.with_name("audit.jsonl.1").stat().st_size) // 3
    assert sum(dropped) == (100 - len(found)) * a_line
    assert any("the oldest of" in each.getMessage() for each in caplog.records)


def test_a_restart_goes_on_in_a_file_that_has_lines_and_counts_them(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    for number in range(4):
        log = AuditLog(str(path), file_bytes=LENGTH)
        log.write(line(number))
        log.close()
    assert ids(path) == [0, 1, 2, 3] and len(list(tmp_path.iterdir())) == 2


def test_where_no_new_file_can_be_begun_the_old_one_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(str(path), file_bytes=LENGTH)
    path.with_name(f"audit.jsonl.{KEPT}").mkdir()  # no file can take its place
    path.with_name(f"audit.jsonl.{KEPT - 1}").touch()
    for number in range(20):
        log.write(line(number))
    log.close()
    assert path.stat().st_size < AGAIN_BYTES
    assert [int(each.partition('"id":"')[2][:4]) for each in path.read_text().splitlines()] == list(range(20))
    assert len([each for each in caplog.records if "no new file" in each.getMessage()]) == 1


def test_older_files_stay_while_no_new_one_can_be_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "AGAIN_BYTES", LENGTH)
    path, dropped = tmp_path / "audit.jsonl", list[int]()
    older = [path.with_name(f"{path.name}.{number}") for number in range(1, KEPT + 1)]
    for each in older:
        each.write_text(each.name)
    path.with_name("audit.jsonl.new").mkdir()
    log = AuditLog(str(path), dropped.append, LENGTH)
    for number in range(100):  # more than a dozen attempts
        log.write(line(number))
    assert [each.read_text() for each in older] == [each.name for each in older] and not dropped
    path.with_name("audit.jsonl.new").rmdir()
    for number in range(100, 104):
        log.write(line(number))
    log.close()
    assert len(older[0].read_bytes().splitlines()) > 100 and len(dropped) == 1


def test_a_log_that_somebody_else_moved_away_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(str(path), file_bytes=LENGTH)
    log.write(line(0))
    os.rename(path, tmp_path / "elsewhere")
    for number in range(1, 4):
        log.write(line(number))
    log.close()
    assert ids(path) == [3] and len((tmp_path / "elsewhere").read_bytes().splitlines()) == 3
