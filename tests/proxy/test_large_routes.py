"""Ten thousand routes are applied, and replaced, while requests are served: for how long that holds the loop."""

from __future__ import annotations

import gc
from contextlib import ExitStack
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from bench import routes
from sidecar.app import GC_ALLOCATIONS
from sidecar.feed.leaving import Leaving, parts_of
from sidecar.feed.policy_rules import with_rules
from sidecar.feed.time_slicer import MUCH, TimeSlicer, at_once, drive
from sidecar.resources.incremental_compile import compile_slices
from sidecar.resources.snapshot import Node, Snapshot
from tests.proxy.fickle import EPOCH
from tests.proxy.following import mesh
from tests.proxy.test_large_snapshots import SLICE, Load, held, is_held
from tests.support.planethread import PlaneThread
from tests.support.process import SidecarProcess
from tests.support.upstream import RecordingUpstream, wait_until
from tests.support.yardstick import slowness

ALL = 1.5  # s of the loop's CPU, in all
HOST = "s0.shop.svc.cluster.local"
MANY = 10_000


def documents(shape: str, count: int = MANY) -> dict[str, Any]:
    """So many routes: ten of each of many VirtualServices, or all in one."""
    found = routes.documents(count, HOST, "shop")
    if shape == "one":
        rules = [
            {
                "match": [{"uri": {"prefix": f"/section-{number}/"}, "headers": {"x-a": {"exact": f"{number % 7}"}}}],
                "route": [{"destination": {"host": HOST}}],
                "retries": {"attempts": 2, "retryOn": "503"},
            }
            for number in range(count)
        ]
        found["virtualServices"] = [{"name": "all", "namespace": "shop", "hosts": [HOST], "http": rules}]
    return found


@pytest.mark.alone
@pytest.mark.parametrize("shape", ["many", "one"])
def test_ten_thousand_routes_under_load(shape: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = documents(shape)
    factor = slowness()
    with (
        PlaneThread() as control,
        RecordingUpstream(mesh=True) as app,
        SidecarProcess(app.port, *control.flags, "--mtls", "permissive") as sidecar,
        ExitStack() as stack,
    ):
        control.send(f"{EPOCH}.1", mesh(1, "s0"))  # before the first one nothing is served
        wait_until(partial(is_held, sidecar, f"{EPOCH}.1"), "the first version is in force", 60)
        load = stack.enter_context(Load(sidecar.inbound))
        figures = []
        for n in range(2, 5):
            control.send(f"{EPOCH}.{n}", mesh(n, "s0", **told))
            wait_until(partial(is_held, sidecar, f"{EPOCH}.{n}"), f"version {n} is in force", 60)
            slices = held(sidecar)["slices"]
            figures.append((slices["last_snapshot_seconds"], slices["longest_seconds"]))
            wait_until(partial(load.is_beyond, len(load.answered)), "requests are served")
    with capsys.disabled():
        shown = ", ".join(f"{total * 1e3:.0f} ms in all" for total, _ in figures)
        print(f"\n{shape}: {shown}; at most {figures[-1][1] * 1e3:.2f} ms at a time ({factor:.2g})")
    assert all(total <= ALL * factor for total, _ in figures)
    assert figures[-1][1] <= SLICE * factor
    assert set(load.answered) == {200}


def compiled(shape: str, count: int) -> Snapshot:
    body = mesh(1, "s0", **documents(shape, count))
    found = at_once(with_rules(compile_slices(body, Node("shop", service_account="billing"), "control"))).snapshot
    assert found is not None
    return found


class Part:
    """Something that notes when it is freed."""

    def __init__(self, freed: list[int], number: int) -> None:
        self._freed, self._number = freed, number

    def __del__(self) -> None:
        self._freed.append(self._number)


async def test_the_parts_of_a_snapshot_are_freed_in_slices_once_nothing_uses_it() -> None:
    freed: list[int] = []
    slices = TimeSlicer()
    leaving = Leaving(slices)
    snapshot = compiled("many", 10)
    leaving.hold(snapshot, [Part(freed, number) for number in range(100)])
    async with trio.open_nursery() as nursery:
        nursery.start_soon(leaving.run)
        await wait_all_tasks_blocked()
        assert not freed and not slices.count
        del snapshot
        await wait_all_tasks_blocked(0.1)
        assert sorted(freed) == list(range(100)) and slices.count
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("shape", ["many", "one"])
def test_nothing_large_goes_with_a_snapshot_whose_parts_are_held(shape: str) -> None:
    """What is held is nearly all: who lets go of the Snapshot frees no more than a few objects for each route."""
    gc.collect()
    snapshot = compiled(shape, 2000)
    parts = parts_of(snapshot)
    with_all = len(gc.get_objects())
    del snapshot
    freed = with_all - len(gc.get_objects())
    parts.clear()
    whole = with_all - len(gc.get_objects())
    assert whole > 10 * freed, f"{freed} of {whole} objects go at once"


async def test_the_collector_forgets_what_a_large_work_has_made() -> None:
    """It would look at all of that in one go the next time."""
    thresholds = gc.get_threshold()
    for size, forgets in ((MUCH // 20, False), (3 * MUCH, True)):
        slices, before = TimeSlicer(), gc.get_freeze_count()
        slices.begin()
        made: list[list[int]] = []

        def work(size: int = size, made: list[list[int]] = made) -> Any:
            for number in range(size):
                made.append([number])
                if not number % 100:
                    yield

        gc.set_threshold(GC_ALLOCATIONS, 20, 20)
        try:
            await drive(work(), slices, gently=False)
            slices.settle()
            assert (gc.get_freeze_count() - before >= size) is forgets
        finally:
            gc.unfreeze()
            gc.set_threshold(*thresholds)
