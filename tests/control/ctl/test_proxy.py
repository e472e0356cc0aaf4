"""One proxy, by its admin port: live records, stories, paths, and what is handed to whoever helps."""

from __future__ import annotations

import http.client
import json
import select
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from certs import jointoken
from tests.control.ctl.running import Ctl
from tests.support.ports import held_port
from tests.support.process import SidecarProcess
from tests.support.upstream import RecordingUpstream, wait_until

WORD = "hunter2hunter2"
SECRET = str(jointoken.JoinToken("abc", bytes(range(32)), (bytes(32),), "spiffe://cluster.local/ns/a/sa/b"))


@pytest.fixture(scope="module")
def app() -> Iterator[RecordingUpstream]:
    with RecordingUpstream() as made:
        yield made


@pytest.fixture(scope="module")
def sidecar(app: RecordingUpstream) -> Iterator[SidecarProcess]:
    with SidecarProcess(app.port) as made:
        yield made


@pytest.fixture
def bare(sidecar: SidecarProcess, tmp_path: Path) -> Ctl:
    """The command, with the proxy named in the environment."""
    return Ctl(tmp_path, SIDECARCTL_PROXY=f"127.0.0.1:{sidecar.admin}")


def ask(sidecar: SidecarProcess, path: str, request_id: str = "", **fields: str) -> int:
    """A request through the proxy."""
    connection = http.client.HTTPConnection("127.0.0.1", sidecar.inbound, timeout=30)
    try:
        more = {"X-Request-Id": request_id} if request_id else {}
        connection.request(
            "GET", path, headers={**more, **{name.replace("_", "-"): value for name, value in fields.items()}}
        )
        reply = connection.getresponse()
        reply.read()
        return reply.status
    finally:
        connection.close()


def tapped(bare: Ctl, sidecar: SidecarProcess, *words: str, path: str = "/tapped") -> list[str]:
    """What a tap shows that ends by itself, while requests are made."""
    process = bare.begin("tap", *words)
    try:
        while process.poll() is None:
            ask(sidecar, path)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert (process.returncode, err) == (0, ""), err
    return out.splitlines()


def test_records_as_they_come(bare: Ctl, sidecar: SidecarProcess) -> None:
    lines = tapped(bare, sidecar, "--limit", "2", "--path", "/tapped")
    assert len(lines) == 2
    assert " inbound 200 - - " in lines[0] and " GET /tapped " in lines[0]
    rows = [json.loads(line) for line in tapped(bare, sidecar, "--limit", "2", "--direction", "inbound", "-o", "json")]
    assert [row["path"] for row in rows] == ["/tapped", "/tapped"]


def test_a_tap_ends_quietly_with_ctrl_c(bare: Ctl, sidecar: SidecarProcess) -> None:
    process = bare.begin("tap")
    try:
        while not has_spoken(process):
            ask(sidecar, "/")
        process.send_signal(2)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130 and err.strip() == ""


def has_spoken(process: subprocess.Popen[str]) -> bool:
    """Whether it has said anything."""
    assert process.stdout is not None
    return bool(select.select([process.stdout], [], [], 0.05)[0])


def test_a_tap_tells_that_the_proxy_ends(app: RecordingUpstream, tmp_path: Path) -> None:
    with SidecarProcess(app.port) as sidecar:
        process = Ctl(tmp_path).begin("tap", "--proxy", f"127.0.0.1:{sidecar.admin}")
        try:
            while not has_spoken(process):
                ask(sidecar, "/")
            sidecar.stop()
            _, err = process.communicate(timeout=30)
        finally:
            process.kill()
            process.wait()
    assert process.returncode == 3 and "127.0.0.1" in err


def test_a_story(bare: Ctl, sidecar: SidecarProcess) -> None:
    ask(sidecar, "/told", "the-one")
    wait_until(lambda: bare("explain", "the-one").code == 0, "the record")
    assert "path_as_sent: /told" in bare.ok("explain", "the-one")
    assert bare("explain", "the-one", "-o", "json").json["request"]["method"] == "GET"
    done = bare("explain", "nobody")
    assert done.code == 1 and "no request with this id" in done.err


