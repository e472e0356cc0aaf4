"""The fields of a forwarded request: remove what the caller may not set, add what the proxy vouches for.

A peer that is neither a mesh peer nor a trusted proxy can't report the callers before it. Fields that only the mesh may
set are removed from the requests of every other peer. The app learns a mesh peer's identity from
x-forwarded-client-cert, which only this proxy sets.
"""

from __future__ import annotations

from typing import Final

from sidecar.http import headers
from sidecar.http.headers import Field
from sidecar.http.message import Request
from sidecar.http.streams import ServerStream
from sidecar.proxy.context import ProxyContext
from sidecar.telemetry.record import Record

_FROM_ANYBODY: Final = frozenset({headers.MESH_ONLY, headers.FROM_MESH})
_FROM_PEERS: Final = frozenset({headers.MESH_ONLY})
_FROM_STRANGERS: Final = headers.FORWARDING | _FROM_ANYBODY
_CLAIMS: Final = frozenset({headers.FORWARDED_FOR})
_NOT_FROM_PEERS: Final = _FROM_PEERS | _CLAIMS
_NOT_FROM_TRUSTED: Final = _FROM_ANYBODY | _CLAIMS
_XFCC: Final = b"x-forwarded-client-cert"
_HTTP: Final = (b"x-forwarded-proto", b"http")
_VIA: Final = (b"via", b"1.1 sidecar")
_ID_ONLY: Final = frozenset({headers.REQUEST_ID})
# What is removed and worth recording. Host is rebuilt, not lost.
_TOLD: Final = (headers.HOP_BY_HOP - {headers.HOST}) | _FROM_STRANGERS
_USUALLY_TOLD: Final = frozenset({headers.CONNECTION})
_USUAL: Final = ("connection",)
_SENT_BY_PEERS: Final = frozenset({headers.FROM_MESH})


class HeaderSanitizer:
    """The sanitizer of one direction. ``appends_caller``: requests enter the pod, so their sender is added to
    x-forwarded-for. A request that leaves carries what the app reports about its own callers."""

    def __init__(self, context: ProxyContext, *, appends_caller: bool) -> None:
        self._appends = appends_caller
        self._via = context.via

    def fields(self, stream: ServerStream, request: Request, record: Record) -> list[Field]:
        """Return the fields of ``request`` to forward, with the record's id. The record lists what was removed."""
        known = request.known
        request_id = record.request_id
        told = _TOLD.intersection(known)
        if told == _USUALLY_TOLD:
            record.stripped = _USUAL
        elif told and not (told == _SENT_BY_PEERS and stream.xfcc):
            record.stripped = self._stripped(stream, request)
        if self._appends:
            fields = self._with_caller(stream, request)
        elif _FROM_ANYBODY.isdisjoint(known):
            fields = request.fields[:]
        else:
            fields = headers.without(request.fields, _FROM_ANYBODY)
        if known.get(headers.REQUEST_ID) != request_id:
            if headers.REQUEST_ID in known:
                fields = headers.without(fields, _ID_ONLY)
            fields.append((headers.REQUEST_ID, request_id))
        if self._via:
            fields.append(_VIA)
        return fields

    def _stripped(self, stream: ServerStream, request: Request) -> tuple[str, ...]:
        removed = _FROM_STRANGERS if self._appends and not stream.trusted else _FROM_ANYBODY
        if stream.xfcc:
            removed = _FROM_PEERS
        names = [key for key in request.known if key in headers.HOP_BY_HOP and key != headers.HOST]
        names += [name for name, _ in request.fields if headers.meaning(name) in removed]
        return tuple([name.decode("ascii", "replace") for name in names])

    def _with_caller(self, stream: ServerStream, request: Request) -> list[Field]:
        known = request.known
        if not stream.trusted:
            if _FROM_STRANGERS.isdisjoint(known):
                fields = request.fields[:]
            else:
                fields = headers.without(request.fields, _FROM_STRANGERS)
            fields.append((headers.FORWARDED_FOR, stream.peer_ip))
            fields.append(_HTTP)
            return fields
        before = known.get(headers.FORWARDED_FOR)
        removed = _NOT_FROM_PEERS if stream.xfcc else _NOT_FROM_TRUSTED
        fields = request.fields[:] if removed.isdisjoint(known) else headers.without(request.fields, removed)
        if stream.xfcc:
            fields.append((_XFCC, stream.xfcc))
        fields.append((headers.FORWARDED_FOR, b"%b, %b" % (before, stream.peer_ip) if before else stream.peer_ip))
        if headers.FORWARDED_PROTO not in known:
            fields.append(_HTTP)
        return fields
