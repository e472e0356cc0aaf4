"""Budgets for retries in virtual time: a thousand requests per second for an upstream that fails each of them, through
the exchange itself, over streams in memory.

With a budget, retries stay the share that it allows. Without one the same load shows the storm.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest
import trio
from trio.testing import MockClock

from sidecar.errors import ProxyError, Reason
from sidecar.http.message import EMPTY, Response
from sidecar.http.streams import ClientStream
from sidecar.policy.authorize import Permit
from sidecar.policy.retry import RetryPolicy
from sidecar.policy.retry_budget import ClusterLoad, ConcurrencyBudget, RatioBudget, RetryBudget
from sidecar.proxy.exchange import exchange
from sidecar.telemetry.record import Record
from tests.proxy.messages import FIELDS, PERMIT, MemoryClient, MemoryUpstream, answer, question

LATENCY = 0.25  # of each answer, a 503
KEEN = RetryPolicy(3, statuses=frozenset({503}), reasons=frozenset({Reason.CONNECT_FAILED}))
FAILED = answer(503, body=EMPTY)


class _Failing(MemoryUpstream):
    """Answers 503, after a while."""

    async def read_head(self) -> Response:
        await trio.sleep(LATENCY)
        self.answered = self.done = True
        return FAILED


class Outage:
    """A cluster whose upstream fails all requests, and what it and its budget see of them."""

    name = "memory"
    patience = 5.0

    def __init__(self, budget: RetryBudget | None, *, refuses: bool = False) -> None:
        self.load: ClusterLoad | None = ClusterLoad(budget)
        self.refuses = refuses
        self.attempts = self.requests = 0
        self.seen: list[tuple[float, int, int]] = []  # when an attempt began, with requests and retries in progress
        self.records: list[Record] = []

    def pick(self, permit: Permit, tried: Sequence[str] = ()) -> str:
        return self.name

    def has_others(self, tried: int) -> bool:
        return False

    def open_nowait(self, endpoint: str) -> None:
        return None

    async def open(self, endpoint: str, **terms: object) -> ClientStream:
        await trio.lowlevel.checkpoint()
        load = self.load
        assert load is not None
        self.attempts += 1
        self.seen.append((trio.current_time(), load.requests, load.retries))
        if self.refuses:
            await trio.sleep(LATENCY)
            raise ProxyError(Reason.CONNECT_FAILED, "refused")
        return _Failing()

    async def ask(self) -> None:
        """One request, from its beginning to its failure."""
        self.requests += 1
        record = Record("outbound", "HTTP/1.1", "client", 0.0, 0.0)
        self.records.append(record)
        try:
            await exchange(MemoryClient(), question(), FIELDS, self, PERMIT, record, KEEN)
        except ProxyError as error:
            record.blame(error)

    async def ask_for(self, seconds: float, per_second: int) -> None:
        """So many requests per second, evenly spread; then wait for the last of them."""
        async with trio.open_nursery() as nursery:
            for _ in range(int(seconds * per_second)):
                nursery.start_soon(self.ask)
                await trio.sleep(1 / per_second)

    @property
    def retries(self) -> int:
        return self.attempts - self.requests

    def exhausted(self, why: str) -> int:
        return sum(record.exhausted == why for record in self.records)


async def test_envoys_form_holds_a_fifth_of_what_is_active(autojump_clock: MockClock) -> None:
    outage = Outage(ConcurrencyBudget())
    await outage.ask_for(8, 1000)
    steady = [(requests, retries) for at, requests, retries in outage.seen if 2 < at - outage.seen[0][0] < 8]
    assert len(steady) > 6000 and min(requests for requests, _ in steady) > 200
    assert all(retries <= 0.2 * requests for requests, retries in steady)
    held = sum(retries for _, retries in steady) / sum(requests for requests, _ in steady)
    assert 0.19 <= held <= 0.20, held
    assert outage.retries < 0.3 * outage.requests
    assert outage.exhausted("budget") > 0.6 * outage.requests
    assert outage.load is not None and (outage.load.requests, outage.load.retries) == (0, 0)


@pytest.mark.parametrize(("least", "rate"), [(3, 10), (8, 20)])
async def test_envoys_form_has_its_least(least: int, rate: int, autojump_clock: MockClock) -> None:
    """A fifth of the few requests in progress would be one."""
    outage = Outage(ConcurrencyBudget(20, least))
    await outage.ask_for(20, rate)
    assert max(retries for _, _, retries in outage.seen) == least
    assert max(requests for _, requests, _ in outage.seen) < 5 * least


async def test_linkerds_form_holds_its_ratio(autojump_clock: MockClock) -> None:
    """A fifth of the requests, and ten per second beside that: a hundredth of these."""
    budget = RatioBudget(0.2, 10, 2.0)
    outage = Outage(budget)
    await outage.ask_for(9, 1000)
    began = outage.seen[0][0]
    first = [at for at, _, _ in outage.seen if 3 <= at - began < 9]
    share = len(first) / 6000 - 1
    assert 0.20 <= share <= 0.22, share
    assert abs(share - 0.21) <= 0.01
    assert outage.exhausted("budget") > 0.6 * outage.requests


async def test_linkerds_form_has_its_least(autojump_clock: MockClock) -> None:
    """Two requests per second, three retries each: below ten per second, nothing is refused."""
    outage = Outage(RatioBudget(0.0, 10, 10.0))
    await outage.ask_for(20, 2)
    assert outage.retries == 3 * outage.requests
    assert outage.exhausted("budget") == 0


async def test_without_a_budget_the_same_load_is_a_storm(autojump_clock: MockClock) -> None:
    outage = Outage(None)
    await outage.ask_for(2, 1000)
    assert outage.retries == 3 * outage.requests
    assert outage.exhausted("attempts") == outage.requests


async def test_a_budget_that_is_used_up_is_named(autojump_clock: MockClock) -> None:
    """An answer is passed on with the flag beside it. Without one the reason is the budget, and each attempt keeps what
    had become of it."""
    for refuses, flags, reason in ((False, "URX", None), (True, "URX", Reason.RETRY_BUDGET)):
        outage = Outage(ConcurrencyBudget(0, 0), refuses=refuses)
        await outage.ask()
        (record,) = outage.records
        assert (record.flags, record.reason, record.exhausted, record.attempts) == (flags, reason, "budget", 1)
        (attempt,) = record.all_tries
        assert (attempt.reason, attempt.status) == ((Reason.CONNECT_FAILED, 0) if refuses else (None, 503))
        if refuses:
            assert record.detail == "refused (connect_failed); the cluster's budget for retries is used up"


async def test_attempts_that_are_used_up_are_named(autojump_clock: MockClock) -> None:
    for refuses, flags, reason in ((False, "URX", None), (True, "UF,URX", Reason.CONNECT_FAILED)):
        outage = Outage(ConcurrencyBudget(), refuses=refuses)
        await outage.ask()
        (record,) = outage.records
        assert (record.flags, record.reason, record.exhausted) == (flags, reason, "attempts")
        assert (record.attempts, len(record.all_tries)) == (4, 4)


async def test_a_retry_counts_from_when_it_is_scheduled(autojump_clock: MockClock) -> None:
    """While one retry of three waits or runs, and two others, a fourth request gets none."""
    outage = Outage(ConcurrencyBudget(20, 3))
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(partial(outage.ask))
    assert sorted(record.exhausted for record in outage.records)[-1] == "budget"
    assert max(retries for _, _, retries in outage.seen) == 3


async def test_a_new_budget_goes_on_with_what_is_in_progress(autojump_clock: MockClock) -> None:
    outage = Outage(ConcurrencyBudget(0, 0))
    load = outage.load
    assert load is not None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outage.ask)
        await trio.sleep(LATENCY / 2)
        load.set_budget(ConcurrencyBudget(0, 1))
        await trio.sleep(LATENCY)
        assert (load.requests, load.retries) == (1, 1)
    assert (load.requests, load.retries) == (0, 0)
    assert outage.records[0].exhausted == "attempts"
