"""At a terminal there are colours and questions, in a pipe neither; and the shell completes what is typed."""

from __future__ import annotations

import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.control.ctl.running import Ctl
from tests.control.ctl.test_documents import WEB
from tests.support.control_process import ControlProcess
from tests.support.ports import held_port
from tests.support.upstream import wait_until

ESCAPE = "\x1b["


def test_colours_at_a_terminal_alone(ctl: Ctl) -> None:
    ctl.ok("apply", "-f", "-", text=WEB)
    for words in (["ca", "status"], ["get", "svc", "web", "-n", "shop", "-o", "yaml"], ["token", "list", "-o", "json"]):
        assert ESCAPE in ctl.at_terminal(*words)[1], words
        for plain in (
            ctl.at_terminal(*words, "--no-color")[1],
            ctl.at_terminal(*words, NO_COLOR="1")[1],
            ctl.ok(*words),
        ):
            assert ESCAPE not in plain, words


def test_a_question_is_asked_at_a_terminal_alone(ctl: Ctl, tmp_path: Path) -> None:
    with ControlProcess(3600.0) as control:
        token = str(control.directory / "ca" / "operator-token")
        me = Ctl(tmp_path, "--server", control.url, "--token-file", token)
        me.ok("token", "create", "--service-account", "web")
        code, shown = me.at_terminal("ca", "rotate", typed=b"n\n")
        assert code == 1 and "Go on?" in shown and "nothing was changed" in shown
        assert len(me("ca", "status", "-o", "json").json["roots"]) == 1
        code, shown = me.at_terminal("ca", "rotate", "--wait=issuing", typed=b"y\n")
        assert code == 0 and " issues" in shown
        assert len(me("ca", "status", "-o", "json").json["roots"]) == 2


def test_what_others_wrote_moves_no_cursor_and_is_the_same_again(ctl: Ctl) -> None:
    odd = WEB.replace("{team: front}", '{team: front}\n  annotations: {note: "\\e[2J\\u202e", city: "Zürich"}')
    ctl.ok("apply", "-f", "-", text=odd)
    for form in ("yaml", "json"):
        shown = ctl.ok("get", "svc", "web", "-n", "shop", "-o", form)
        assert shown.replace("\n", "").isprintable()
        assert ctl.ok("apply", "-f", "-", text=shown) == "Service shop/web unchanged\n"
    assert ctl.ok("describe", "svc", "web", "-n", "shop").replace("\n", "").isprintable()


def test_a_reader_who_has_gone_is_no_error(ctl: Ctl) -> None:
    process = ctl.begin("completion", "bash")
    try:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert (process.wait(60), process.stderr.read()) == (141, "")
        process.stderr.close()
    finally:
        process.kill()
        process.wait()


def test_ctrl_c_is_quiet_while_nobody_answers(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("x")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = f"http://127.0.0.1:{listener.getsockname()[1]}"
        process = Ctl(tmp_path).begin("ca", "status", "--server", server, "--token-file", str(tmp_path / "token"))
        try:
            listener.settimeout(60)
            peer, _ = listener.accept()
            with peer:
                peer.recv(65536)
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
    assert (process.returncode, out, err.strip()) == (130, "", "")


def complete(ctl: Ctl, *words: str) -> list[str]:
    """What is offered for the last word."""
    told = {"COMP_WORDS": " ".join(["sidecarctl", *words]), "COMP_CWORD": str(len(words))}
    out = ctl.ok(**told, _SIDECARCTL_COMPLETE="bash_complete")
    return [line.partition(",")[2] for line in out.splitlines() if line]


def test_the_shell_is_offered_commands_kinds_and_names(ctl: Ctl, control: ControlProcess, tmp_path: Path) -> None:
    ctl.ok("apply", "-f", "-", text=WEB)
    bare = Ctl(tmp_path)
    bare.ok("login", *ctl.flags)
    assert {"get", "apply", "token"} <= set(complete(bare, ""))
    assert "--dry-run" in complete(bare, "apply", "--d")
    assert complete(bare, "get", "serv") == ["service", "serviceentries", "serviceentry", "services"]
    wait_until(lambda: complete(bare, "get", "-n", "shop", "svc", "") == ["web"], "an answer within its second")
    assert complete(bare, "get", "svc", "w") == []
    assert complete(bare, "token", "create", "--role", "r") == ["reader"]


def test_completion_is_silent_where_nobody_answers(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("x")
    with held_port() as port:
        there = Ctl(
            tmp_path, SIDECARCTL_SERVER=f"http://127.0.0.1:{port}", SIDECARCTL_TOKEN_FILE=str(tmp_path / "token")
        )
        assert complete(there, "get", "svc", "w") == []
    assert complete(Ctl(tmp_path), "get", "svc", "w") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_names_the_command(shell: str, tmp_path: Path) -> None:
    assert "_SIDECARCTL_COMPLETE" in Ctl(tmp_path).ok("completion", shell)


def test_bash_takes_the_script_and_offers_what_it_should(tmp_path: Path) -> None:
    command = Ctl(tmp_path)
    (tmp_path / "sidecarctl").write_text(f'#!/bin/sh\nexec {command.words[0]} -m control.ctl "$@"\n')
    (tmp_path / "sidecarctl").chmod(0o755)
    script = (
        f"PATH={tmp_path}:$PATH; set -e; source <(sidecarctl completion bash); complete -p sidecarctl >/dev/null\n"
        'COMP_WORDS=(sidecarctl compl); COMP_CWORD=1; _sidecarctl_completion sidecarctl; echo "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(
        ["bash", "-c", script], env=command.environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "completion\n"), done