def test_a_request_that_was_never_made(bare: Ctl) -> None:
    told = bare("explain", "--from", "spiffe://cluster.local/ns/a/sa/b", "-H", "X-A: b", "GET", "/told", "-o", "json")
    assert told.json["allowed"] is True and told.json["policies"] == []
    assert "decided_by: no ALLOW policy: allowed by default" in bare.ok("explain", "--ip", "192.0.2.1", "GET", "/")
    for words in (("--ip", "192.0.2.1", "the-one"), ("GET", "/", "more"), ("-H", "no colon", "GET", "/")):
        assert bare("explain", *words).code == 2
    done = bare("explain", "GET", "told")
    assert done.code == 1 and "path= begins with a slash" in done.err


def test_any_path_and_changes_only_by_post(bare: Ctl) -> None:
    assert bare.ok("admin", "/ready") == "LIVE\n"
    assert "POST /quitquitquit" in bare.ok("admin", "help")
    assert bare("admin", "/logging?level=info").code == 1
    assert bare.ok("admin", "--post", "/logging?level=info") == "level: info\n"
    assert bare("admin", "/nowhere").code == 1
    assert bare("admin", "/a b").code == 2


def test_a_token_where_the_proxy_asks_for_one(app: RecordingUpstream, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(f"{WORD}\n")
    token.chmod(0o600)
    with SidecarProcess(app.port, "--admin-token-file", str(token)) as sidecar:
        there = Ctl(tmp_path, SIDECARCTL_PROXY=f"127.0.0.1:{sidecar.admin}")
        done = there("admin", "--post", "/reset_counters")
        assert done.code == 4 and "a token is asked for" in done.err
        assert there.ok("admin", "--post", "/reset_counters", "--admin-token-file", str(token)) == "OK\n"
        done = there("admin", "--post", "/reset_counters", "--admin-token-file", "nowhere")
        assert done.code == 2 and "--admin-token-file" in done.err


def test_a_bundle_has_what_helps_and_no_secret(tmp_path: Path) -> None:
    """Secrets are planted where they go by: in fields, in the query, in the proxy's own files; and seen there."""
    token = tmp_path / "admin-token"
    token.write_text(WORD)
    token.chmod(0o600)
    with RecordingUpstream() as app, SidecarProcess(app.port, "--admin-token-file", str(token)) as sidecar:
        there = Ctl(tmp_path, SIDECARCTL_PROXY=f"127.0.0.1:{sidecar.admin}")
        status = ask(
            sidecar, f"/login/{SECRET}?password={WORD}", "the-id", Authorization=f"Bearer {WORD}",
            Cookie=f"session={WORD}", X_Api_Key=WORD, User_Agent=f"agent {WORD}", X_Forwarded_For=WORD,
        )  # fmt: skip
        assert status == 200
        (request,) = app.take().requests
        seen = b"\n".join([request.target, *(value for _, value in request.fields)])
        assert seen.count(WORD.encode()) >= 5 and SECRET.encode() in seen
        out = tmp_path / "bundle.tar.gz"
        done = there("support-bundle", str(out))
        assert done.code == 0 and "9 parts" in done.err, done
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    with tarfile.open(out) as archive:
        parts = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    whole = b"".join(parts.values())
    for secret in (WORD, SECRET, SECRET.split(".")[2], "PRIVATE KEY"):
        assert secret.encode() not in whole
    assert b"the-id" in parts["support-bundle/requests.json"]
    assert json.loads(parts["support-bundle/config_dump.json"])["settings"]["--upstream"] == f"127.0.0.1:{app.port}"
    assert json.loads(parts["support-bundle/manifest.json"])["missing"] == {}


def test_nobody_is_there_and_not_on_loopback(bare: Ctl) -> None:
    with held_port() as port:
        for words in (["tap"], ["explain", "x"], ["admin", "/ready"], ["support-bundle", "x.tar.gz"]):
            done = bare(*words, "--proxy", f"127.0.0.1:{port}")
            assert done.code == 3 and "is a sidecar's admin port there" in done.err and len(done.err.splitlines()) == 1
    done = bare("tap", "--proxy", "10.0.0.1:15000")
    assert done.code == 2 and "is not on loopback" in done.err
    assert bare("tap", "--proxy", "here").code == 2
    assert bare("tap", "--status", "9999").code == 1
    assert not (bare.home / "x.tar.gz").exists()
