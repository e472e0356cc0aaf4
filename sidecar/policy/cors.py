"""Cross-origin requests: which fields a response gets, and the answer to a preflight, by a rule's ``corsPolicy``. Pure.

Called by ``proxy.routed_request``. The browser enforces; the proxy only tells it what is allowed. A request from an
origin that is not allowed goes on without these fields, as in Envoy's ``cors`` filter, and the browser keeps its answer
from the page.

Sources: the Fetch standard, "CORS protocol"; Istio's reference of CorsPolicy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from sidecar.durations import duration
from sidecar.http.headers import Field
from sidecar.http.message import LocalReply
from sidecar.policy.string_match import compile_string
from sidecar.resources.virtual_service import CorsPolicy

_ORIGIN: Final = b"origin"
_WANTED: Final = b"access-control-request-method"
_ASKED: Final = b"access-control-request-headers"
_ALLOWED: Final = b"access-control-allow-origin"
_HEADERS: Final = b"access-control-allow-headers"


class Cors(msgspec.Struct, frozen=True, gc=False):
    """``preflight`` are the fields of an answer to a preflight beside the origin, ``exposed`` one more of it and of
    other answers. ``allows`` None: any origin. ``echoes``: the fields that a preflight asks for are allowed.
    ``answers_unmatched``: a preflight of an origin that is not allowed is answered, not forwarded."""

    allows: tuple[Callable[[bytes], bool], ...] | None
    credentials: tuple[Field, ...]
    preflight: tuple[Field, ...]
    exposed: tuple[Field, ...]
    echoes: bool
    answers_unmatched: bool

    def reply(self, method: bytes, fields: Sequence[Field]) -> LocalReply | None:
        """Return the answer to a preflight, or None for a request that goes on."""
        if method != b"OPTIONS":
            return None
        origin = _value(fields, _ORIGIN)
        if not origin or not _value(fields, _WANTED):
            return None
        told = [*self.credentials, *self.preflight]
        asked = _value(fields, _ASKED)
        if self.echoes and asked:
            told.append((_HEADERS, asked))
        if self._allowed(origin):
            return LocalReply(200, [(_ALLOWED, origin), *told, *self.exposed], b"")
        return LocalReply(200, told, b"") if self.answers_unmatched else None

    def fields_for(self, fields: Sequence[Field]) -> tuple[Field, ...]:
        """Return the fields that the answer to a request with ``fields`` gets; none if its origin is not allowed."""
        origin = _value(fields, _ORIGIN)
        if not origin or not self._allowed(origin):
            return ()
        return ((_ALLOWED, origin), *self.credentials, *self.exposed)

    def _allowed(self, origin: bytes) -> bool:
        return self.allows is None or any(allows(origin) for allows in self.allows)


def compile_cors(spec: CorsPolicy) -> Cors:
    """Return what a policy allows."""
    echoes = bool(spec.allow_credentials) and spec.allow_headers == ["*"]  # browsers take no "*" with credentials
    preflight: list[Field] = []
    if spec.allow_methods:
        preflight.append((b"access-control-allow-methods", _joined(spec.allow_methods)))
    if spec.allow_headers and not echoes:
        preflight.append((_HEADERS, _joined(spec.allow_headers)))
    if spec.max_age:
        preflight.append((b"access-control-max-age", b"%d" % int(duration(spec.max_age))))
    exposed = [(b"access-control-expose-headers", _joined(spec.expose_headers))] if spec.expose_headers else []
    anywhere = any(each.exact == "*" for each in spec.allow_origins)
    return Cors(
        None if anywhere else tuple([compile_string(each) for each in spec.allow_origins]),
        ((b"access-control-allow-credentials", b"true"),) if spec.allow_credentials else (),
        tuple(preflight),
        tuple(exposed),
        echoes,
        spec.unmatched_preflights == "IGNORE",
    )


def _joined(values: Sequence[str]) -> bytes:
    return ",".join(values).encode("utf-8", "surrogatepass")


def _value(fields: Sequence[Field], name: bytes) -> bytes:
    for each, value in fields:
        if each.lower() == name:
            return value
    return b""
