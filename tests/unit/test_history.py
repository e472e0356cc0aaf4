"""The last records: packed, they come back as they were; at a glance they say the same."""

from __future__ import annotations

from sidecar.errors import Reason
from sidecar.telemetry.history import KEPT, History, RecordSummary
from sidecar.telemetry.record import Attempt, ConnectionInfo, Record


def ended(number: int) -> Record:
    record = Record("inbound", "HTTP/1.1", f"10.0.0.9:{number}", 1_700_000_000.5, 100.25)
    record.origin = ConnectionInfo(
        1_700_000_000.0, "HTTP/1, by its first bytes", 0.001, "10.0.0.1:80", "spiffe://a/ns/b/sa/c"
    )
    record.duration, record.method, record.status, record.upstream = 0.125, b"GET", 200, "127.0.0.1:8080"
    record.path, record.request_id, record.stripped = b"/\xff", b"id-%d" % number, ("connection",)
    return record


def test_a_packed_record_comes_back_as_it_was() -> None:
    history = History()
    history.add(ended(1))
    (kept,) = history.newest_first()
    assert kept == ended(1) and kept is not history.newest_first()[0]
    assert history.find("id-1") == ended(1) and history.find("d-1") is None


def test_those_that_failed_or_were_tried_again_are_kept_whole() -> None:
    history = History()
    failed, again = ended(1), ended(2)
    failed.reason = Reason.CONNECT_FAILED
    again.tries = (Attempt("127.0.0.1:8080", "", True, 0.0, 0.0, 0.1, 0, Reason.UPSTREAM_CLOSED, "it went away"),)
    for record in (failed, again):
        history.add(record)
    assert history.newest_first() == [again, failed] and history.newest_first()[1] is failed
    assert history.failed_newest_first() == [failed]


def test_a_glance_says_what_the_record_does() -> None:
    assert Record.__struct_fields__[: len(RecordSummary.__struct_fields__)] == RecordSummary.__struct_fields__
    history = History()
    for number in range(KEPT + 5):
        history.add(ended(number))
    glances, whole = history.glances(), history.newest_first()
    assert len(glances) == len(whole) == KEPT
    for glance, record in zip(glances, whole, strict=True):
        assert isinstance(glance, RecordSummary)
        assert all(getattr(glance, name) == getattr(record, name) for name in RecordSummary.__struct_fields__)
