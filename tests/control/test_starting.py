"""The first start, the second, and what is found in a condition that it should not be in."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from control.keyring import STATE
from control.version import Version
from sidecar.errors import StartError
from tests.control.plane import csr, running

ROOT = Path(__file__).parents[2]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def command(path: Path, *words: str, environ: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """The command, for what ends by itself."""
    return subprocess.run(
        [sys.executable, "-m", "control", "--listen", "127.0.0.1:0", "--ca-dir", str(path / "ca"), *words],
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], **(environ or {})},
        capture_output=True,
        text=True,
        timeout=60,
        cwd=path,
        check=False,
    )


def started(path: Path) -> subprocess.Popen[str]:
    """A process of its own, which is ready."""
    process = subprocess.Popen(
        [sys.executable, "-m", "control", "--listen", "127.0.0.1:0", "--ca-dir", str(path / "ca")],
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]},
        stderr=subprocess.PIPE,
        text=True,
        cwd=path,
    )
    return process


def lines_until_ready(process: subprocess.Popen[str]) -> list[str]:
    lines = []
    assert process.stderr is not None
    for line in process.stderr:
        lines.append(line.rstrip())
        if line.rstrip().endswith(": ready"):
            return lines
    raise AssertionError(lines)


def test_the_command_starts_says_where_the_token_is_and_ends_when_told(tmp_path: Path) -> None:
    with started(tmp_path) as process:
        lines = lines_until_ready(process)
        place = tmp_path / "ca" / "operator-token"
        assert f"sidecar-control: the operator's token is in {place}" in lines
        assert re.fullmatch(rf".*next: sidecarctl login --server http://127\S+:\d+ --token-file {place}", lines[-2])
        second = command(tmp_path)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert second.returncode == 2
    assert "is used by another sidecar-control" in second.stderr and second.stderr.count("\n") == 1
    assert mode(tmp_path / "ca") == 0o700
    assert {mode(path) for path in (tmp_path / "ca").iterdir()} == {0o600}
    for _ in range(2):  # and after it was killed
        with started(tmp_path) as again:
            assert not [line for line in lines_until_ready(again) if "token" in line or "next" in line]
            again.kill()


async def test_a_second_start_goes_on_where_the_first_ended(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        operator, token = plane.operator, await plane.token()
        bundle = (await plane.ask("GET", "/v1/bundle", operator)).json
        await plane.ask("POST", "/v1/revocations", operator, {"serial": "abc"})
        crl = (await plane.ask("GET", "/v1/crl", operator)).json
    async with running(tmp_path) as plane:
        assert plane.operator == operator
        assert (await plane.ask("GET", "/v1/bundle", operator)).json == bundle, "the same version, so nobody is told"
        assert (await plane.ask("POST", "/v1/certificates", token, csr())).status == 201
        revoked = (await plane.ask("GET", "/v1/revocations", operator)).json["revocations"]
        assert [entry["serial"] for entry in revoked] == ["abc"]
        again = (await plane.ask("GET", "/v1/crl", operator)).json
        before, after = Version.parse(crl["version"]), Version.parse(again["version"])
        assert after.epoch == before.epoch and after.n > before.n


async def test_a_store_that_is_new_has_another_epoch_which_is_later(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        first = (await plane.ask("GET", "/v1/bundle", plane.operator)).json["version"]
    (tmp_path / "ca" / "store.db").rename(tmp_path / "old.db")
    async with running(tmp_path) as plane:
        second = (await plane.ask("GET", "/v1/bundle", plane.operator)).json["version"]
    assert Version.parse(second).epoch > Version.parse(first).epoch


async def test_with_a_ca_in_memory_tokens_of_the_one_before_are_void(tmp_path: Path) -> None:
    async with running(tmp_path, ca="memory") as plane:
        before, token = plane.operator, await plane.token()
    async with running(tmp_path, ca="memory") as plane:
        assert plane.operator != before
        assert (await plane.ask("POST", "/v1/certificates", token, csr())).status == 401
        assert (await plane.ask("GET", "/v1/tokens", before)).status == 401
        assert (await plane.ask("GET", "/v1/tokens", plane.operator)).status == 200
        assert not (tmp_path / "ca" / STATE).exists(), "no key is on the disk"


async def test_the_operators_token_is_made_anew_where_its_file_is_gone(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        lost = plane.operator
        (tmp_path / "ca" / "operator-token").unlink()
    async with running(tmp_path) as plane:
        assert (await plane.ask("GET", "/v1/tokens", plane.operator)).status == 200
        assert (await plane.ask("GET", "/v1/tokens", lost)).status == 401


def garble(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def show(path: Path) -> None:
    path.chmod(0o644)


def link(path: Path) -> None:
    path.rename(path.with_suffix(".away"))
    path.symlink_to(path.with_suffix(".away"))


def other_database(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE shopping (list TEXT)")
    path.chmod(0o600)


def scribble(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100:3000] = b"\xff" * 2900
    path.write_bytes(data)


BAD = [
    ("authority.json", garble, "cut short or was changed"),
    ("authority.json", empty, "cut short or was changed"),
    ("authority.json", show, "not a file for this user alone"),
    ("authority.json", link, "can't be read"),
    ("operator-token", garble, "does not hold a token"),
    ("operator-token", show, "not a file for this user alone"),
    ("store.db", show, "can be read by others"),
    ("store.db", other_database, "of another program"),
    ("store.db", scribble, "not a database that can be used"),
]


@pytest.mark.parametrize(("name", "spoil", "words"), BAD, ids=[f"{name} {what.__name__}" for name, what, _ in BAD])
async def test_a_bad_file_is_refused_and_left_as_it_is(tmp_path: Path, name: str, spoil, words: str) -> None:
    async with running(tmp_path):
        pass
    path = tmp_path / "ca" / name
    spoil(path)
    before = path.read_bytes()
    with pytest.raises(StartError, match=words):
        async with running(tmp_path):
            raise AssertionError("it started")
    assert path.read_bytes() == before


def test_a_directory_that_others_can_enter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca").mkdir(mode=0o755)
    done = command(tmp_path)
    assert done.returncode == 2 and "chmod 700" in done.stderr
    assert list((tmp_path / "ca").iterdir()) == []


def test_another_trust_domain_is_refused(tmp_path: Path) -> None:
    with started(tmp_path) as process:
        lines_until_ready(process)
        process.kill()
    done = command(tmp_path, "--trust-domain", "other.example")
    assert done.returncode == 2
    assert done.stderr.startswith("sidecar-control: error: --trust-domain: the authority in ")


def test_a_port_that_is_taken_is_one_line(tmp_path: Path) -> None:
    with started(tmp_path) as process:
        address = next(line.rpartition(" ")[2] for line in lines_until_ready(process) if "listening on" in line)
        done = command(tmp_path, "--listen", address, "--ca-dir", str(tmp_path / "other"))
        process.kill()
    assert done.returncode == 2
    assert f"--listen: {address} can't be had" in done.stderr


def test_a_path_that_is_too_long_for_a_socket_is_named(tmp_path: Path) -> None:
    done = command(tmp_path, "--ca-dir", str(tmp_path / ("x" * 100)))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("sidecar-control: error: --ca-dir: ")
    assert done.stderr.endswith("name a directory with a shorter path\n")


async def test_the_private_socket_wants_a_private_directory(tmp_path: Path) -> None:
    (tmp_path / "private").mkdir(mode=0o755)
    (tmp_path / "private").chmod(0o755)
    with pytest.raises(StartError, match="identities are believed in it"):
        async with running(tmp_path):
            raise AssertionError("it started")


@pytest.mark.parametrize("name", ["hypercorn", "jwt", "starlette"])
def test_without_the_extra_it_says_what_to_install(tmp_path: Path, name: str) -> None:
    words = f"import sys; sys.modules[{name!r}] = None; from control.cli import main; sys.exit(main([]))"
    environ = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-c", words],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"sidecar-control: error: {name}")
    assert done.stderr.endswith("pip install 'sidecar-mesh[control]'\n") and done.stderr.count("\n") == 1


async def test_what_the_store_does_not_take_is_not_granted(tmp_path: Path) -> None:
    """A full disk: nothing is issued, nothing said to be revoked; afterwards all goes on."""
    async with running(tmp_path) as plane:
        token, single = await plane.token(), await plane.token(singleUse=True)
        store = plane.control.store
        store._opened.writing.execute("PRAGMA query_only = ON")
        for shown in (token, single):
            reply = await plane.ask("POST", "/v1/certificates", shown, csr())
            assert reply.status == 503 and b"BEGIN" not in reply.body
        reply = await plane.ask("POST", "/v1/revocations", plane.operator, {"serial": "1"})
        assert reply.status == 503
        store._opened.writing.execute("PRAGMA query_only = OFF")
        assert (await plane.ask("GET", "/v1/revocations", plane.operator)).json == {"revocations": []}
        assert (await plane.ask("POST", "/v1/certificates", token, csr())).status == 201
        assert (await plane.ask("POST", "/v1/certificates", single, csr())).status == 201
