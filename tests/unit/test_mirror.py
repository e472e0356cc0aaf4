"""Copies of requests, as the request sees them: begun a little later, bounded, and gone with the proxy."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio

from sidecar.errors import ProxyError, Reason
from sidecar.http.message import Request
from sidecar.policy.authorize import Permit
from sidecar.proxy.background import Background
from sidecar.proxy.mirror import MOST, Copy
from sidecar.proxy.route import Route
from sidecar.telemetry.metrics import Counters
from tests.unit.test_virtual_routes import get

ROUTE = cast(Route, SimpleNamespace(cluster=SimpleNamespace(name="outbound|80||mirror.example")))
PermitFor = Callable[[Route], Awaitable[Permit]]


class Place:
    """What a copy needs of the context."""

    def __init__(self) -> None:
        self.mirrors = Background()
        self.telemetry = self
        self.counters = Counters()

    def copy(self, timeout: float = 0.0) -> Copy:
        request: Request = get("web.shop")
        return Copy(cast(Any, self), request, [], timeout)

    @property
    def told(self) -> tuple[int, int, int, int]:
        counters = self.counters
        return counters.mirrors_sent, counters.mirrors_failed, counters.mirrors_dropped, self.mirrors.active.total()


def raising(error: Exception) -> PermitFor:
    async def permit_for(route: Route) -> Permit:
        raise error

    return permit_for


async def forever(route: Route) -> Permit:
    await trio.sleep_forever()
    raise AssertionError


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ProxyError(Reason.BLACK_HOLE, "not allowed"), (0, 0, 1, 0)),
        (RuntimeError("a defect"), (0, 1, 0, 0)),
    ],
)
async def test_a_copy_that_is_not_permitted_is_not_sent_and_fails_no_request(
    error: Exception,
    told: tuple[int, int, int, int],
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.testing.MockClock,
) -> None:
    place = Place()
    async with trio.open_nursery() as nursery:
        await nursery.start(place.mirrors.run)
        place.copy().send(ROUTE, raising(error), b"")
        await trio.sleep(1)
        assert place.told == told
        nursery.cancel_scope.cancel()
    assert ("internal error" in caplog.text) == isinstance(error, RuntimeError)


async def test_a_permit_that_has_to_wait_delays_no_request(autojump_clock: trio.testing.MockClock) -> None:
    """For a name that has to be looked up, for example: ``send`` is no coroutine."""
    place = Place()
    async with trio.open_nursery() as nursery:
        await nursery.start(place.mirrors.run)
        for _ in range(MOST + 1):
            place.copy(timeout=2.0).send(ROUTE, forever, b"")
        assert place.told == (0, 0, 1, MOST)
        await trio.sleep(3)
        assert place.told == (0, MOST, 1, 0)
        place.copy().send(ROUTE, forever, b"")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert not place.mirrors.active, "a copy outlives the proxy"
    place.copy().send(ROUTE, forever, b"")
    assert place.told == (0, MOST, 2, 0)
