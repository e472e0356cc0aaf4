"""The command line as a user meets it: one line per mistake, exit codes, help, and what reaches the app."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from types import ModuleType

import pytest

import sidecar
from sidecar import cli, logging_setup, os_limits
from sidecar.errors import StartError
from sidecar.option_table import OPTIONS
from sidecar.settings import Settings

UPSTREAM = ["--upstream", "127.0.0.1:8080"]

# flag, values that are wrong for it
WRONG = {
    "--upstream": ["", "8080", "127.0.0.1", "127.0.0.1:0", "::1:80", "a b:80", "256.1.1.1:80", "app:port"],
    "--inbound": ["", "x", "70000", "-1", "off", "app:15006", "1.2.3.4:", "[fe80::1%eth0]:15006", "15_006"],
    "--outbound": ["0.0.0.0:15001", "off"],
    "--admin": ["on", "10.0.0.1:15000"],
    "--scrape": ["OFF", "*:15020"],
    "--admin-token-file": [""],
    "--probe": ["", "web", "web=http:", "web=udp:80", "web=tcp:0", "web=tcp:80/x", "a b=tcp:80", "a=tcp:1,a=tcp:2"],
    "--control": ["", "control:15012", "http://10.0.0.1:15010", "https://control/v1", "ftp://control", "https://a@b"],
    "--token-file": [""],
    "--control-ca": [""],
    "--control-id": ["", "control", "spiffe://Cluster/ns/a/sa/b", "https://cluster.local/ns/a/sa/b"],
    "--identity-dir": [""],
    "--mesh": [""],
    "--config": [""],
    "--workload-labels": ["", "web", "=web", "a b=c", "app=web,,"],
    "--mtls": ["", "STRICT", "on", "mutual"],
    "--state-dir": [""],
    "--advertise": ["", "web", "web:80", "0.0.0.0", "[::]:80", "10.0.0.7:", ":0", "[::1]"],
    "--instance": ["", "Web", "a/b", "a_b", "-a", "a" * 64],
    "--labels": ["", "v2", "=v2", "a b=c", "a=b c", "a=b,,"],
    "--health": ["", "http", "http:80", "http:0/x", "tcp:", "tcp:80/x", "exec:", "exec:'a", "udp:80", "http:/a b"],
    "--health-interval": ["", "0", "often"],
    "--health-timeout": ["", "0s", "-1"],
    "--health-healthy": ["", "0", "many"],
    "--health-unhealthy": ["", "0", "1.5"],
    "--service": ["", "Web", "a.b", "-a"],
    "--namespace": ["", "none!", "a_b"],
    "--service-account": ["", "A"],
    "--protocol": ["udp", "HTTP", ""],
    "--access-log": ["xml"],
    "--access-log-file": [""],
    "--max-connections": ["0", "-1", "1.5", "many", "1_000", "٣"],
    "--memory-limit": ["0", "big", "1.5GiB", "-1"],
    "--interception": ["tproxy", "redirect"],
    "--outbound-policy": ["allow_any", "ALLOW_ANY|REGISTRY_ONLY", ""],
    "--allow-host": ["", "a b", "10.0.0.0/8", "api.example.com:0", "256.1.1.1", "[api]:80", "a,,b"],
    "--drain-seconds": ["-1", "nan", "inf", "1d", ""],
    "--drain-delay": ["-1", "soon", "31"],
    "--trusted-proxies": ["", "10.0.0.1/8", "10.0.0.0/33", "app", "10.0.0.0/8,,", "fe80::1%eth0/64"],
    "--dns": ["on", "10.0.0.1:53", "0.0.0.0:53", "65536"],
    "--dns-host": ["web", "=10.0.0.7", "web=", "web=ten", "we b=::1", "10.0.0.7=::1", "web..internal=::1", "a=::1,"],
    "--via": ["maybe", "1.1"],
    "--max-body": ["0", "-1", "nan"],
    "--body-min-rate": ["240", "240/", "/30", "0/30", "240/0", "240/30/1"],
    "--max-app-connections": ["0", "x"],
    "--max-waiting": ["-1", "x"],
    "--request-head-timeout": ["0", "x"],
    "--idle-timeout": ["0", "0ms"],
    "--stream-idle-timeout": ["0", "infinity"],
    "--connect-timeout": ["0", "1e3"],
    "--pool-idle-timeout": ["0", "10 s"],
    "--log-level": ["trace", "INFO"],
    "--log-format": ["yaml"],
}
CASES = [(flag, value) for flag, texts in WRONG.items() for value in texts]


@pytest.fixture(autouse=True)
def _quiet_surroundings(monkeypatch: pytest.MonkeyPatch):
    """No settings in the environment, and the log as it was afterwards."""
    for name in [name for name in os.environ if name.startswith("SIDECAR_")]:
        monkeypatch.delenv(name)
    root = logging.getLogger()
    before = (root.level, root.handlers[:], logging.raiseExceptions)
    yield
    root.level, root.handlers[:], logging.raiseExceptions = before


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[Settings]:
    """What the composition root was given, in place of which nothing runs."""
    given: list[Settings] = []
    app = ModuleType("sidecar.app")

    def run(told: Settings, in_force: object) -> int:
        given.append(told)
        return 0

    monkeypatch.setattr(app, "run", run, raising=False)
    monkeypatch.setitem(sys.modules, "sidecar.app", app)
    monkeypatch.setattr(sidecar, "app", app, raising=False)
    return given


def only_line(capsys: pytest.CaptureFixture[str]) -> str:
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1, shown.err
    return shown.err.rstrip("\n")


def test_every_flag_has_its_wrong_values() -> None:
    assert set(WRONG) == {option.flag for option in OPTIONS}


@pytest.mark.parametrize(("flag", "value"), CASES)
def test_a_wrong_value_is_one_line_that_names_the_flag(flag: str, value: str, ran, capsys) -> None:
    assert cli.main([*UPSTREAM, f"{flag}={value}"]) == 2
    line = only_line(capsys)
    assert line.startswith(f"sidecar: error: {flag}: ")
    assert "; " in line, "it says what to do"
    assert ran == []


@pytest.mark.parametrize(("flag", "value"), CASES)
def test_a_wrong_twin_is_one_line_that_names_both(flag: str, value: str, ran, capsys, monkeypatch) -> None:
    twin = "SIDECAR_" + flag[2:].replace("-", "_").upper()
    monkeypatch.setenv("SIDECAR_UPSTREAM", "127.0.0.1:8080")
    monkeypatch.setenv(twin, value)
    assert cli.main([]) == 2
    assert only_line(capsys).startswith(f"sidecar: error: {flag} (from {twin}): ")
    assert ran == []


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ([], "--upstream: is missing; name the app, for example --upstream 127.0.0.1:8080"),
        (["--upsteam", "x"], "--upsteam: is not a flag; did you mean --upstream?"),
        (["--drain=3"], "--drain: is not a flag"),
        (["--qwertyuiop"], "--qwertyuiop: is not a flag; see sidecar --help"),
        (["-v"], "-v: is not a flag; see sidecar --help"),
        (["serve"], "'serve': is neither a flag nor a command; see sidecar --help"),
        (["wiat"], "'wiat': is neither a flag nor a command; did you mean wait?"),
        (["--upstream"], "--upstream: needs a value; write --upstream 127.0.0.1:8080"),
        (["--version=1"], "--version: takes no value; leave it out"),
        (["--a\nb"], "'--a\\nb': is not a flag"),
        (["--protocol", "a\nb"], "--protocol: 'a\\nb' is not known; write one of auto, http, http2, tcp"),
        (["--protocol", "\udcff"], "--protocol: '\\udcff' is not known"),
    ],
)
def test_a_wrong_command_line_is_one_line(argv: list[str], line: str, ran, capsys) -> None:
    assert cli.main(argv) == 2
    assert only_line(capsys).startswith(f"sidecar: error: {line}")
    assert ran == []


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["--protocol", "gopher", "--help"]])
def test_help_names_every_flag_with_its_default_and_its_twin(argv: list[str], ran, capsys) -> None:
    assert cli.main(argv) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    text = " ".join(shown.out.split())
    for option in OPTIONS:
        assert f"{option.flag} " in text
        assert f"{option.help} ({f'default: {option.default}; ' if option.default else ''}{option.twin})" in text
        assert f"{option.group}:" in text
    assert ran == []


def test_version(ran, capsys) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"sidecar {sidecar.__version__}\n"
    assert ran == []


def test_flags_reach_the_app_and_its_exit_code_comes_back(ran, capsys) -> None:
    assert (
        cli.main([*UPSTREAM, "--inbound=127.0.0.1:0", "--via", "--access-log-file", "-", "--drain-seconds", "5"]) == 0
    )
    assert capsys.readouterr().err == ""
    (told,) = ran
    assert (str(told.upstream), told.via, told.access_log_file, told.drain_seconds) == ("127.0.0.1:8080", True, "-", 5)


@pytest.mark.parametrize(
    ("flags", "shown"),
    [([], "sidecar: error: --inbound: taken\n"), (["--log-level=error"], "sidecar: error: --inbound: taken\n")],
)
def test_what_the_app_can_not_start_with_is_one_line_too(flags, shown, ran, capsys, monkeypatch) -> None:
    def run(told: Settings, in_force: object) -> int:
        raise StartError("--inbound: taken")

    monkeypatch.setattr(sidecar.app, "run", run)
    assert cli.main([*UPSTREAM, *flags]) == 2
    assert capsys.readouterr().err == shown


def test_a_typo_in_the_environment_is_a_warning(ran, capsys, monkeypatch) -> None:
    monkeypatch.setenv("SIDECAR_PROTOCOLL", "tcp")
    assert cli.main(UPSTREAM) == 0
    assert only_line(capsys).startswith("sidecar: warning: the environment's SIDECAR_PROTOCOLL is not a setting")
    assert len(ran) == 1


def test_more_connections_than_descriptors_is_a_warning(ran, capsys) -> None:
    assert cli.main([*UPSTREAM, f"--max-connections={os_limits.descriptor_limit()}"]) == 0
    assert only_line(capsys).startswith("sidecar: warning: --max-connections: ")
    assert len(ran) == 1


def test_the_log_as_text_is_a_line_per_record_whatever_is_in_it(capsys) -> None:
    logging_setup.configure("info", "text")
    log = logging.getLogger("sidecar.test")
    log.debug("not shown")
    log.info("inbound listening on %s", "127.0.0.1:15006")
    log.warning("no\nIPv6\x1b[31m")
    log.error("gone")
    assert capsys.readouterr().err == (
        "sidecar: inbound listening on 127.0.0.1:15006\nsidecar: warning: no\\nIPv6\\x1b[31m\nsidecar: error: gone\n"
    )


def test_the_log_as_json_is_an_object_per_line(capsys) -> None:
    logging_setup.configure("warning", "json")
    log = logging.getLogger("sidecar.test")
    log.info("not shown")
    try:
        raise RuntimeError("boom")
    except RuntimeError:
        log.exception("an \ud800 and a\nline")
    (line,) = capsys.readouterr().err.splitlines()
    shown = json.loads(line)
    assert (shown["level"], shown["logger"], shown["message"]) == ("error", "sidecar.test", "an \\ud800 and a\nline")
    assert shown["time"].endswith("Z")
    assert "RuntimeError: boom" in shown["exception"]


def test_the_command_needs_no_event_loop_to_refuse() -> None:
    """Both ways to call it give the code to the shell, and a mistake is told before trio is imported."""
    code = "import sys, sidecar.cli; code = sidecar.cli.main(['--no']); sys.exit(9 if 'trio' in sys.modules else code)"
    for command in (["-m", "sidecar", "--no"], ["-c", code]):
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("sidecar: error: --no: is not a flag")
