"""Flags and their twins -> Settings, or every problem, a line each."""

from __future__ import annotations

import pytest

from control import cli, flag_parser, logging_setup
from control.option_table import OPTIONS
from control.settings import examine, unknown_twins


def problems(*words: str, environ: dict[str, str] | None = None) -> list[str]:
    given = flag_parser.split(words)
    return examine(given.flags, environ or {}, given.problems)[1]


def test_without_a_flag_it_starts() -> None:
    settings, wrong = examine({}, {})
    assert settings is not None and wrong == []
    assert [str(address) for address in settings.listen] == ["127.0.0.1:15010"]
    assert (settings.trust_domain, settings.leaf_ttl, settings.ca, settings.store) == (
        "cluster.local",
        86400,
        "dir",
        "dir",
    )


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.flag)
def test_every_option_takes_its_default_and_its_example(option) -> None:
    option.parse(option.default)
    option.parse(option.example)
    assert option.twin in flag_parser.help_text() and option.flag in flag_parser.help_text()


WRONG = [
    (("--listen", "0.0.0.0:15010"), "--listen: 0.0.0.0 is not a loopback address"),
    (("--listen", "[::]:15010"), "--listen: :: is not a loopback address"),
    (("--tls-listen", "control:15012"), "--tls-listen: 'control' is not an IP address"),
    (("--trust-domain", "Cluster.Local"), "--trust-domain: 'Cluster.Local' is not a SPIFFE id"),
    (("--trust-domain", "a/b"), "--trust-domain: "),
    (("--ca", "disk"), "--ca: 'disk' is not known; write one of dir, memory"),
    (("--ca-key", "pkcs11:token=hsm;object=ca"), "--ca-key: a PKCS#11 URI names a key"),
    (("--ca-cert", "a.pem"), "--ca-key: is missing"),
    (("--ca-key", "a.key"), "--ca-cert: is missing"),
    (("--ca", "memory", "--ca-cert", "a", "--ca-key", "b"), "--ca: memory makes a CA"),
    (("--leaf-ttl", "1s"), "--leaf-ttl: 1 s can't be served"),
    (("--leaf-ttl", "10000h"), "--leaf-ttl: 3.6e+07 s can't be served"),
    (("--leaf-ttl", "soon"), "--leaf-ttl: 'soon' is not a duration"),
    (("--store", "postgres://x"), "--store: 'postgres://x' is not a store"),
    (("--store", "sqlite:///"), "--store: "),
    (("--kube-jwks", "http://10.0.0.1/keys", "--kube-audience", "x"), "--kube-jwks: 'http://10.0.0.1/keys' is neither"),
    (("--kube-jwks", "keys.json"), "--kube-audience: is missing"),
    (("--kube-audience", "x"), "--kube-audience: has no use"),
    (("--kube-api", "https://u:p@host", "--kube-audience", "x"), "--kube-api: "),
    (("--kube-api", "https://a", "--kube-jwks", "b", "--kube-audience", "x"), "--kube-api: asks for what"),
    (("--log-level",), "--log-level: needs a value; write --log-level info"),
    (("--lisen", "1"), "--lisen: is not a flag; did you mean --listen?"),
    (("stray",), "stray: is not a flag; see sidecar-control --help"),
]


@pytest.mark.parametrize(("words", "start"), WRONG)
def test_what_is_wrong_is_one_line_that_names_the_flag(words: tuple[str, ...], start: str) -> None:
    found = problems(*words)
    assert len(found) == 1, found
    assert found[0].startswith(start) and "\n" not in found[0]


def test_all_problems_are_told_at_once() -> None:
    assert len(problems("--ca", "x", "--store=y", "--nothing", "--leaf-ttl", "z")) == 4


def test_the_environment_says_the_same_and_the_flag_wins() -> None:
    environ = {"SIDECAR_CONTROL_LEAF_TTL": "1h", "SIDECAR_CONTROL_LISTEN": "0.0.0.0:1", "SIDECAR_CONTROL_LISTN": "1"}
    settings, _ = examine({"listen": "off"}, environ)
    assert settings is not None and settings.leaf_ttl == 3600 and settings.listen == ()
    assert problems(environ=environ)[0].startswith("--listen (from SIDECAR_CONTROL_LISTEN): ")
    assert unknown_twins(environ) == [
        "the environment's SIDECAR_CONTROL_LISTN is not a setting and has no effect; "
        "did you mean SIDECAR_CONTROL_LISTEN?"
    ]


def test_help_and_version_need_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    assert capsys.readouterr().out == flag_parser.help_text()
    assert max(map(len, flag_parser.help_text().splitlines())) <= 120
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("sidecar-control ")


def test_a_wrong_command_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--ca", "x", "--store", "y"]) == 2
    assert capsys.readouterr().err.count("sidecar-control: error: --") == 2


def test_a_line_of_the_log_is_one_line() -> None:
    assert logging_setup.one_line("a\nb\x1b[0m") == "a\\nb\\x1b[0m"
