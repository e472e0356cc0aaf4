"""The proxy dies, or its rules go: what was captured fails closed, what was left alone goes on, and it is told."""

from __future__ import annotations

from tests.netns.conftest import MakePod
from tests.netns.pod import Pod
from tests.support.upstream import wait_until

REFUSED = 7  # curl: failed to connect
NOTICED = 15.0
FAMILIES = ("v4", "v6")


def test_captured_traffic_fails_closed_and_the_rest_goes_on(make_pod: MakePod) -> None:
    """Excluded by port, by CIDR of each family, or inbound: all go on without the proxy, before, and after it."""
    a, there, excluded = make_pod("a"), make_pod("there"), make_pod("excluded")
    for pod in (there, excluded):
        pod.web(8080)
        pod.web(9090)
    a.web(8080)
    a.web(9090)
    a.init("-o", "9090", "-x", f"{excluded.v4}/32,{excluded.v6}/128", "-d", "9090")

    def goes_on() -> None:
        for family in FAMILIES:
            there.curl(a.url(9090, "/", family))
            a.curl(there.url(9090, "/", family))
            a.curl(excluded.url(8080, "/", family))
            a.curl(a.url(8080, "/", family))

    def captured(code: int) -> None:
        for family in FAMILIES:
            a.curl(there.url(8080, "/", family), code=code)
            there.curl(a.url(8080, "/", family), code=code)

    captured(REFUSED)  # rules first, proxy later, as in a pod that starts
    goes_on()
    a.sidecar()
    captured(0)
    goes_on()
    a.proxy.kill()
    captured(REFUSED)
    goes_on()
    a.sidecar()
    captured(0)
    goes_on()
    a.proxy.stop()


def test_ctl_10_killed_and_started_again(make_pod: MakePod) -> None:
    """CTL-10: killed with SIGKILL and started again, the rules are what they were; a second init changes nothing."""
    a, b = make_pod("a"), make_pod("b")
    b.web(8080)
    a.init()
    a.sidecar()
    a.curl(b.url(8080))
    counted = a.counters()
    a.proxy.kill()
    a.curl(b.url(8080), code=REFUSED)
    assert "were in place already" in a.init()
    assert a.counters().keys() == counted.keys()
    a.curl(b.url(8080), code=REFUSED)
    a.sidecar()
    a.curl(b.url(8080, "/again"))
    assert a.record(path="/again")["original_destination"] == f"{b.v4}:8080"
    a.proxy.kill()
    a.init("--cleanup")
    for family, address in (("v4", a.v4), ("v6", a.v6)):  # no redirect is left: it goes directly
        assert a.curl(b.url(8080, "/", family)).startswith(f"from {address} to ")


def _standing(pod: Pod) -> tuple[int, str]:
    return pod.get("/ready")


def _in_force(pod: Pod) -> set[float]:
    """What the metric says of both families."""
    found = [value for name, value in pod.metrics().items() if name.startswith("sidecar_interception_in_force{")]
    assert len(found) == 2, found
    return set(found)


def test_rules_that_are_removed_behind_its_back(make_pod: MakePod) -> None:
    """By sidecar-init, and by netlink. It looks every ten seconds: so the two pods wait together."""
    pods = [make_pod(way) for way in ("cleanup", "netlink")]
    for pod in pods:
        pod.init()
        pod.sidecar()
        assert _standing(pod) == (200, "LIVE\n")
    cleanup, netlink = pods
    cleanup.init("--cleanup")
    netlink.run(str(netlink.environment.python), "-c", _DELETE)
    for pod in pods:
        wait_until(lambda pod=pod: _standing(pod)[0] == 503, "it says that the rules are gone", NOTICED)  # type: ignore[misc]
        assert _standing(pod)[1].startswith("NOT_INTERCEPTING\n")
        assert "run sidecar-init" in _standing(pod)[1]
        assert _in_force(pod) == {0.0}
        assert pod.proxy.errors.count("run sidecar-init") == 1

    for pod in pods:
        pod.init()
    for pod in pods:
        wait_until(lambda pod=pod: _standing(pod) == (200, "LIVE\n"), "it is ready again", NOTICED)  # type: ignore[misc]
        assert _in_force(pod) == {1.0}
        assert "redirected here again" in pod.proxy.errors
        pod.proxy.stop()


_DELETE = """
from pyroute2.nftables.main import NFTables
with NFTables(nfgen_family=1) as nft:
    nft.table("del", name="sidecar")
"""
