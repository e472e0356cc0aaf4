"""Every case of the data, whole, in halves and byte by byte: one verdict, and the app sees what it may."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.hostile.case import Case, Forwarded, Opaque, Refused
from tests.hostile.coverage import ALL_CASES
from tests.hostile.rig import Rig, judge
from tests.support.raw import SPLITS, Client
from tests.support.upstream import wait_until

_DPE = {400, 405, 408, 413, 414, 431, 501, 505}


@pytest.mark.parametrize("case", ALL_CASES, ids=str)
def test_one_verdict_however_split(case: Case, protocol: str, rigs: Callable[[str, str], Rig]) -> None:
    rig = rigs(case.rig, protocol)
    data = rig.bytes_of(case)
    verdicts = {}
    for split in SPLITS[:2] if case.slow else SPLITS:
        outcome = rig.play(case, split)
        verdicts[split] = judge(case, protocol, data, outcome)
        if outcome.seen.partial:
            rig.wait_no_partial()
    assert len(set(verdicts.values())) == 1, f"{case}: {data[:400]!r} gets {verdicts}"


def test_refusals_are_logged_with_their_flag(protocol: str, rigs: Callable[[str, str], Rig]) -> None:
    """Each refused request has one line in the access log, with its status and the flag DPE."""
    rig = rigs("main", protocol)
    told: dict[tuple[str, int], tuple[Case, int]] = {}
    earlier = len(rig.sidecar.log_lines())
    for case in ALL_CASES:
        expect = case.expected(protocol)
        if case.rig != "main" or case.finish or case.slow or not all(isinstance(one, Refused) for one in expect):
            continue
        outcome = rig.play(case, "whole")
        if outcome.replies and outcome.replies[-1].status in _DPE:
            told[case.port, outcome.heard.port] = (case, outcome.replies[-1].status)
    assert len(told) > 100
    missing = dict(told)

    def all_logged() -> bool:
        for record in rig.sidecar.log_records()[earlier:]:
            caller = record["direction"], int(str(record["client"]).rpartition(":")[2])
            # The kernel may give a port to a later connection too, so a line that is another's is passed over.
            if caller in missing and (record["response_code"], record["response_flags"]) == (missing[caller][1], "DPE"):
                del missing[caller]
        return not missing

    try:
        wait_until(all_logged, "a line in the access log for every refusal")
    except AssertionError as error:
        raise AssertionError("\n".join(f"{case}: {status}" for case, status in missing.values())) from error


def test_every_line_of_the_log_is_one_document(protocol: str, rigs: Callable[[str, str], Rig]) -> None:
    """HDR-6: whatever a client says, a line of the log is one JSON object, and holds what it said."""
    rig = rigs("main", protocol)
    agent = 'a"b\\c'
    with Client(rig.sidecar.inbound) as client:
        client.send(
            b"GET /quoted HTTP/1.1\r\nHost: app\r\nUser-Agent: " + agent.encode() + b"\r\nConnection: close\r\n\r\n"
        )
        client.read_to_end()
    wait_until(lambda: any(r.get("user_agent") == agent for r in rig.sidecar.log_records()), "the user agent as sent")


def test_a_text_log_keeps_one_line_per_request() -> None:
    """HDR-6 for the text form: no byte of a client ends a line or a quoted field early."""
    with Rig("main", "http", access_log="text") as rig:
        for case in ALL_CASES:
            if case.id == "HDR-6":
                rig.play(case, "whole")
        with Client(rig.sidecar.inbound) as client:
            client.send(b'GET /last HTTP/1.1\r\nHost: app\r\nUser-Agent: a"b\r\nConnection: close\r\n\r\n')
            client.read_to_end()
        wait_until(lambda: any("/last" in line for line in rig.sidecar.log_lines()), "the last line")
        for line in rig.sidecar.log_lines():
            assert line.startswith("["), line
            assert line.isprintable(), line
            assert line.replace('\\"', "").count('"') % 2 == 0, line


def test_the_data_can_fail() -> None:
    """The judge tells outcomes apart: no case accepts both a refusal and a relay of the same bytes in http mode."""
    for case in ALL_CASES:
        assert not any(isinstance(one, Opaque) for one in case.expect), case
        assert case.expect, case
        assert all(one.statuses for one in case.expect if isinstance(one, Refused)), case
        assert all(one.told for one in case.expect if isinstance(one, Forwarded)), case
