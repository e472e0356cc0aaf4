"""What the flags on registration say: where a sidecar is reached, how its app is looked at, its labels and its name."""

from __future__ import annotations

import pytest

from sidecar.errors import StartError
from sidecar.registration_flags import (
    Advertise,
    HealthCheck,
    instance_name,
    parse_advertise,
    parse_health,
    parse_instance,
    parse_labels,
)
from sidecar.settings import load


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("auto", Advertise()),
        ("none", None),
        ("10.0.0.7", Advertise("10.0.0.7")),
        ("10.0.0.7:80", Advertise("10.0.0.7", 80)),
        (":80", Advertise("", 80)),
        ("2001:DB8::7", Advertise("2001:db8::7")),
        ("[::1]:80", Advertise("::1", 80)),
    ],
)
def test_where_it_is_reached(text: str, wanted: Advertise | None) -> None:
    assert parse_advertise(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("none", None),
        ("tcp", HealthCheck("tcp")),
        ("tcp:81", HealthCheck("tcp", 81)),
        ("http:/", HealthCheck("http", None, "/")),
        ("http:81/a?b=c", HealthCheck("http", 81, "/a?b=c")),
        ("exec:check --all 'a b'", HealthCheck("exec", command=("check", "--all", "a b"))),
    ],
)
def test_how_the_app_is_looked_at(text: str, wanted: HealthCheck | None) -> None:
    assert parse_health(text) == wanted


def test_of_a_label_the_last_counts() -> None:
    assert parse_labels("a=1,example.com/b=2,a=3,c=") == (("a", "3"), ("example.com/b", "2"), ("c", ""))
    assert parse_labels("none") == ()


@pytest.mark.parametrize(
    ("host", "name"),
    [("web-1", "web-1-0000002a"), ("Büro_7.local", "b-ro-7.local-0000002a"), ("", "0000002a"), ("_", "0000002a")],
)
def test_a_name_is_made_of_the_machines_and_of_chance(host: str, name: str) -> None:
    assert instance_name(host, 42) == name
    assert parse_instance(name) == name


def test_a_long_name_is_cut() -> None:
    name = instance_name("a" * 200, -1)
    assert len(name) == 63 and parse_instance(name) == name


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ({"state_dir": "/x", "mesh": "m.yaml"}, "--state-dir: keeps what --control says"),
        ({"interception": "redirect", "health": "tcp"}, "--health: needs the app's port with --interception redirect"),
        ({"control": "none", "token_file": "none", "health": "tcp"}, "--health: means nothing without a certificate"),
    ],
)
def test_what_is_wrong_together(flags: dict[str, str], line: str) -> None:
    told = {"control": "http://127.0.0.1:1", "token_file": "t"} | flags
    if "interception" not in flags:
        told["upstream"] = "127.0.0.1:1"
    with pytest.raises(StartError) as error:
        load(told, {})
    assert str(error.value).startswith(line)
