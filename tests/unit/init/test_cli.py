"""The command line: every mistake named at once, what wins, and when the machine is not touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from init import cli, namespace
from init.cli import main, read
from init.conversation import Refused
from init.options import OPTIONS, split
from init.rules import Return, Rule
from init.table import RuleRefused

WRONG = [
    ("-b 0", "--inbound-ports: '0' is neither a port nor a range of ports"),
    ("-d 9-1", "--exclude-inbound-ports: '9-1' ends before it begins"),
    ("-o *", "--exclude-outbound-ports: '*' is neither a port"),
    (
        "-x 10.0.0.1/8",
        "--exclude-outbound-cidrs: '10.0.0.1/8' has bits set beyond its prefix: 10.0.0.0/8 is the network",
    ),
    ("-i fe80::%eth0/64", "--outbound-cidrs: 'fe80::%eth0/64'"),
    ("-u none", "--proxy-uid: nobody is named"),
    ("-u root", "--proxy-uid: 'root' is not the number"),
    ("-g 4294967295", "--proxy-gid: '4294967295' is not the number"),
    ("-c an-interface-too-long", "--exclude-interfaces: 'an-interface-too-long' is not the name"),
    ("--exclude-uid-ports 5", "--exclude-uid-ports: '5' is not UID:PORTS"),
    ("--ipv6 maybe", "--ipv6: 'maybe' is not known; write one of auto, on, off"),
    ("-p 15006", "--inbound-port: is the same as --outbound-port"),
    ("--show --cleanup", "--show and --cleanup exclude each other"),
    ("--format nft", "--format: nft is a form of --dry-run only"),
    ("--port 5", "'--port' is not a flag; see sidecar-init --help"),
    ("-p", "--outbound-port: needs a value; write --outbound-port 15001"),
    ("--redirect-dns=maybe", "--redirect-dns: 'maybe' is neither on nor off"),
]


@pytest.mark.parametrize(("flags", "said"), WRONG, ids=[flags for flags, _ in WRONG])
def test_what_is_wrong_is_a_line_that_names_it(flags: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(flags.split()) == 2
    assert f"sidecar-init: {said}" in capsys.readouterr().err


def test_all_mistakes_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-b", "x", "-o", "y", "--what"]) == 2
    assert len(capsys.readouterr().err.splitlines()) >= 3


def test_a_twin_is_read_and_the_flag_wins() -> None:
    environ = {"SIDECAR_INIT_INBOUND_PORTS": "80", "SIDECAR_INIT_REDIRECT_DNS": "on"}
    values = read(split([]), environ)
    assert values["inbound_ports"] == ((80, 80),)
    assert values["redirect_dns"] is True
    assert read(split(["-b", "*"]), environ)["inbound_ports"] is None


def test_a_mistyped_twin_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SIDECAR_INIT_INBOUND_PORT_S", "80")
    monkeypatch.setenv("SIDECAR_INIT_IPV6", "perhaps")
    assert main(["--dry-run"]) == 2
    errors = capsys.readouterr().err
    assert "SIDECAR_INIT_INBOUND_PORT_S is not the twin of a flag; did you mean SIDECAR_INIT_INBOUND_PORTS?" in errors
    assert "--ipv6 (from SIDECAR_INIT_IPV6): 'perhaps' is not known" in errors


def test_help_tells_of_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(option.flag in told and option.twin in told for option in OPTIONS)


@pytest.mark.parametrize("form", ["text", "json", "nft"])
def test_a_dry_run_in_each_form(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["-n", "--format", form, "--ipv6", "on"]) == 0
    told = capsys.readouterr().out
    assert "redirect to :15006" in told
    if form == "json":
        assert json.loads(told)["ipv6"] == "captured"


@pytest.mark.parametrize("files", [("somaxconn", "netdev_budget"), ()])
def test_the_nodes_namespace_is_refused(
    files: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in files:
        (tmp_path / name).write_text("1\n")
    seen = namespace.is_the_nodes(tmp_path)
    monkeypatch.setattr(namespace, "is_the_nodes", lambda: seen)
    assert main([]) == 2
    assert "--allow-host-network" in capsys.readouterr().err


def test_a_pods_namespace_is_not(tmp_path: Path) -> None:
    (tmp_path / "somaxconn").write_text("4096\n")
    assert not namespace.is_the_nodes(tmp_path)


def test_a_refusal_names_the_rule(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from init import netlink, plan, table

    made = plan.plan(plan.Wanted())
    asks, rules = netlink.replacement(made, "")
    at = next(number for number, (chain, rule) in rules.items() if rule == Rule(rule.matches, Return(), "loopback"))
    assert len(asks) == max(rules) + 2
    refused = RuleRefused(table.named(rules[at]), Refused(95, "no such thing", at))

    def refuse(*_: object) -> int:
        raise refused

    monkeypatch.setattr(namespace, "is_the_nodes", lambda: False)
    monkeypatch.setattr(cli, "_do", refuse)
    assert main([]) == 4
    assert "the kernel refused the rule 'loopback' of chain output: Operation not supported: no such thing" in (
        capsys.readouterr().err
    )
