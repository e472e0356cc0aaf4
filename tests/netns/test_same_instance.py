"""Two sidecars that run under one ``--instance``, as when a Deployment sets it for all of its replicas: both serve, and
when either is killed the other one goes on.

Callers pass over an endpoint that can't be reached within the call, so no call fails. The registry drops the dead one
when its time to live is over (15 s), once the other has been heard for 30 s (``control.registry.liveness``).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from sidecar.feed.registration import TTL
from tests.netns.conftest import MakePod
from tests.netns.plane import Plane, document
from tests.netns.pod import Pod
from tests.support.upstream import wait_until

APP, CALLS = 8080, 12
DROPPED_SECONDS = 30.0 + 2 * TTL  # until the other has been heard for long enough, and the dead one's time is over
FLAGS = ("--instance", "twin-1")


@dataclass(frozen=True, slots=True)
class Twins:
    plane: Plane
    web: Pod
    first: Pod
    second: Pod


@pytest.fixture(scope="module")
def twins(keep_pod: MakePod) -> Iterator[Twins]:
    made = Twins(Plane(keep_pod("control")), *(keep_pod(name) for name in ("web", "first", "second")))
    ports = [{"port": 80, "name": "http", "targetPort": APP}]
    made.plane.apply(document("Service", "twin", {"ports": ports, "serviceAccounts": ["twin"]}))
    made.plane.join(made.web, "web")
    for pod in (made.first, made.second):
        pod.web(APP)
        made.plane.join(pod, "twin", *FLAGS)
    _wait_registered(made, made.first, made.second)
    yield made
    for pod in (made.web, made.first, made.second):
        pod.proxy.stop()


def _wait_registered(twins: Twins, *pods: Pod) -> None:
    """Until these are there, and callers know it."""

    def there() -> bool:
        return sorted(each["address"] for each in twins.plane.endpoints("twin")) == sorted(pod.v4 for pod in pods)

    def known() -> bool:
        services = json.loads(twins.web.get("/config_dump")[1])["mesh"]["snapshot"]["services"]
        (port,) = [each for one in services if one["name"] == "twin" for each in one["ports"]]
        return sorted(each["address"] for each in port["endpoints"]) == sorted(pod.v4 for pod in pods)

    wait_until(there, f"endpoints are {[pod.name for pod in pods]}", DROPPED_SECONDS)
    wait_until(known, "the caller has them in its Snapshot")


def _answers(twins: Twins, count: int = CALLS) -> Counter[str]:
    """Which pods answer so many calls, each on a connection of its own; none may fail."""
    found: Counter[str] = Counter()
    for number in range(count):
        answer = twins.web.curl("--fail", f"http://twin.shop/{number}")
        found[answer.rpartition(" to ")[2].split(" ")[0]] += 1
    return found


def test_both_serve_under_one_name(twins: Twins) -> None:
    assert [each["id"] for each in twins.plane.endpoints("twin")] == ["twin-1", "twin-1"]
    assert len({each["address"] for each in twins.plane.endpoints("twin")}) == 2


@pytest.mark.parametrize("which", ["first", "second"])
def test_when_one_is_killed_calls_go_on_and_it_is_dropped(twins: Twins, which: str) -> None:
    dies, lives = (twins.first, twins.second) if which == "first" else (twins.second, twins.first)
    dies.proxy.kill()
    assert _answers(twins) == {lives.v4: CALLS}
    _wait_registered(twins, lives)
    assert _answers(twins) == {lives.v4: CALLS}
    twins.plane.sidecar(dies, "twin", *FLAGS)
    _wait_registered(twins, twins.first, twins.second)


def test_one_that_is_started_again_in_its_place_is_one_endpoint_at_once(twins: Twins) -> None:
    twins.first.proxy.kill()
    twins.plane.sidecar(twins.first, "twin", *FLAGS)
    wait_until(lambda: f"shop/twin at {twins.first.v4}" in twins.first.proxy.errors, "it has registered")
    assert sorted(each["address"] for each in twins.plane.endpoints("twin")) == sorted(
        [twins.first.v4, twins.second.v4]
    )
    assert set(_answers(twins)) <= {twins.first.v4, twins.second.v4}
