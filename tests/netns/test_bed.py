"""The bed itself: pods see each other and nothing else, run as whom they should, and leave nothing."""

from __future__ import annotations

import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.netns.bed import Bed, remove_stale
from tests.netns.conftest import MakePod
from tests.netns.environment import PROXY_ID, ROOT
from tests.support.upstream import wait_until

_KILLED = """
import os, sys
from tests.netns.bed import Bed
with Bed() as bed:
    pod = bed.pod("left")
    app = pod.web(8080)
    print(pod.pid, app.pid, bed.directory, flush=True)
    sys.stdin.read()
"""


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("family", ["v4", "v6"])
def test_pods_reach_each_other(make_pod: MakePod, family: str) -> None:
    a, b = make_pod("a"), make_pod("b")
    b.web(8080)
    here, there = getattr(a, family), getattr(b, family)
    assert a.curl(b.url(8080, "/x", family)) == f"from {here} to {there} 8080 /x\n"


@pytest.mark.alone
def test_a_pod_is_made_fast(make_pod: MakePod) -> None:
    """Beside the start of a Python in a network namespace of its own, which is about what it needs."""
    pods, starts = [], []
    for number in range(4):
        began = time.monotonic()
        subprocess.run(["unshare", "--net", sys.executable, "-IS", "-c", "pass"], check=True)
        starts.append(time.monotonic() - began)
        began = time.monotonic()
        make_pod(f"quick-{number}")
        pods.append(time.monotonic() - began)
    assert statistics.median(pods) < 8 * statistics.median(starts), f"{pods} beside {starts}"


def test_the_proxy_can_do_nothing(make_pod: MakePod) -> None:
    pod = make_pod("a")
    status = pod.run("cat", "/proc/self/status", uid=PROXY_ID).splitlines()
    found = dict(line.split(":\t") for line in status if line.startswith(("Uid", "Gid", "Cap", "NoNewPrivs")))
    ids = "\t".join([str(PROXY_ID)] * 4)
    capabilities = dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), "0" * 16)
    assert found == {"Uid": ids, "Gid": ids, "NoNewPrivs": "1"} | capabilities
    pod.run(str(pod.environment.python), "-c", "import sidecar.app, trio", uid=PROXY_ID)


def test_a_test_can_be_the_app(make_pod: MakePod) -> None:
    a, b = make_pod("a"), make_pod("b")
    with b.listen(9000, host="::") as listener, a.connect(b.v6, 9000) as client:
        server, address = listener.accept()
        with server:
            assert address[0] == a.v6
            client.sendall(b"x")
            assert server.recv(1) == b"x"


def test_a_pod_has_its_own_resolvers(make_pod: MakePod) -> None:
    a, b = make_pod("a"), make_pod("b")
    a.resolvers("10.77.0.53", search="one.example two.example")
    assert a.run("cat", "/etc/resolv.conf") == "nameserver 10.77.0.53\nsearch one.example two.example\n"
    assert b.run("cat", "/etc/resolv.conf") == ""


def test_a_removed_pod_is_gone(bed: Bed) -> None:
    pod = bed.pod("short")
    app = pod.web(8080)
    with pod.connect("127.0.0.1", 8080):
        bed.remove(pod)
    assert not _alive(app.pid) and not _alive(pod.pid)
    assert not pod.directory.exists()


def test_a_killed_run_leaves_nothing() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _KILLED], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        holder, app, directory = run.stdout.readline().split()
        os.kill(run.pid, signal.SIGKILL)
    wait_until(lambda: not _alive(int(holder)) and not _alive(int(app)), "everything in the pod ends")
    remove_stale()
    assert not Path(directory).exists()


def test_nothing_is_in_our_own_namespace(make_pod: MakePod) -> None:
    before = socket.if_nameindex()
    make_pod("a")
    assert socket.if_nameindex() == before
