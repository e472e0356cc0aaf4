"""x-forwarded-*, x-request-id and via: who may say what of whom, and what the app is told (HDR-5)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.proxy.front import Front

CLAIMS = (
    b"X-Forwarded-For: 203.0.113.9",
    b"X-Forwarded-Proto: https",
    b"X-Forwarded-Host: other",
    b"X_Forwarded_For: 203.0.113.10",
    b"Forwarded: for=203.0.113.11",
    b"X-Real-Ip: 203.0.113.12",
)


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    with Front() as running:
        yield running


@pytest.fixture(scope="module")
def trusting() -> Iterator[Front]:
    with Front(None, "--trusted-proxies", "127.0.0.0/8,::1/128", "--via") as running:
        yield running


def test_the_app_is_told_who_calls(front: Front) -> None:
    front.ask(b"/plain")
    request = front.seen(b"/plain")
    assert request.get(b"x-forwarded-for") == [b"127.0.0.1"]
    assert request.get(b"x-forwarded-proto") == [b"http"]
    assert not request.get(b"via")


def test_a_strangers_claims_are_dropped(front: Front) -> None:
    front.ask(b"/stranger", *CLAIMS)
    request = front.seen(b"/stranger")
    assert request.get(b"x-forwarded-for") == [b"127.0.0.1"]
    assert request.get(b"x-forwarded-proto") == [b"http"]
    for name in (b"x-forwarded-host", b"x_forwarded_for", b"forwarded", b"x-real-ip"):
        assert not request.get(name), name


def test_a_trusted_proxys_claims_are_kept_and_added_to(trusting: Front) -> None:
    trusting.ask(b"/trusted", *CLAIMS[:3])
    request = trusting.seen(b"/trusted")
    assert request.get(b"x-forwarded-for") == [b"203.0.113.9, 127.0.0.1"]
    assert request.get(b"x-forwarded-proto") == [b"https"]
    assert request.get(b"x-forwarded-host") == [b"other"]


def test_a_trusted_proxy_that_claims_nothing(trusting: Front) -> None:
    trusting.ask(b"/trusted-plain")
    request = trusting.seen(b"/trusted-plain")
    assert request.get(b"x-forwarded-for") == [b"127.0.0.1"]
    assert request.get(b"x-forwarded-proto") == [b"http"]


def test_several_fields_are_one_list(trusting: Front) -> None:
    trusting.ask(b"/list", b"X-Forwarded-For: 203.0.113.1", b"X-Forwarded-For: 203.0.113.2")
    assert trusting.seen(b"/list").get(b"x-forwarded-for") == [b"203.0.113.1, 203.0.113.2, 127.0.0.1"]


def test_via_is_added_when_asked_for(trusting: Front) -> None:
    trusting.ask(b"/via", b"Via: 1.0 other")
    assert trusting.seen(b"/via").get(b"via") == [b"1.0 other", b"1.1 sidecar"]


def test_the_log_says_what_the_caller_claimed(front: Front) -> None:
    front.ask(b"/claimed", CLAIMS[0])
    assert front.record(b"/claimed")["x_forwarded_for"] == "203.0.113.9"
