"""Prometheus scrapes a process under load, and comes to the numbers of whoever sent it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.peer.prometheus_load import Seen, observe


def test_prometheus_counts_what_was_sent() -> None:
    observe(14).check()


@pytest.mark.parametrize(
    "wrong", [{"counted": 2799}, {"rate": 197.0}, {"bucket_rate": 203.0}, {"bytes_rate": 1300.0}], ids=str
)
def test_a_count_that_is_off_is_found_out(wrong: dict[str, Any]) -> None:
    right = Seen(sent=2800, counted=2800, sent_rate=200.0, rate=200.4, bucket_rate=199.6, bytes_rate=1401.0)
    right.check()
    with pytest.raises(AssertionError):
        dataclasses.replace(right, **wrong).check()
