"""What the process says about itself, and the guard of its memory (LIM-8, F11)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sidecar.telemetry.memory import SAMPLE_SECONDS, MemoryGuard, MemoryState, decide, reader_for
from sidecar.telemetry.process import LoopLag, open_descriptors, resident_bytes

NORMAL, KEEPALIVE_OFF, REFUSING = MemoryState


@pytest.mark.parametrize(
    ("state", "used", "expected"),
    [
        (NORMAL, 0, NORMAL),
        (NORMAL, 919, NORMAL),
        (NORMAL, 920, KEEPALIVE_OFF),
        (NORMAL, 949, KEEPALIVE_OFF),
        (NORMAL, 950, REFUSING),
        (NORMAL, 2000, REFUSING),
        (KEEPALIVE_OFF, 950, REFUSING),
        (KEEPALIVE_OFF, 949, KEEPALIVE_OFF),
        (KEEPALIVE_OFF, 850, KEEPALIVE_OFF),
        (KEEPALIVE_OFF, 849, NORMAL),
        (REFUSING, 949, REFUSING),
        (REFUSING, 900, REFUSING),
        (REFUSING, 850, REFUSING),
        (REFUSING, 849, NORMAL),
    ],
)
def test_lim_8_the_state_follows_what_is_used_of_the_limit(
    state: MemoryState, used: int, expected: MemoryState
) -> None:
    assert decide(state, used, 1000) is expected


@pytest.mark.parametrize("state", list(MemoryState))
def test_without_a_limit_all_is_normal(state: MemoryState) -> None:
    assert decide(state, 1 << 40, 0) is NORMAL


@pytest.mark.parametrize(
    ("used", "keepalive", "idle", "busy"),
    [(500, True, True, True), (930, False, True, True), (990, False, True, False)],
    ids=["normal", "keepalive-off", "refusing"],
)
def test_lim_8_what_a_guard_admits(used: int, keepalive: bool, idle: bool, busy: bool) -> None:
    guard = MemoryGuard(1000, read_used=lambda: used)
    guard.tick(10.0)
    assert (guard.keepalive, guard.admits(0), guard.admits(1)) == (keepalive, idle, busy)


def test_a_guard_samples_now_and_then() -> None:
    readings = iter([100, 990, 100])
    guard = MemoryGuard(1000, read_used=lambda: next(readings))
    guard.tick(10.0)
    guard.tick(10.0 + SAMPLE_SECONDS / 2)
    assert (guard.used, guard.state) == (100, NORMAL)
    guard.tick(10.0 + SAMPLE_SECONDS)
    assert (guard.used, guard.state) == (990, REFUSING)
    guard.tick(11.0)
    assert (guard.used, guard.state) == (100, NORMAL)


def test_a_guard_without_limit_reads_nothing() -> None:
    MemoryGuard(0, read_used=lambda: pytest.fail("read")).tick(10.0)


def test_a_reading_that_fails_leaves_the_state(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> int:
        raise FileNotFoundError("memory.current")

    guard = MemoryGuard(1000, read_used=broken)
    guard.state = REFUSING
    guard.tick(10.0)
    assert guard.state is REFUSING
    assert "memory.current" in caplog.text


def cgroup(tmp_path: Path, membership: str, files: dict[str, str]) -> tuple[str, str]:
    (tmp_path / "membership").write_text(membership)
    for name, text in files.items():
        path = tmp_path / "mount" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return str(tmp_path / "membership"), str(tmp_path / "mount")


V2 = {
    "pod/memory.max": "1000\n",
    "pod/memory.current": "700\n",
    "pod/memory.stat": "anon 500\ninactive_file 150\nactive_file 50\n",
    "pod/box/memory.max": "max\n",
}
V1 = {
    "memory/pod/memory.limit_in_bytes": "1000\n",
    "memory/pod/memory.usage_in_bytes": "600\n",
    "memory/pod/memory.stat": "inactive_file 1\ntotal_inactive_file 200\n",
}
NAMESPACED = {
    "memory.max": "1000\n",
    "memory.current": "900\n",
    "memory.stat": "inactive_file 10\n",
}


@pytest.mark.parametrize(
    ("membership", "files", "used"),
    [
        ("0::/pod/box\n", V2, 550),
        ("5:cpu,cpuacct:/pod\n4:memory:/pod\n", V1, 400),
        ("0::/kubepods/elsewhere\n", NAMESPACED, 890),
    ],
    ids=["v2, limit above us", "v1", "v2, path of the host"],
)
def test_the_cgroups_own_limit_is_held_against_its_working_set(
    tmp_path: Path, membership: str, files: dict[str, str], used: int
) -> None:
    assert reader_for(1000, *cgroup(tmp_path, membership, files))() == used


def test_another_limit_is_held_against_our_resident_set(tmp_path: Path) -> None:
    assert reader_for(999, *cgroup(tmp_path, "0::/pod/box\n", V2)) is resident_bytes
    assert reader_for(999, str(tmp_path / "none"), str(tmp_path)) is resident_bytes


def test_the_resident_set_grows_with_what_is_touched() -> None:
    before = resident_bytes()
    touched = bytearray(os.urandom(1 << 20)) * 32
    assert resident_bytes() - before > 24 << 20
    assert len(touched) == 32 << 20


def test_descriptors_are_counted() -> None:
    before = open_descriptors()
    reading, writing = os.pipe()
    assert open_descriptors() == before + 2
    os.close(reading)
    os.close(writing)
    assert open_descriptors() == before


def test_loop_lag_is_how_late_the_last_and_the_latest_wake_up_were() -> None:
    lag = LoopLag()
    for due, now in ((1.0, 1.25), (2.0, 2.5), (3.0, 3.125), (4.0, 3.9)):
        lag.note(due, now)
    assert (lag.last, lag.max) == (0.0, 0.5)
