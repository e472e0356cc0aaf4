"""Addresses of this machine, or of this process's network namespace.

Called by ``listener`` (is a destination ours?), ``interception_monitor`` (which addresses can be dialed?) and
``feed.registration`` (where do callers reach us?). The addresses are read from the kernel each time, since they come
and go, in ways that need neither a capability nor a library.
"""

from __future__ import annotations

import array
import errno
import fcntl
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress

from sidecar.errors import ProxyError, Reason

_SIOCGIFCONF = 0x8912
_SIOCGIFFLAGS = 0x8913
_IFREQ = struct.calcsize("16s24s") if struct.calcsize("P") == 8 else struct.calcsize("16s16s")  # netdevice(7)
_MOST = 256  # IPv4 addresses that are read
_UP, _LOOPBACK = 0x1, 0x8
_IF_INET6 = "/proc/net/if_inet6"  # address, index, prefix length, scope, flags, name: all but the last in hexadecimal
_GLOBAL = "00"
_UNUSABLE = 0x08 | 0x40  # IFA_F_DADFAILED, IFA_F_TENTATIVE: nothing can be sent from there
_GONE = {errno.ENODEV, errno.EADDRNOTAVAIL, errno.ENXIO}


def is_local(host: str) -> bool:
    """Return whether this IP literal is an address of this machine: only those can be bound. Costs a few system calls.

    Raises ProxyError if no descriptor is left: the caller must assume neither answer then.
    """
    try:
        probe = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:  # a machine without IPv6 has no such address
            return False
        detail = f"whose address the destination is can't be found out ({os.strerror(error.errno or 0).lower()})"
        raise ProxyError(Reason.CONNECT_FAILED, detail) from None
    with probe:
        try:
            probe.bind((host, 0))
        except OSError as error:
            return error.errno == errno.EADDRINUSE  # ours, and all its ports are taken
    return True


def outward_addresses() -> dict[str, str]:
    """Return one address that is neither loopback nor link-local, for each family that has one: {"ipv4": ...}.

    Raises OSError if the kernel does not answer.
    """
    found = {}
    if (four := next(_every_v4(), None)) is not None:
        found["ipv4"] = four
    if (six := next(_every_v6(), None)) is not None:
        found["ipv6"] = six
    return found


def every_outward_address() -> list[str]:
    """Return all addresses that are neither loopback nor link-local, IPv4 first, each family in the kernel's order.

    Raises OSError if the kernel does not answer.
    """
    return list(dict.fromkeys((*_every_v4(), *_every_v6())))


def _every_v4() -> Iterator[str]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        room = array.array("B", bytes(_IFREQ * _MOST))
        asked = struct.pack("iP", len(room), room.buffer_info()[0])  # struct ifconf
        length = struct.unpack_from("i", fcntl.ioctl(sock, _SIOCGIFCONF, asked))[0]
        for at in range(0, length, _IFREQ):
            name = bytes(room[at : at + 16])
            address = ipaddress.IPv4Address(bytes(room[at + 20 : at + 24]))
            try:
                flags = struct.unpack_from("16xH", fcntl.ioctl(sock, _SIOCGIFFLAGS, name.ljust(40, b"\0")))[0]
            except OSError as error:
                if error.errno not in _GONE:
                    raise
                continue
            if flags & _UP and not flags & _LOOPBACK and not address.is_link_local:
                yield str(address)


def _every_v6() -> Iterator[str]:
    with suppress(FileNotFoundError), open(_IF_INET6, encoding="ascii") as file:
        for line in file:
            digits, _, _, scope, flags, name = line.split()
            if scope == _GLOBAL and name != "lo" and not int(flags, 16) & _UNUSABLE:
                yield socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits))
