"""What a record says of interception: its cluster, and whether the request named where it was sent.

Read by ``accesslog`` and ``explain`` and by ``/requests``. Pure. Names are Istio's.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from sidecar.addresses import parse_host_port, parse_ip
from sidecar.errors import Reason
from sidecar.telemetry.record import Record
from sidecar.wire.head import authority_parts

PASSTHROUGH: Final = "PassthroughCluster"
BLACK_HOLE: Final = "BlackHoleCluster"
_HTTP_PORT: Final = 80
_SHORT: Final = 300  # a name has 253 characters; what is longer is not worth a place in the memo


def original(record: Record) -> str:
    """Where the connection wanted to go; empty where it was not captured."""
    return record.origin.original if record.origin is not None else ""


def cluster(record: Record) -> str:
    """Where what the app sends went, or would have gone; the app's own port for what it was sent. Empty where neither
    is known."""
    if record.direction == "inbound":
        where = original(record) or record.upstream
        return f"inbound|{where.rpartition(':')[2]}||" if where else ""
    if record.reason is Reason.BLACK_HOLE:
        return BLACK_HOLE
    return PASSTHROUGH if record.upstream else ""


def difference(record: Record) -> str:
    """Where a captured request names another place than its connection was made to, in a sentence; else empty.

    What is compared is what needs no look-up: an address, and the port.
    """
    where, authority = original(record), record.authority
    if not where or not authority:
        return ""
    return _seen(where, authority) if len(authority) <= _SHORT else _difference(where, authority)


def _difference(where: str, authority: bytes) -> str:
    wanted = parse_host_port(where)
    try:
        host, port = authority_parts(authority)
    except ValueError:  # a head that was refused may have any authority
        return ""
    address = parse_ip(host)
    if address is not None and address != wanted.ip:
        return f"the request names another address than {where}, where its connection was made to"
    if (port or _HTTP_PORT) != wanted.port:
        return f"the request names port {port or _HTTP_PORT}, and its connection was made to {where}"
    return ""


# Reading addresses costs as much as half of a request, and most requests name what the last ones did.
_seen = lru_cache(maxsize=512)(_difference)
