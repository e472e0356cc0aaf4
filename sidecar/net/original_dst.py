"""The original destination of a connection that the kernel's rules redirected here.

Called once per accepted connection, by ``proxy.original_destination``. The kernel keeps the destination with the
connection's entry in the connection tracker (netfilter's SO_ORIGINAL_DST), with a separate option for each family.
"""

from __future__ import annotations

import errno
import socket
import struct

from sidecar.addresses import OriginalDst

SO_ORIGINAL_DST = 80  # linux/netfilter_ipv4.h; IP6T_SO_ORIGINAL_DST in linux/netfilter_ipv6/ip6_tables.h is the same
_UNKNOWN = {
    errno.ENOENT,  # the tracker has no such connection
    errno.ENOPROTOOPT,  # the kernel has no tracker loaded
    errno.EOPNOTSUPP,
    errno.ENOTCONN,
    errno.EINVAL,  # reset before this call
}


def original_dst(sock: socket.socket) -> OriginalDst | None:
    """Return the original destination of ``sock``, or None if the connection was not redirected. It was not if the
    kernel returns the address that it arrived at. Raises OSError for an error that no connection should cause."""
    try:
        found = _v6(sock) if sock.family == socket.AF_INET6 else _v4(sock)
        host, port = sock.getsockname()[:2]
    except OSError as error:
        if error.errno in _UNKNOWN:
            return None
        raise
    return None if found.port == port and found.host == host else found


def _v4(sock: socket.socket) -> OriginalDst:
    """Read a struct sockaddr_in."""
    answer = sock.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
    port, address = struct.unpack_from("!2xH4s", answer)
    return OriginalDst(socket.inet_ntop(socket.AF_INET, address), port)


def _v6(sock: socket.socket) -> OriginalDst:
    """Read a struct sockaddr_in6. A link-local address loses its link, and so leads nowhere."""
    answer = sock.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, 28)
    port, address = struct.unpack_from("!2xH4x16s", answer)
    return OriginalDst(socket.inet_ntop(socket.AF_INET6, address), port)
