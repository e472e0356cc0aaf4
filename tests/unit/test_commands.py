"""``sidecar wait``, ``check-config`` and ``completion``, as a hook, a person and a shell call them."""

from __future__ import annotations

import itertools
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sidecar import cli
from sidecar.flag_parser import COMMANDS
from sidecar.option_table import OPTIONS
from tests.support.ports import held_port

READY = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nLIVE\n"
DRAINING = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 9\r\n\r\nDRAINING\n"


@pytest.fixture(autouse=True)
def _quiet_surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No settings in the environment, and the log as it was afterwards."""
    for name in [name for name in os.environ if name.startswith("SIDECAR_")]:
        monkeypatch.delenv(name)
    root = logging.getLogger()
    before = (root.level, root.handlers[:], logging.raiseExceptions)
    yield
    root.level, root.handlers[:], logging.raiseExceptions = before


class Listener:
    """Answers each connection with the next of ``answers``, the last one again and again; keeps what was asked."""

    def __init__(self, *answers: bytes) -> None:
        self._sock = socket.create_server(("127.0.0.1", 0))
        self.port = self._sock.getsockname()[1]
        self.asked: list[bytes] = []
        self._answers = itertools.chain(answers, itertools.repeat(answers[-1]))
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                peer, _ = self._sock.accept()
            except OSError:
                return
            with peer:
                self.asked.append(peer.recv(4096))
                peer.sendall(next(self._answers))

    def close(self) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()


@pytest.fixture
def listener() -> Iterator[Callable[..., Listener]]:
    made: list[Listener] = []

    def make(*answers: bytes) -> Listener:
        made.append(Listener(*answers))
        return made[-1]

    yield make
    for each in made:
        each.close()


# -- wait ------------------------------------------------------------------------------------------------------------


def test_wait_ends_as_soon_as_it_is_ready(listener, capsys) -> None:
    there = listener(DRAINING, DRAINING, READY)
    assert cli.main(["wait", "--admin", f"127.0.0.1:{there.port}", "--timeout", "30s"]) == 0
    assert capsys.readouterr() == ("", "")
    assert len(there.asked) == 3
    assert there.asked[0].startswith(b"GET /ready HTTP/1.1\r\nHost: 127.0.0.1:")


def test_wait_asks_the_scrape_port_by_its_own_path(listener) -> None:
    there = listener(READY)
    assert cli.main(["wait", f"--scrape={there.port}", "--timeout=30s"]) == 0  # a port alone means all addresses
    assert there.asked[0].startswith(b"GET /healthz/ready ")


@pytest.mark.parametrize(
    ("environ", "path"),
    [({"SIDECAR_ADMIN": "PORT"}, b"/ready "), ({"SIDECAR_ADMIN": "off", "SIDECAR_SCRAPE": "PORT"}, b"/healthz/ready ")],
)
def test_wait_goes_by_the_environment_that_the_sidecar_has(listener, environ, path, monkeypatch) -> None:
    there = listener(READY)
    for name, text in environ.items():
        monkeypatch.setenv(name, text.replace("PORT", f"127.0.0.1:{there.port}"))
    assert cli.main(["wait", "--timeout", "30s"]) == 0
    assert there.asked[0].startswith(b"GET " + path)


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (DRAINING, "503 DRAINING"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n\x1b[31m\n", "404"),
        (b"220 mail ready\r\n", "something that is no sidecar"),
        (b"", "something that is no sidecar"),
    ],
)
def test_wait_gives_up_and_says_what_was_there(listener, answer, state, capsys) -> None:
    where = f"127.0.0.1:{listener(answer).port}"
    assert cli.main(["wait", "--admin", where, "--timeout", "250ms"]) == 1
    shown = capsys.readouterr()
    assert shown == ("", f"sidecar: error: {where} was not ready within 250ms; last: {state}\n")


def test_wait_where_nobody_listens(capsys) -> None:
    with held_port() as port:
        assert cli.main(["wait", "--admin", f"127.0.0.1:{port}", "--timeout", "250ms"]) == 1
    assert capsys.readouterr().err.endswith("; last: connection refused\n")


def test_wait_where_nobody_answers(capsys) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        assert cli.main(["wait", "--admin", f"127.0.0.1:{sock.getsockname()[1]}", "--timeout", "250ms"]) == 1
    assert capsys.readouterr().err.endswith("; last: no answer\n")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--admin", "1", "--scrape", "2"], "--admin, --scrape: one of them is enough; leave the other out"),
        (["--admin", "off", "--timeout", "x"], "--timeout: 'x' is not a duration; write for example 60s"),
        (["--admin", "0"], "--admin: 0 is no port to ask; name the one that the sidecar printed"),
        (["--scrape", "off"], "--admin, --scrape: both are off, so nobody can be asked; name the one that is on"),
        (["--admin", "10.0.0.1:1"], "--admin: 10.0.0.1 is not a loopback address"),
        (["--upstream", "app:80"], "--upstream: is not a flag; see sidecar --help"),
        (["--timeout"], "--timeout: needs a value; write --timeout 60s"),
        (["now"], "'now': is neither a flag nor a command"),
    ],
)
def test_wait_refuses_what_it_can_not_do(words, line, capsys) -> None:
    assert cli.main(["wait", *words]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith(f"sidecar: error: {line}") and shown.err.count("\n") == 1


# -- check-config ----------------------------------------------------------------------------------------------------


def test_check_config_says_what_is_in_force_and_where_it_stood(capsys, monkeypatch) -> None:
    monkeypatch.setenv("SIDECAR_ACCESS_LOG", "json")
    monkeypatch.setenv("SIDECAR_PROTOCOL", "tcp")
    monkeypatch.setenv("SIDECAR_PROTOKOL", "tcp")
    assert cli.main(["check-config", "--upstream", "127.0.0.1:8080", "--protocol=http", "--via"]) == 0
    shown = capsys.readouterr()
    rows = {line.split()[0]: (line.split()[1], line.split()[-1]) for line in shown.out.splitlines()}
    assert list(rows) == [option.flag for option in OPTIONS]
    assert rows["--upstream"] == ("127.0.0.1:8080", "flag")
    assert rows["--protocol"] == ("http", "flag")
    assert rows["--via"] == ("on", "flag")
    assert rows["--access-log"] == ("json", "environment")
    assert rows["--idle-timeout"] == ("1h", "default")
    assert rows["--max-connections"][0].isdigit()
    assert shown.err.startswith("sidecar: warning: the environment's SIDECAR_PROTOKOL is not a setting")


def test_check_config_says_all_that_is_wrong_at_once(capsys, monkeypatch) -> None:
    monkeypatch.setenv("SIDECAR_MAX_BODY", "much")
    words = ["--upsteam", "127.0.0.1:8080", "--protocol", "gopher", "--idle-timeout", "0", "more", "--inbound"]
    assert cli.main(["check-config", *words]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert [line.split(": ")[2] for line in shown.err.splitlines()] == [
        "--upsteam", "'more'", "--inbound", "--protocol", "--max-body (from SIDECAR_MAX_BODY)", "--idle-timeout",
    ]  # fmt: skip


def test_check_config_holds_values_against_each_other(capsys) -> None:
    assert cli.main(["check-config", "--drain-delay", "31s", "--inbound", "127.0.0.1:15001"]) == 2
    assert [line.split(": ")[2] for line in capsys.readouterr().err.splitlines()] == [
        "--upstream", "--drain-delay", "--outbound",
    ]  # fmt: skip


def test_the_proxy_says_all_that_is_wrong_too(capsys) -> None:
    assert cli.main(["--upstream", "x", "--protocol", "gopher"]) == 2
    assert capsys.readouterr().err.count("sidecar: error: ") == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_and_needs_no_event_loop(name: str, capsys) -> None:
    code = (
        f"import sys, sidecar.cli; code = sidecar.cli.main([{name!r}, '--help']); sys.exit(9 * ('trio' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: sidecar {name}")
    assert cli.main(["--help"]) == 0
    assert f"\n  {name} " in capsys.readouterr().out


def test_check_config_judges_the_mesh_file_as_a_start_would(tmp_path, capsys) -> None:
    """The file is the example of docs/mesh-file.md."""
    page = (Path(__file__).parents[2] / "docs" / "mesh-file.md").read_text()
    example = page.partition("```yaml\n")[2].partition("```")[0]
    file = tmp_path / "mesh.yaml"
    words = ["check-config", "--upstream", "127.0.0.1:8080", "--control", "https://control.internal"]
    words += ["--token-file", "token", "--mesh", str(file)]

    def told() -> list[str]:
        return [line for line in capsys.readouterr().err.splitlines() if "--mesh" in line]

    file.write_text(example)
    assert cli.main(words) == 0
    assert told() == []
    assert cli.main([*words, "--service", "billing", "--namespace", "shop", "--mtls", "strict"]) == 0
    assert told() == [
        f"sidecar: warning: --mesh: {file}: spiffe://cluster.local/ns/shop/sa/default, as which this sidecar runs, is "
        "not among those who may serve billing",
        f"sidecar: warning: --mesh: {file}: mode PERMISSIVE is looser than --mtls strict, which stays in force",
    ]
    file.write_text(example.replace("8080", "web").replace("10.0.0.7}", "10.0.0.7, locality: a}"))
    assert cli.main(words) == 2
    assert told() == [
        f"sidecar: error: --mesh: {file}:7: services[0].ports[0].targetPort: 'web' is not a port from 1 to 65535",
        f"sidecar: error: --mesh: {file}:10: services[0].endpoints[0].locality: is not supported yet; leave it out",
    ]
    file.unlink()
    assert cli.main(words) == 2
    assert told() == [f"sidecar: error: --mesh: {file}: No such file or directory"]


def test_check_config_judges_documents_as_a_start_would(tmp_path, capsys) -> None:
    """They are the example of docs/resources.md."""
    page = (Path(__file__).parents[2] / "docs" / "resources.md").read_text()
    example = page.partition("```yaml\n")[2].partition("```")[0]
    file = tmp_path / "documents.yaml"
    words = ["check-config", "--upstream", "127.0.0.1:8080", "--control", "https://control.internal"]
    words += ["--token-file", "token", "--config", str(tmp_path)]

    def told() -> list[str]:
        return [line for line in capsys.readouterr().err.splitlines() if "--config" in line]

    file.write_text(example)
    assert cli.main(words) == 0
    (note,) = told()
    assert note.startswith(f"sidecar: warning: --config: {file}:38: spec.egress[0].hosts[1]: ")
    file.write_text(example.replace("mtls:", "mutual:"))
    assert cli.main(words) == 2
    why = "spec.mutual: is not a field here; there are selector, mtls, portLevelMtls"
    assert told() == [f"sidecar: error: --config: {file}:21: {why}"]
    assert cli.main([*words, "--mesh", str(file)]) == 2
    assert told() == ["sidecar: error: --config: and --mesh can't both say what the mesh is; leave one out"]


def test_check_config_judges_policies_without_a_control_plane(tmp_path, capsys) -> None:
    file = tmp_path / "policy.yaml"
    head = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\n"
    words = ["check-config", "--upstream", "127.0.0.1:8080", "--config", str(file)]
    file.write_text(head + "spec: {selector: {matchLabels: {app: web}}}\n")
    assert cli.main([*words, "--workload-labels", "app=web"]) == 0
    assert "--config: " not in capsys.readouterr().err
    assert cli.main(words) == 0
    assert capsys.readouterr().err.splitlines() == [
        f"sidecar: warning: --config: {file}:4: spec.selector: does not match --workload-labels 'none' in namespace "
        "default: the policy does not apply here",
        f"sidecar: warning: --config: {file}: no AuthorizationPolicy or "
        "RateLimitPolicy applies to this proxy, so every call is allowed",
    ]
    file.write_text(head + "spec: {action: CUSTOM}\n")
    assert cli.main(words) == 2


# -- completion ------------------------------------------------------------------------------------------------------


def completed(*words: str) -> list[str]:
    """What bash offers for the last of the words, in a shell that has loaded the script."""
    line = " ".join(f"'{word}'" for word in words)
    script = (
        f"source <({sys.executable} -m sidecar completion bash); complete -p sidecar >/dev/null || exit 9; "
        f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _sidecar; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("sidecar", "--prot"), ["--protocol"]),
        (("sidecar", "--protocol", ""), ["auto", "http", "http2", "tcp"]),
        (("sidecar", "--protocol", "=", "h"), ["http", "http2"]),
        (("sidecar", "--protocol", "="), ["auto", "http", "http2", "tcp"]),
        (("sidecar", "--admin", "o"), ["off"]),
        (("sidecar", "--upstream", ""), []),
        (("sidecar", "--via", "--dr"), ["--drain-seconds", "--drain-delay"]),
        (("sidecar", "--access-log-file", "/etc/host"), None),
        (("sidecar", "w"), ["wait"]),
        (("sidecar", "completion", ""), ["bash", "zsh", "fish"]),
        (("sidecar", "wait", "-"), ["--admin", "--scrape", "--timeout", "--help"]),
        (("sidecar", "check-config", "--log-"), ["--log-level", "--log-format"]),
    ],
)
def test_bash_completes(words: tuple[str, ...], offered: list[str] | None) -> None:
    found = completed(*words)
    if offered is None:
        assert "/etc/hosts" in found
    else:
        assert sorted(found) == sorted(offered)


def test_bash_offers_every_command_and_flag_first() -> None:
    assert {*COMMANDS, *(option.flag for option in OPTIONS), "--help", "--version"} == set(completed("sidecar", ""))


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_are_told_of_every_command_flag_and_value(shell: str, capsys) -> None:
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for option in OPTIONS:
        assert (f"'{option.flag}=[" if shell == "zsh" else f" -l {option.flag[2:]} ") in script
        assert " ".join(option.words) in script
    for name in COMMANDS:
        assert (f"'{name}:" if shell == "zsh" else f" -a {name} ") in script


@pytest.mark.parametrize("words", [[], ["tcsh"], ["bash", "zsh"]])
def test_completion_for_no_shell_of_ours(words: list[str], capsys) -> None:
    assert cli.main(["completion", *words]) == 2
    assert capsys.readouterr().err == ("sidecar: error: completion: which shell? write one of bash, zsh, fish\n")
