"""What is said of an overload: at once, then at most a line in 10 s, and nothing is left uncounted."""

from __future__ import annotations

from time import monotonic

import pytest

from sidecar.errors import Reason
from sidecar.telemetry.record import Record
from sidecar.telemetry.telemetry import Telemetry
from sidecar.telemetry.throttled_log import EVERY, ThrottledLog


def test_the_first_is_said_at_once_and_the_rest_together(caplog: pytest.LogCaptureFixture) -> None:
    complaints = ThrottledLog()
    for _ in range(100):
        complaints.note("full", "no room", 5.0)
    assert caplog.messages == ["full: no room"]
    complaints.tick(5.0 + EVERY - 0.1)
    assert len(caplog.messages) == 1
    complaints.tick(5.0 + EVERY)
    assert caplog.messages[1:] == ["full: no room (99 times)"]
    complaints.tick(5.0 + 5 * EVERY)
    assert len(caplog.messages) == 2


def test_kinds_do_not_wait_for_each_other(caplog: pytest.LogCaptureFixture) -> None:
    complaints = ThrottledLog()
    complaints.note("full", "no room", 5.0)
    complaints.note("slow", "no time", 5.0)
    assert caplog.messages == ["full: no room", "slow: no time"]


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        (Reason.POOL_FULL, ["pool_full (UO): no room"]),
        (Reason.POOL_TIMEOUT, ["pool_timeout (UO): no room"]),
        (Reason.MEMORY, ["memory (OM): no room"]),
        (Reason.TOO_MANY_CONNECTIONS, ["too_many_connections (DO): no room"]),
        (Reason.UPSTREAM_CLOSED, []),
        (Reason.BAD_REQUEST, []),
        (None, []),
    ],
)
def test_refusals_for_want_of_room_are_said(
    reason: Reason | None, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    telemetry = Telemetry()
    for _ in range(50):
        record = Record("inbound", "HTTP/1.1", "10.0.0.9:1", 1.0, 1.0)
        record.reason, record.detail, record.duration = reason, "no room", 0.1
        telemetry.finish(record)
    assert caplog.messages == said
    telemetry.tick(monotonic(), monotonic() + EVERY + 1)
    assert caplog.messages == said + [f"{line} (49 times)" for line in said]


@pytest.mark.parametrize("name", ["accept_errors", "access_log_dropped"])
def test_numbers_that_rise_are_said(name: str, caplog: pytest.LogCaptureFixture) -> None:
    telemetry = Telemetry()
    setattr(telemetry.counters, name, 3)
    telemetry.tick(1.0, 1.0)
    telemetry.tick(1.05, 1.05)
    assert [message.partition(":")[0] for message in caplog.messages] == [name]
    assert caplog.messages[0].endswith("(3 times)")
    telemetry.counters.reset()
    telemetry.tick(2 + EVERY, 2 + EVERY)
    setattr(telemetry.counters, name, 1)
    telemetry.tick(3 + EVERY, 3 + EVERY)
    assert len(caplog.messages) == 2, "after a reset they are said again"
