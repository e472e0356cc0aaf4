"""Ten thousand connections through two captured pods, at most a thousand at once; then all is as it was."""

from __future__ import annotations

from tests.netns.conftest import MakePod
from tests.netns.pod import Pod
from tests.support.upstream import wait_until

TOTAL, AT_ONCE = 10_000, 1_000
SECONDS = 90


def _held(pod: Pod) -> dict[str, float]:
    """What the proxy holds: connections of its clients, connections to upstreams."""
    names = ("sidecar_connections_open", "sidecar_pool_open_connections")
    return {name: value for name, value in pod.metrics().items() if name.startswith(names)}


def _wait_for_descriptors(pod: Pod, before: int) -> None:
    wait_until(lambda: pod.proxy.descriptors() <= before, f"{pod.name}: no more than {before} descriptors", 15)


def test_ten_thousand_connections_leave_nothing(make_pod: MakePod) -> None:
    a, b = make_pod("a"), make_pod("b")
    b.web(8080)
    for pod in (a, b):
        pod.init()
        pod.sidecar("--pool-idle-timeout", "1s")
    a.curl(b.url(8080, "/first"))  # what is imported and opened once, is now
    wait_until(lambda: sum(_held(a).values()) + sum(_held(b).values()) <= 2, "only the questions are open")
    before = {pod.name: pod.proxy.descriptors() for pod in (a, b)}

    crowd = a.start("crowd", *a.environment.inside("crowd"), b.v4, "8080", str(TOTAL), str(AT_ONCE))
    assert crowd.wait(SECONDS) == 0
    assert crowd.output.splitlines() == [f"answered {TOTAL} open {AT_ONCE}"]

    for pod, direction in ((a, "outbound"), (b, "inbound")):
        _wait_for_descriptors(pod, before[pod.name])
        seen = [record for record in pod.records() if record["path"] == "/crowd"]
        assert len(seen) == TOTAL
        assert {record["direction"] for record in seen} == {direction}
        assert {record["original_destination"] for record in seen} == {f"{b.v4}:8080"}
        pod.proxy.stop()
