"""--identity-dir: on tmpfs alone, for this user alone, whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.errors import StartError
from sidecar.feed.control_responses import ListText
from sidecar.feed.identity_dir import NAME, IdentityDir, Kept, file_system

KEPT = Kept("spiffe://td/c", "spiffe://td/a", "chain", "a secret", "roots", "1.2", "1.3", (ListText("crl", "chain"),))
TMPFS = 0x01021994


@pytest.fixture
def memory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="identity-") as path:
        assert file_system(path) == TMPFS
        yield Path(path)


def test_what_is_kept_is_there_again(memory: Path) -> None:
    directory = IdentityDir(str(memory / "d"))
    assert directory.load() is None
    directory.store(KEPT)
    directory.store(KEPT)
    assert IdentityDir(str(memory / "d")).load() == KEPT
    assert [each.name for each in (memory / "d").iterdir()] == [NAME]
    assert (memory / "d" / NAME).stat().st_mode & 0o777 == 0o600 and (memory / "d").stat().st_mode & 0o777 == 0o700
    directory.remove()
    directory.remove()
    assert directory.load() is None


def test_a_disk_is_refused() -> None:
    """/proc stands for it: there is no machine on which it is tmpfs."""
    with pytest.raises(StartError, match=r"^--identity-dir: /proc/self is not on tmpfs"):
        IdentityDir("/proc/self")


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o777])
def test_a_directory_that_others_can_enter_is_refused(memory: Path, mode: int) -> None:
    memory.chmod(mode)
    with pytest.raises(StartError, match="chmod 700"):
        IdentityDir(str(memory))


def test_a_link_is_refused(memory: Path) -> None:
    (memory / "d").mkdir(mode=0o700)
    (memory / "link").symlink_to(memory / "d")
    with pytest.raises(StartError, match="not a directory of this user alone"):
        IdentityDir(str(memory / "link"))


def test_a_directory_that_cant_be_made_is_refused(memory: Path) -> None:
    with pytest.raises(StartError, match="can't be made or read"):
        IdentityDir(str(memory / "a" / "b"))


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"\xff", b'{"key": "a"}'])
def test_a_file_that_is_none_of_ours_is_nothing(memory: Path, text: bytes) -> None:
    directory = IdentityDir(str(memory))
    (memory / NAME).touch(mode=0o600)
    (memory / NAME).write_bytes(text)
    assert directory.load() is None


def test_a_file_that_others_can_read_is_nothing(memory: Path) -> None:
    directory = IdentityDir(str(memory))
    directory.store(KEPT)
    (memory / NAME).chmod(0o640)
    assert directory.load() is None


def test_a_pipe_or_a_link_in_its_place_is_nothing(memory: Path) -> None:
    directory = IdentityDir(str(memory))
    directory.store(KEPT)
    (memory / NAME).rename(memory / "other")
    (memory / NAME).symlink_to(memory / "other")
    assert directory.load() is None
    directory.remove()
    os.mkfifo(memory / NAME, 0o600)
    assert directory.load() is None


def test_nothing_tells_the_key() -> None:
    assert "secret" not in repr(KEPT)
