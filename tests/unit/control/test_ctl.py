"""The parts of ``sidecarctl`` that decide, by tables: kinds, moments, what a bundle leaves out, what is said."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator

import click
import pytest

from control.ctl import contexts, kinds, support_bundle, tables
from control.ctl.command import SECTIONS, command
from control.ctl.exit_codes import MEANINGS, Exit, Failed
from control.ctl.output import as_yaml, printable
from sidecar.resources.kinds import KINDS


def leaves(group: click.Group) -> Iterator[click.Command]:
    for each in group.commands.values():
        yield from leaves(each) if isinstance(each, click.Group) else [each]


def test_every_kind_has_its_names_and_no_name_stands_for_two() -> None:
    assert set(kinds.NAMES) == set(KINDS)
    names = [name for kind, more in kinds.NAMES.items() for name in (kind.lower(), *more)]
    assert len(names) == len(set(names)) and set(names) == set(kinds.spoken())
    assert {kinds.kind_of(name.upper()) for name in names} == set(KINDS)
    assert set(tables.SPECS) == set(KINDS)


def test_every_command_is_in_a_section_and_says_what_it_does() -> None:
    assert {each.name for commands in SECTIONS.values() for each in commands} == set(command.commands)
    for each in leaves(command):
        assert each.help and all(parameter.help for parameter in each.params if isinstance(parameter, click.Option))
        assert len(each.get_short_help_str(80)) < 80
    assert set(MEANINGS) == set(Exit)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-5, "0s"), (0, "0s"), (59.9, "59s"), (61, "1m1s"), (3600, "1h"), (3661, "1h1m"), (86400 * 12 + 3600, "12d")],
)
def test_spans(seconds: float, said: str) -> None:
    assert tables.span(seconds) == said


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:01:00Z", 60.0),
        ("1970-01-01T00:01:00.5Z", 60.0),
        ("", None),
        (None, None),
        ("soon", None),
        (5, 5.0),
    ],
)
def test_moments(text: object, seconds: float | None) -> None:
    assert tables.moment(text) == seconds


def test_rows_of_another_release_can_be_listed() -> None:
    """What is not there, or is something else, is an empty cell."""
    every = [value for value in vars(tables).values() if isinstance(value, tuple)] + list(tables.SPECS.values())
    for columns in every:
        for row in ({}, {"document": None, "refused": None, "endpoints": None, "ports": None, "state": "refused"}):
            assert all(isinstance(column.of(row), str) for column in columns)


@pytest.mark.parametrize(
    "secret",
    [
        b"sct1.abc.AAAA.BBBB.CCCC",
        b"eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.c2ln",
        b"-----BEGIN EC PRIVATE KEY-----\nMHcCAQ\n-----END EC PRIVATE KEY-----",
        b"-----BEGIN PRIVATE KEY-----\nMHcCAQ and no end",
        b"Authorization: Bearer abcdefghijkl",
        b"basic dXNlcjpwYXNz",
    ],
)
def test_what_has_the_form_of_a_credential_is_left_out(secret: bytes) -> None:
    last = secret.split()[-1] if b"-----" not in secret else b"MHcCAQ"
    kept = support_bundle.clean("stats.txt", b"before " + secret + b"\nafter")
    assert last not in kept and kept.startswith(b"before ") and b"***" in kept


def test_what_callers_chose_freely_is_left_out() -> None:
    rows = [
        {"request_id": "a", "user_agent": "hunter2", "x_forwarded_for": "hunter2", "path": "/x"},
        {"user_agent": ""},
    ]
    kept = json.loads(support_bundle.clean("requests.json", json.dumps(rows).encode()))
    assert kept == [
        {"request_id": "a", "user_agent": "***", "x_forwarded_for": "***", "path": "/x"},
        {"user_agent": ""},
    ]
    assert support_bundle.clean("requests.json", b"no JSON: hunter2") == b"[]"


def test_an_archive_is_for_its_owner() -> None:
    with tarfile.open(fileobj=io.BytesIO(support_bundle.pack({"a.txt": b"text"}, 1000.0))) as archive:
        (entry,) = archive.getmembers()
        found = archive.extractfile(entry)
        assert found is not None and found.read() == b"text"
    assert (entry.name, entry.mode, entry.mtime) == ("support-bundle/a.txt", 0o600, 1000)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "-x", "a b", "x" * 64])
def test_a_name_that_could_be_another_file_is_refused(name: str) -> None:
    with pytest.raises(Failed, match="--name"):
        contexts.check_name(name)


@pytest.mark.parametrize(
    "text", ["plain", "Zürich", "no", "1:30", "a\nb\n", "\x1b[2J", "\u202e", "\ud7ff\u0085", "- x: y", ""]
)
def test_yaml_is_printable_and_reads_the_same(text: str) -> None:
    from sidecar.resources import yaml_reader

    written = as_yaml({"value": text, "list": [text]})
    assert printable(written) == written
    assert yaml_reader.read(written).root == {"value": text, "list": [text]}


def test_routes_and_rules_have_columns_that_say_what_they_are_for() -> None:
    def cells(kind: str, **spec: object) -> list[str]:
        row = {"document": {"kind": kind, "spec": spec}}
        return [column.of(row) for column in tables.SPECS[kind]]

    assert [kinds.kind_of(name) for name in ("vs", "dr", "btp")] == [
        "VirtualService", "DestinationRule", "BackendTrafficPolicy",
    ]  # fmt: skip
    rule = {"route": [{"destination": {"host": "web"}}]}
    assert cells("VirtualService", hosts=["web", "api"], http=[rule, rule], tcp=[rule], exportTo=["."]) == [
        "web,api", "2 http,1 tcp", ".",
    ]  # fmt: skip
    assert cells("VirtualService", hosts=["web"], tls=[rule]) == ["web", "1 tls", ""]
    subsets = [{"name": "v1"}, {"name": "v2"}]
    selector = {"matchLabels": {"app": "web"}}
    assert cells("DestinationRule", host="web", subsets=subsets, workloadSelector=selector) == [
        "web", "v1,v2", "app=web", "",
    ]  # fmt: skip
    assert cells("BackendTrafficPolicy", host="web", retryBudget={"retryRatio": 0.1}, retry={
        "nonIdempotentRoutes": ["pay"]}) == ["web", "retryRatio=0.1", "pay", ""]  # fmt: skip
    assert cells("BackendTrafficPolicy", host="web", retryBudget={})[1] == "default"
