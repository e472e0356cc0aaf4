"""The long runs of ``tests.soak`` in short."""

from __future__ import annotations

from tests.soak import drain, leak


def test_nothing_grows() -> None:
    leak(warm_up=3_000, keep_alive=6_000, single=1_500)


def test_drains_under_load_lose_nothing() -> None:
    drain(2)
