"""A real control plane, dozens of services and proxies that wait: the short form of ``bench.registry``."""

from __future__ import annotations

import random

import trio

from bench.churn import NEEDED, Size, measure
from sidecar.addresses import Address
from tests.support.control_process import ControlProcess


def test_each_change_reaches_those_that_need_it_and_nobody_else() -> None:
    size = Size(services=50, endpoints=4, proxies=20, changes=20, apart=0.05)
    with ControlProcess(3600.0) as control:
        operator = (control.directory / "ca" / "operator-token").read_text().strip()
        address = Address("127.0.0.1", control.port)
        found = trio.run(measure, address, operator, control.process.pid, size, random.Random(7))
        shown = control.ask("GET", "/v1/proxies?namespace=edge-3")["proxies"]
    assert found.missing == 0 and len(found.delays) >= size.changes
    assert found.strangers == 0, "a proxy was told of what it does not need"
    assert found.holds == (NEEDED, NEEDED)
    assert [(each["instance"], each["state"], each["software"]) for each in shown] == [("p3", "in sync", "simulated")]
