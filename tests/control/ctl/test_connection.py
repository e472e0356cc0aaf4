"""Whom the command calls, with which token, whom it trusts there, and what it says where that fails."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from certs import jointoken
from tests.control.ctl.running import Ctl
from tests.support.control_process import ControlProcess
from tests.support.ports import held_port


def operators(control: ControlProcess) -> str:
    return str(control.directory / "ca" / "operator-token")


def plain(control: ControlProcess) -> str:
    return f"http://127.0.0.1:{control._port}"


@pytest.fixture
def bare(control: ControlProcess, tmp_path: Path) -> Ctl:
    """The command, told nothing."""
    return Ctl(tmp_path)


def log_in(bare: Ctl, control: ControlProcess, *more: str) -> Path:
    bare.ok("login", "--server", control.url, "--token-file", operators(control), *more)
    return bare.home / ".config" / "sidecarctl" / "config.yaml"


def test_flags_say_it_all_over_tls_and_on_loopback(bare: Ctl, control: ControlProcess) -> None:
    for server in (control.url, plain(control)):
        done = bare("ca", "status", "--server", server, "--token-file", operators(control))
        assert done.code == 0, done
        assert "issuing" in done.out


def test_the_flags_may_stand_before_the_command_and_in_the_environment(bare: Ctl, control: ControlProcess) -> None:
    bare.ok("--server", control.url, "--token-file", operators(control), "ca", "status")
    twins = {"SIDECARCTL_SERVER": control.url, "SIDECARCTL_TOKEN_FILE": operators(control)}
    bare.ok("ca", "status", **twins)


def test_a_flag_wins_over_its_twin_wherever_it_stands(bare: Ctl, control: ControlProcess) -> None:
    with held_port() as nobody:
        wrong = {"SIDECARCTL_SERVER": f"http://127.0.0.1:{nobody}", "SIDECARCTL_TOKEN_FILE": operators(control)}
        bare.ok("--server", control.url, "ca", "status", **wrong)
        bare.ok("ca", "status", "--server", control.url, **wrong)
        assert bare("ca", "status", **wrong).code == 3


def test_a_login_is_remembered_and_nothing_shows_the_token(bare: Ctl, control: ControlProcess) -> None:
    done = bare("login", "--server", control.url, "--token-file", operators(control))
    config = bare.home / ".config" / "sidecarctl" / "config.yaml"
    assert done.code == 0 and "cluster.local" in done.err, done
    bare.ok("ca", "status")
    kept = config.parent / "tokens" / "default"
    secret = jointoken.parse(Path(operators(control)).read_text().strip())
    assert jointoken.parse(kept.read_text().strip()) == secret
    assert [stat.S_IMODE(path.stat().st_mode) for path in (config, kept)] == [0o600, 0o600]
    token = str(secret).split(".")[2]
    assert token not in config.read_text() and token not in done.out + done.err
    for words in (["context", "list", "-o", "wide"], ["context", "list", "-o", "json"], ["ca", "status", "-o", "yaml"]):
        assert token not in bare.ok(*words)


def test_a_login_that_is_not_taken_writes_nothing(bare: Ctl, control: ControlProcess, tmp_path: Path) -> None:
    token = jointoken.parse(Path(operators(control)).read_text().strip())
    wrong = tmp_path / "wrong"
    wrong.write_text(str(jointoken.JoinToken(token.id, bytes(32), token.pins, token.control_id)))
    done = bare("login", "--server", control.url, "--token-file", str(wrong))
    assert done.code == 4 and "the token is not taken" in done.err
    assert not (bare.home / ".config").exists()


def test_several_contexts(bare: Ctl, control: ControlProcess) -> None:
    log_in(bare, control, "--name", "one")
    bare.ok("login", "--server", plain(control), "--token-file", operators(control), "--name", "two", "--keep-path")
    listed = {each["name"]: each for each in bare("context", "list", "-o", "json").json["contexts"]}
    assert listed["two"]["current"] and not listed["one"]["current"]
    assert listed["two"]["tokenFile"] == operators(control)
    bare.ok("ca", "status", "--context", "one")
    bare.ok("context", "use", "one")
    assert "* " in bare.ok("context", "list").splitlines()[1]
    bare.ok("context", "forget", "one")
    assert not (bare.home / ".config" / "sidecarctl" / "tokens" / "one").exists()
    done = bare("ca", "status", "--context", "one")
    assert done.code == 2 and "there are: two" in done.err
    assert bare("context", "use", "one").code == 1


def test_xdg_config_home_and_config(bare: Ctl, control: ControlProcess, tmp_path: Path) -> None:
    bare.ok("login", "--server", control.url, "--token-file", operators(control), XDG_CONFIG_HOME=str(tmp_path / "x"))
    assert (tmp_path / "x" / "sidecarctl" / "config.yaml").exists()
    bare.ok("ca", "status", "--config", str(tmp_path / "x" / "sidecarctl" / "config.yaml"))
    assert bare("ca", "status").code == 2


def test_a_file_that_others_can_read_is_not_used(bare: Ctl, control: ControlProcess) -> None:
    config = log_in(bare, control)
    config.chmod(0o644)
    done = bare("ca", "status")
    assert done.code == 2 and "chmod 600" in done.err


@pytest.mark.parametrize("text", ["contexts: 5\n", "contexts: {a: {server: x, tokn: y}}\n", "{", "\x00"])
def test_a_file_that_is_damaged_is_named(text: str, bare: Ctl, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(text)
    config.chmod(0o600)
    done = bare("ca", "status", "--config", str(config))
    assert done.code == 2 and f"{config}:" in done.err and len(done.err.splitlines()) == 1


def test_the_token_of_a_context_goes_nowhere_else(bare: Ctl, control: ControlProcess) -> None:
    """Whoever has somebody write ``--server`` gets no token by that."""
    log_in(bare, control)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = bare("ca", "status", "--server", f"http://127.0.0.1:{listener.getsockname()[1]}")
        assert done.code == 2 and "--token-file: is missing" in done.err
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_nobody_is_named(bare: Ctl) -> None:
    done = bare("ca", "status")
    assert (done.code, done.out) == (2, "")
    assert "--server URL and --token-file FILE, or log in once" in done.err


def test_nobody_is_there(bare: Ctl, control: ControlProcess) -> None:
    with held_port() as port:
        for scheme in ("http", "https"):
            done = bare("ca", "status", "--server", f"{scheme}://127.0.0.1:{port}", "--token-file", operators(control))
            assert done.code == 3 and "is it running there" in done.err and len(done.err.splitlines()) == 1, done


def test_another_control_plane_gets_no_token(bare: Ctl, control: ControlProcess) -> None:
    """The token pins the root: one with another root at the same name is refused before it was shown anything."""
    with ControlProcess(3600.0) as other:
        done = bare("ca", "status", "--server", other.url, "--token-file", operators(control))
        assert done.code == 3 and "its certificate is refused" in done.err, done
        assert not any("token" in line for line in (other.directory / "audit.jsonl").read_text().splitlines())


def test_roots_by_hand_and_another_identity(bare: Ctl, control: ControlProcess) -> None:
    root = str(control.directory / "ca" / "root.pem")
    told = ["--server", control.url, "--token-file", operators(control), "--control-ca", root]
    bare.ok("ca", "status", *told)
    with ControlProcess(3600.0) as other:
        wrong = [*told[:-1], str(other.directory / "ca" / "root.pem")]
        assert bare("ca", "status", *wrong).code == 3


def test_a_role_that_may_not(ctl: Ctl, control: ControlProcess) -> None:
    reader = ctl.home / "reader"
    ctl.ok("token", "create", "--role", "reader", "--out", str(reader))
    done = Ctl(ctl.home, "--server", control.url, "--token-file", str(reader))("ca", "status")
    assert done.code == 4 and "it takes an operator's token" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ca", "status", "--server", "ftp://x", "--token-file", "t"], "--server: 'ftp://x' is not"),
        (["ca", "status", "--server", "http://example.com", "--token-file", "t"], "http:// is for loopback alone"),
        (["ca", "status", "--server", "none", "--token-file", "t"], "--server: none"),
        (["ca", "status", "--server", "https://x", "--token-file", "nowhere"], "--token-file: nowhere: No such file"),
        (["ca", "status", "--server", "https://x", "--token-file", "t", "--control-id", "x"], "--control-id:"),
        (["ca", "statu"], "did you mean status?"),
        (["ca", "status", "--servr", "x"], "--servr"),
        (["ca", "status", "-o", "xml"], "'xml' is not one of"),
        (["login", "--server", "https://x"], "are both needed"),
        (["login", "--server", "https://x", "--token-file", "t", "--name", "../x"], "--name:"),
        (["completion", "tcsh"], "'tcsh' is not one of"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_two(words: list[str], said: str, bare: Ctl) -> None:
    done = bare(*words)
    assert (done.code, done.out) == (2, ""), done
    assert said in done.err and len(done.err.splitlines()) == 1


def test_version_and_help(bare: Ctl) -> None:
    assert bare.ok("--version").startswith("sidecarctl ")
    assert "Exit codes:" in bare.ok("--help")
    assert "Examples:" in bare.ok("token", "create", "--help")


def test_without_its_libraries_it_says_what_to_install(bare: Ctl) -> None:
    (bare.home / "click.py").write_text("raise ModuleNotFoundError(name='click')\n")
    done = bare("--version", PYTHONPATH=f"{bare.home}:{bare.environ['PYTHONPATH']}")
    assert done.code == 2 and "pip install 'sidecar-mesh[ctl]'" in done.err
