"""Request ids: which are kept, and what a made one is."""

from __future__ import annotations

import uuid

import pytest

from sidecar.proxy.request_ids import RequestIds, sane


def test_an_id_is_a_random_uuid() -> None:
    ids = RequestIds()
    made = [ids.new().decode() for _ in range(1000)]  # more than one block of randomness holds
    assert len(set(made)) == len(made)
    for text in made:
        parsed = uuid.UUID(text)
        assert str(parsed) == text
        assert parsed.version == 4
        assert parsed.variant == uuid.RFC_4122
        assert sane(text.encode())


def test_all_variants_of_the_standard_occur() -> None:
    ids = RequestIds()
    assert {ids.new()[19:20] for _ in range(500)} == {b"8", b"9", b"a", b"b"}


def test_two_makers_share_nothing() -> None:
    one, other = RequestIds(), RequestIds()
    assert not {one.new() for _ in range(200)} & {other.new() for _ in range(200)}


@pytest.mark.parametrize(
    "request_id", [b"a", b"0", b"x" * 128, b"1-2_3.4:5~6+7/8=9@", b"6f1b0c52-0e2c-4b0e-9d9a-0d7f7e7d2f11"]
)
def test_a_sane_id_is_kept(request_id: bytes) -> None:
    assert sane(request_id)


@pytest.mark.parametrize(
    "request_id",
    [
        b"",
        b"x" * 129,
        b"a b",
        b"a,b",
        b'a"b',
        b"a\\b",
        b"a\x00b",
        b"a\xffb",
        b"a\n",
        b"\na",
        b"a\tb",
        b"<a>",
        b"a%b",
        b"'",
    ],
)
def test_another_one_is_not(request_id: bytes) -> None:
    assert not sane(request_id)
