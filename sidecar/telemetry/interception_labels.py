"""What a record says of interception: its cluster, and whether the request named where it was sent.

Read by ``access_log`` and ``explain`` and by ``/requests``. Pure. Names are Istio's.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from sidecar.addresses import parse_host_port, parse_ip
from sidecar.errors import Reason
from sidecar.http.authority import authority_parts
from sidecar.telemetry.record import Record

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
    if record.cluster:
        return record.cluster
    reached = original(record) or record.upstream if record.direction == "inbound" else record.upstream
    return _cluster(record.direction, reached, record.reason is Reason.BLACK_HOLE)


def _cluster(direction: str, reached: str, refused: bool) -> str:
    if direction == "inbound":
        return f"inbound|{reached.rpartition(':')[2]}||" if reached else ""
    if refused:
        return BLACK_HOLE
    return PASSTHROUGH if reached else ""


def difference(record: Record) -> str:
    """Where a captured request names another place than its connection was made to, in a sentence; else empty.

    What is compared is what needs no look-up: an address, and the port.
    """
    where, authority = original(record), record.authority
    if not where or not authority:
        return ""
    return _difference(where, authority)


def ending(record: Record, form: str) -> bytes:
    """What the access log says of it at the end of a line, in ``form``: original destination, cluster, difference."""
    authority = record.authority
    refused = record.reason is Reason.BLACK_HOLE
    where = original(record)
    reached = where or record.upstream
    if record.direction == "outbound":
        reached = "somewhere" if record.upstream else ""  # where exactly makes no other cluster
    worked_out = _ending if len(authority) <= _SHORT else _ending.__wrapped__
    return worked_out(form, record.direction, where, reached, refused, authority, record.cluster)


@lru_cache(maxsize=512)
def _ending(
    form: str, direction: str, where: str, reached: str, refused: bool, authority: bytes, service: str
) -> bytes:
    """Nearly all requests end as the last ones did, and reading addresses costs as much as half of a request."""
    named = (service or _cluster(direction, reached, refused)).encode()
    differs = bool(where and authority and _difference(where, authority))
    if form == "text":
        return b' "%b" %b %b\n' % (where.encode() or b"-", named or b"-", b"authority_differs" if differs else b"-")
    return b',"original_destination":%b,"upstream_cluster":%b,"authority_differs":%b}\n' % (
        b'"%b"' % where.encode() if where else b"null",
        b'"%b"' % named if named else b"null",
        b"true" if differs else b"false",
    )


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
