"""What balancing per request costs a caller: ``python -m bench.spread [SECONDS [ROUNDS [ENDPOINTS,...]]]``.

A caller's sidecar on a core of its own, 16 keep-alive clients on the other, and a service of 1, 4 and 100 endpoints in
turn, over mutual TLS. All endpoints are addresses of one sidecar, so only their number changes: each has a pool and
connections of its own at the caller. Told are medians over the rounds: CPU microseconds per request of the caller's
sidecar, its memory, and how many connections to the service are open at the end.
"""

from __future__ import annotations

import contextlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.processes import cores
from tests.support.member import Member
from tests.support.papers import Authority
from tests.support.upstream import RecordingUpstream

CLIENTS = 16
_SERVICE = """services:
- name: web
  namespace: shop
  serviceAccounts: [web]
  ports: [{port: 80, name: http}]
"""
_LUA = """
local number = 0
request = function()
    number = number + 1
    return wrk.format("GET", "http://web.shop/spread/" .. number, {Host = "web.shop"})
end
"""


@contextlib.contextmanager
def _caller(endpoints: int, core: int, app_core: int) -> Iterator[Member]:
    """The sidecar of a caller that knows a service of so many endpoints."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        authority = Authority(directory)
        web, caller = authority.issue("web"), authority.issue("caller")
        app = stack.enter_context(RecordingUpstream(strict=False))
        own = directory / "own.yaml"
        own.write_text(_SERVICE)
        me = ("--namespace", "shop", "--service-account")
        everywhere = ("--inbound", "0.0.0.0:0")
        served = stack.enter_context(Member(app.port, web, "--mesh", str(own), *me, "web", *everywhere))
        os.sched_setaffinity(served.process.pid, {app_core})
        mesh = directory / "mesh.yaml"
        places = "".join(
            f"  - {{address: 127.1.0.{number + 1}, port: {served.inbound}, mode: direct}}\n"
            for number in range(endpoints)
        )
        mesh.write_text(f"{_SERVICE}  endpoints:\n{places}")
        called = stack.enter_context(Member(app.port, caller, "--mesh", str(mesh), *me, "caller"))
        os.sched_setaffinity(called.process.pid, {core})
        yield called


def _cpu(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def _run(endpoints: int, seconds: int) -> tuple[float, float, int]:
    core, other = cores()
    with _caller(endpoints, core, other) as caller, tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_LUA)
        script.flush()
        load = ["taskset", "-c", str(other), "wrk", "-t1", f"-c{CLIENTS}", "-s", script.name]
        url = f"http://127.0.0.1:{caller.outbound}/"
        subprocess.run([*load, "-d1s", url], check=True, capture_output=True)  # connections are made
        before = _cpu(caller.process.pid)
        said = subprocess.run([*load, f"-d{seconds}s", url], check=True, capture_output=True, text=True).stdout
        used = _cpu(caller.process.pid) - before
        found = re.search(r"(\d+) requests in", said)
        assert found is not None, said
        assert "Non-2xx" not in said, said
        rss = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{caller.process.pid}/status").read_text())
        assert rss is not None
        opened = re.search(r"outbound\|http\|\S+::open::(\d+)", caller.admin_get("/clusters")[1])
        assert opened is not None
        return used / int(found[1]) * 1e6, int(rss[1]) / 1024, int(opened[1])


def main() -> None:
    seconds, rounds, counts = 5, 3, [1, 4, 100]
    for number, word in enumerate(sys.argv[1:]):
        if number == 0:
            seconds = int(word)
        elif number == 1:
            rounds = int(word)
        else:
            counts = [int(each) for each in word.split(",")]
    figures: dict[int, list[tuple[float, float, int]]] = {count: [] for count in counts}
    for _ in range(rounds):
        for count in counts:
            figures[count].append(_run(count, seconds))
    print("endpoints  us/request  MB     connections")
    for count, runs in figures.items():
        cpu, rss, opened = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"{count:<10} {cpu:<11.1f} {rss:<6.1f} {opened:.0f}")


if __name__ == "__main__":
    main()
