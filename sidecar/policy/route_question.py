"""One request, as the conditions of routes read it. Pure.

Made by the proxy for each request that a route is looked up for, and by ``/explain``. The query and the names of the
fields are parsed only when a condition asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from sidecar.http.headers import HOST

AUTHORITY: Final = b":authority"
METHOD: Final = b":method"
PATH: Final = b":path"
SCHEME: Final = b":scheme"
_NONE: Final[Mapping[bytes, list[bytes]]] = {}


class RouteQuestion(msgspec.Struct, gc=False):
    """A request that wants a route.

    ``target`` is the path and the query as they are forwarded, ``authority`` the one that was sent, ``fields`` those to
    forward, with names in any case, ``port`` the one that the request was sent to. None of it may change later.
    """

    method: bytes
    target: bytes
    authority: bytes
    fields: Sequence[tuple[bytes, bytes]]
    port: int
    scheme: bytes = b"http"
    repeated: Mapping[bytes, list[bytes]] = _NONE  # values of fields that were sent more than once; set by `headers`
    _path: bytes | None = None
    _headers: dict[bytes, bytes] | None = None
    _params: dict[bytes, bytes] | None = None

    def path(self) -> bytes:
        """Return the path without the query."""
        found = self._path
        if found is None:
            found = self._path = self.target.partition(b"?")[0]
        return found

    def headers(self) -> dict[bytes, bytes]:
        """Return the fields by their names in lower case. ``repeated`` has all values of those with several."""
        found = self._headers
        if found is None:
            found = self._headers = {name.lower(): value for name, value in self.fields}
            if len(found) != len(self.fields):
                self.repeated = self._all_values()
        return found

    def _all_values(self) -> dict[bytes, list[bytes]]:
        values: dict[bytes, list[bytes]] = {}
        for name, value in self.fields:
            values.setdefault(name.lower(), []).append(value)
        return {name: several for name, several in values.items() if len(several) > 1}

    def params(self) -> dict[bytes, bytes]:
        """Return the parameters of the query as they were sent, nothing decoded; of several values the first."""
        found = self._params
        if found is None:
            found = self._params = {}
            query = self.target.partition(b"?")[2]
            for pair in query.split(b"&") if query else ():
                name, _, value = pair.partition(b"=")
                found.setdefault(name, value)
        return found

    def values(self, name: bytes) -> Sequence[bytes]:
        """Return all values of a field, by its name in lower case, or the one of a pseudo-header. Host is one, too."""
        pseudo = PSEUDO.get(name)
        if pseudo is not None:
            return (pseudo(self),)
        found = self.headers().get(name)
        return () if found is None else self.repeated.get(name) or (found,)


PSEUDO: Final[Mapping[bytes, Callable[[RouteQuestion], bytes]]] = {
    AUTHORITY: lambda question: question.authority,
    HOST: lambda question: question.authority,
    METHOD: lambda question: question.method,
    PATH: lambda question: question.target,
    SCHEME: lambda question: question.scheme,
}
