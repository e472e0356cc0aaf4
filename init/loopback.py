"""``::6`` on lo, and what else the namespace says of IPv6.

Who calls it: ``init.table``. The sidecar's inbound reaches the app from 127.0.0.6 or ``::6``, so that the app's own
calls to itself can be told from it. All of 127.0.0.0/8 is there anyway; ``::6`` has to be added. An address that was
added here carries a mark of ours (IFA_PROTO, Linux 5.18 and later), and the table's comment remembers it as well, for
kernels that do not keep the mark: ``--cleanup`` takes away only what was added.
"""

from __future__ import annotations

import errno
import socket
from pathlib import Path

from pyroute2.netlink import NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL
from pyroute2.netlink.rtnl import RTM_DELADDR, RTM_GETADDR, RTM_NEWADDR
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg

from init.conversation import Changing, Conversation, Refused

ADDRESS = "::6"
_MARK = 0x5C
_NEVER_CHOSEN = {"ifa_preferred": 0, "ifa_valid": 0xFFFFFFFF, "cstamp": 0, "tstamp": 0}  # as the source of others
_LO = 1
_SYSCTL = Path("/proc/sys/net/ipv6/conf")


def has_ipv6(sysctl: Path = _SYSCTL, addresses: Path = Path("/proc/net/if_inet6")) -> bool:
    """Whether anything in this namespace can speak IPv6: it is not off on lo, or some interface has an address."""
    off = sysctl / "lo" / "disable_ipv6"
    if off.exists() and off.read_text().strip() == "0":
        return True
    return addresses.exists() and bool(addresses.read_text().strip())


class Loopback:
    """The address of lo, over a conversation of the routing protocol. Methods raise Refused."""

    def __init__(self, kernel: Conversation) -> None:
        self._kernel = kernel

    def look(self) -> tuple[bool, bool]:
        """Whether ``::6`` is there, and whether it has our mark."""
        while True:
            try:
                return self._look()
            except Changing:
                continue

    def add(self) -> bool:
        """Adds it; False where it was there."""
        message = _message()
        message["attrs"] += [("IFA_PROTO", _MARK), ("IFA_CACHEINFO", _NEVER_CHOSEN)]
        try:
            self._kernel.ask(message, RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)
        except Refused as error:
            if error.code == errno.EEXIST:
                return False
            raise
        return True

    def remove(self) -> None:
        """Removes it, if it is there."""
        try:
            self._kernel.ask(_message(), RTM_DELADDR, NLM_F_ACK)
        except Refused as error:
            if error.code != errno.EADDRNOTAVAIL:
                raise

    def _look(self) -> tuple[bool, bool]:
        question = ifaddrmsg()
        question["family"] = socket.AF_INET6
        for data in self._kernel.dump(question, RTM_GETADDR):
            found = ifaddrmsg(data)
            found.decode()
            if found["index"] == _LO and found.get_attr("IFA_ADDRESS") == ADDRESS:
                return True, found.get_attr("IFA_PROTO") == _MARK
        return False, False


def _message() -> ifaddrmsg:
    message = ifaddrmsg()
    message["family"], message["index"], message["prefixlen"] = socket.AF_INET6, _LO, 128
    message["attrs"] = [("IFA_LOCAL", ADDRESS), ("IFA_ADDRESS", ADDRESS)]
    return message
