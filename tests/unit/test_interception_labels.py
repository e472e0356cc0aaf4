"""What records say of interception, in both logs and in the story; and what they do not say without it."""

from __future__ import annotations

import json

import pytest

from sidecar.errors import Reason
from sidecar.telemetry.access_log import AccessLog
from sidecar.telemetry.explain import explain
from sidecar.telemetry.interception_labels import cluster, difference
from sidecar.telemetry.log_writer import LogWriter
from sidecar.telemetry.metrics import Counters
from sidecar.telemetry.record import ConnectionInfo, Record


def record(
    direction: str = "outbound",
    original: str = "10.0.0.5:80",
    authority: bytes = b"",
    upstream: str = "10.0.0.5:80",
    reason: Reason | None = None,
) -> Record:
    made = Record(direction, "HTTP/1.1", "10.0.0.9:4444", 1_700_000_000.25, 100.0)
    made.origin = ConnectionInfo(made.start, "HTTP/1, by its first bytes", 0.0, original)
    made.method, made.path, made.authority, made.upstream, made.reason = b"GET", b"/", authority, upstream, reason
    return made


@pytest.mark.parametrize(
    ("direction", "original", "upstream", "reason", "named"),
    [
        ("outbound", "10.0.0.5:80", "10.0.0.5:80", None, "PassthroughCluster"),
        ("outbound", "", "10.0.0.5:80", None, "PassthroughCluster"),  # the explicit proxy
        ("outbound", "10.0.0.5:80", "", Reason.BLACK_HOLE, "BlackHoleCluster"),
        ("outbound", "10.0.0.5:80", "", Reason.OWN_LISTENER, ""),
        ("inbound", "10.0.0.5:8080", "10.0.0.5:8080", None, "inbound|8080||"),
        ("inbound", "[fd99::5]:8080", "", Reason.POOL_FULL, "inbound|8080||"),
        ("inbound", "", "", Reason.BAD_REQUEST, ""),
    ],
)
def test_a_record_has_the_cluster_that_the_field_knows(
    direction: str, original: str, upstream: str, reason: Reason | None, named: str
) -> None:
    assert cluster(record(direction, original, b"", upstream, reason)) == named


@pytest.mark.parametrize(
    ("authority", "original", "differs"),
    [
        (b"10.0.0.5", "10.0.0.5:80", False),
        (b"10.0.0.5:80", "10.0.0.5:80", False),
        (b"10.0.0.6", "10.0.0.5:80", True),
        (b"10.0.0.5:8080", "10.0.0.5:80", True),
        (b"10.0.0.5", "10.0.0.5:8080", True),
        (b"[FD99:0::5]:8080", "[fd99::5]:8080", False),
        (b"[fd99::6]:8080", "[fd99::5]:8080", True),
        (b"api.example.com", "10.0.0.5:80", False),  # where the name leads is not looked up for a record
        (b"api.example.com:81", "10.0.0.5:80", True),
        (b"", "10.0.0.5:80", False),
        (b"10.0.0.6", "", False),  # not captured
        (b"a:b:c", "10.0.0.5:80", False),  # of a head that was refused
    ],
)
def test_a_request_that_names_another_place_says_so(authority: bytes, original: str, differs: bool) -> None:
    made = record(original=original, authority=authority)
    assert bool(difference(made)) is differs
    told = explain(made)["request"]
    assert isinstance(told, dict)
    assert ("authority_differs" in told) is differs


def test_the_story_says_where_it_wanted_to_go() -> None:
    told = explain(record())
    assert isinstance(told["connection"], dict) and told["connection"]["original_destination"] == "10.0.0.5:80"
    assert isinstance(told["upstream"], dict) and told["upstream"]["cluster"] == "PassthroughCluster"
    plain = explain(record(original=""))["connection"]
    assert isinstance(plain, dict) and "original_destination" not in plain


def log(form: str, captured: bool) -> AccessLog:
    return AccessLog(form, LogWriter("/dev/null"), Counters(), captured=captured)


def test_a_captured_proxys_lines_are_its_others_with_more_at_their_end() -> None:
    made = record(authority=b"10.0.0.6")
    plain = json.loads(log("json", False).json_line(made))
    full = json.loads(log("json", True).captured_json_line(made))
    more = {
        "original_destination": "10.0.0.5:80",
        "upstream_cluster": "PassthroughCluster",
        "authority_differs": True,
    }
    assert full == plain | more
    text = log("text", True).captured_text_line(made)
    assert text == log("text", False).text_line(made)[:-1] + b' "10.0.0.5:80" PassthroughCluster authority_differs\n'


def test_what_is_not_known_is_null_and_a_dash() -> None:
    made = record(original="", upstream="", reason=Reason.NO_ROUTE)
    full = json.loads(log("json", True).captured_json_line(made))
    assert (full["original_destination"], full["upstream_cluster"], full["authority_differs"]) == (None, None, False)
    assert log("text", True).captured_text_line(made).endswith(b' "-" - -\n')
