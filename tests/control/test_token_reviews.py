"""Bad tokens of an address keep none of its neighbours out, and are no lever against the API server of Kubernetes."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from control import token_reviews
from control.problems import Refused
from control.token_reviews import OF_ALL, OF_AN_ADDRESS, RESERVED, WAITING, WAITING_OF_AN_ADDRESS, Reviews
from tests.control import kubeapi
from tests.control.kubeapi import AUDIENCE
from tests.control.plane import BILLING, Plane, csr, running

SECONDS = 5.0  # within which a good token is served


class ApiServer(kubeapi.KubeApi):
    """Approves of tokens that begin with ``good``, and of no other; ``tokens`` are those that it was asked about."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens: list[str] = []

    def answer_to(self, body: bytes) -> tuple[int, bytes]:
        token = json.loads(body)["spec"]["token"]
        self.tokens.append(token)
        return kubeapi.verdict(authenticated=token.startswith("good"))


async def certificate(plane: Plane, token: str) -> int:
    return (await plane.ask("POST", "/v1/certificates", token, csr(BILLING))).status


@pytest.mark.parametrize("at_once", [False, True], ids=["one after the other", "at once"])
async def test_after_a_hundred_bad_tokens_of_an_address_a_good_one_is_served(tmp_path: Path, at_once: bool) -> None:
    statuses: list[int] = []
    with kubeapi.serving(ApiServer()) as api:
        async with running(tmp_path, kube_api=api.url, kube_audience=AUDIENCE) as plane:

            async def send(number: int) -> None:
                statuses.append(await certificate(plane, f"bad-{number}"))

            if at_once:
                async with trio.open_nursery() as nursery:
                    for number in range(100):
                        nursery.start_soon(send, number)
                    with trio.fail_after(SECONDS):
                        assert await certificate(plane, "good") == 201
            else:
                for number in range(100):
                    await send(number)
            with trio.fail_after(SECONDS):
                assert await certificate(plane, "good") == 201
    assert set(statuses) <= {401, 429} and len(statuses) == 100


async def test_one_bad_token_that_is_tried_for_ever_costs_one_review(tmp_path: Path) -> None:
    with kubeapi.serving(ApiServer()) as api:
        async with running(tmp_path, kube_api=api.url, kube_audience=AUDIENCE) as plane:
            assert {await certificate(plane, "bad") for _ in range(40)} == {401}
            assert api.tokens == ["bad"]
            assert await certificate(plane, "good") == 201


async def test_good_tokens_use_up_no_budget(tmp_path: Path) -> None:
    with kubeapi.serving(ApiServer()) as api:
        async with running(tmp_path, kube_api=api.url, kube_audience=AUDIENCE) as plane:
            statuses = [await certificate(plane, f"good-{number}") for number in range(OF_AN_ADDRESS.burst + 20)]
    assert set(statuses) == {201}


# -- the bounds ------------------------------------------------------------------------------------------------------


async def test_reviews_of_bad_tokens_are_bounded_by_address_and_in_all(autojump_clock: MockClock) -> None:
    bounds = Reviews()
    entered: list[str] = []
    statuses: set[int] = set()

    async def enter(address: str) -> None:
        try:
            await bounds.enter(address)
            entered.append(address)
        except Refused as refused:
            statuses.add(refused.status)

    async with trio.open_nursery() as nursery:
        for _ in range(200):
            nursery.start_soon(enter, "10.0.0.1")
    assert entered.count("10.0.0.1") <= OF_AN_ADDRESS.burst + WAITING_OF_AN_ADDRESS
    assert bounds.waiting == 0
    async with trio.open_nursery() as nursery:
        for number in range(1000):
            nursery.start_soon(enter, f"10.0.1.{number % 100}")
    assert len(entered) <= OF_AN_ADDRESS.burst + WAITING_OF_AN_ADDRESS + OF_ALL.burst + RESERVED.burst + WAITING
    assert (bounds.waiting, statuses) == (0, {429})


async def test_who_waits_longest_goes_where_too_many_wait_and_the_newest_is_next(autojump_clock: MockClock) -> None:
    bounds = Reviews()
    for _ in range(OF_AN_ADDRESS.burst):
        await bounds.enter("10.0.0.1")
    order: list[int] = []
    displaced: list[int] = []

    async def enter(number: int) -> None:
        try:
            await bounds.enter("10.0.0.1")
            order.append(number)
        except Refused:
            displaced.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(WAITING_OF_AN_ADDRESS + 3):
            nursery.start_soon(enter, number)
            await trio.sleep(0.0001)
        began = trio.current_time()
        await bounds.enter("10.0.0.2")
        assert trio.current_time() == began, "another address has its own budget"
    assert order[0] == WAITING_OF_AN_ADDRESS + 2
    assert sorted(displaced) == [0, 1, 2]


async def test_what_is_remembered_of_bad_tokens_ends_and_is_bounded(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_reviews, "REMEMBERED", 3)
    bounds = Reviews()
    for number in range(5):
        bounds.was_bad(f"t{number}", "unknown")
    assert [bounds.known_bad(f"t{number}") for number in range(5)] == ["", "", "unknown", "unknown", "unknown"]
    await trio.sleep(token_reviews.REMEMBERED_SECONDS + 0.1)
    assert bounds.known_bad("t4") == ""


async def test_addresses_that_send_bad_tokens_all_the_time_do_not_keep_out_another(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Six of them use up what all have together; an address that has used nothing of its own has a share of it left."""
    reviews = Reviews()

    async def flood(address: str) -> None:
        while True:
            with contextlib.suppress(Refused):
                await reviews.enter(address)
            await trio.sleep(0.01)

    async with trio.open_nursery() as nursery:
        for number in range(6):
            for _ in range(4):
                nursery.start_soon(flood, f"10.0.0.{number}")
        await trio.sleep(30)
        for number in range(10):
            began = trio.current_time()
            taken = await reviews.enter(f"10.0.1.{number}")
            reviews.was_good(f"10.0.1.{number}", taken)
            assert trio.current_time() - began < SECONDS
        nursery.cancel_scope.cancel()


async def test_good_tokens_use_up_no_share(autojump_clock: MockClock) -> None:
    """What they take while others have used up the rest comes back to where it was taken from."""
    bounds = Reviews()
    for number in range(OF_ALL.burst):
        await bounds.enter(f"10.0.0.{number}")
    began = trio.current_time()
    for number in range(3 * RESERVED.burst):
        taken = await bounds.enter(f"10.0.1.{number}")
        bounds.was_good(f"10.0.1.{number}", taken)
    assert trio.current_time() == began, "none has waited"
