"""The cables of the test bed: a bridge, and a veth pair with addresses for each pod. A program, run once per bed.

A line of JSON on standard input is one order, a line on standard output its answer: ``{}``, or ``{"error": ...}``. It
goes into one namespace after the other itself, so it is a process of its own with a single thread; the test process,
with its threads and loops, never leaves its namespace. It ends when its standard input does.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netns import setns

BRIDGE = "bridge"
_NO_DAD = 0x02  # IFA_F_NODAD: an address can be used at once, nobody else has it here


@contextmanager
def _inside(pid: int) -> Iterator[IPRoute]:
    """Netlink of the namespace that this process is in."""
    setns(f"/proc/{pid}/ns/net")
    with IPRoute() as netlink:
        yield netlink


def _index(netlink: IPRoute, name: str) -> int:
    return int(netlink.link_lookup(ifname=name)[0])


def switch(order: dict[str, Any]) -> None:
    """A bridge in the namespace of ``switch``; it learns nothing about multicast, and so delays nothing."""
    with _inside(order["switch"]) as netlink:
        netlink.link("add", ifname=BRIDGE, kind="bridge", br_mcast_snooping=0)
        netlink.link("set", index=_index(netlink, BRIDGE), state="up")


def pod(order: dict[str, Any]) -> None:
    """eth0 in the namespace of ``pod``, plugged into the bridge of ``switch`` under ``port``."""
    with _inside(order["switch"]) as netlink:
        netlink.link(
            "add", ifname=order["port"], kind="veth", master=_index(netlink, BRIDGE),
            peer={"ifname": "eth0", "net_ns_pid": order["pod"]},
        )  # fmt: skip
        netlink.link("set", index=_index(netlink, order["port"]), state="up")
    with _inside(order["pod"]) as netlink:
        eth0 = _index(netlink, "eth0")
        netlink.link("set", index=_index(netlink, "lo"), state="up")
        netlink.addr("add", index=eth0, address=order["v4"], prefixlen=16)
        netlink.addr("add", index=eth0, address=order["v6"], prefixlen=64, flags=_NO_DAD)
        netlink.link("set", index=eth0, state="up")
        # As in a cluster, the rest of the world lies behind a gateway; here nobody is there.
        netlink.route("add", dst="0.0.0.0/0", gateway="10.77.255.254")
        netlink.route("add", dst="::/0", gateway="fd77::ffff", family=socket.AF_INET6)


def plug(order: dict[str, Any]) -> None:
    """The cable of ``port``, in or out; out, whatever is sent there is lost, and nobody is told."""
    with _inside(order["switch"]) as netlink:
        netlink.link("set", index=_index(netlink, order["port"]), state="up" if order["plugged"] else "down")


def main() -> None:
    orders = {"switch": switch, "pod": pod, "plug": plug}
    for line in sys.stdin:
        order = json.loads(line)
        try:
            orders[order["order"]](order)
        except Exception as error:  # whatever it is, the test process is the one to know it
            print(json.dumps({"error": f"{order}: {error!r}"}), flush=True)
        else:
            print("{}", flush=True)


if __name__ == "__main__":
    main()
