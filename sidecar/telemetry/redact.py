"""Request targets as they may be shown: without what could be a secret in them.

Called by the admin server for whatever it shows of a record. The access log keeps the whole target, as Envoy's does:
it is a file of the operator's, with a mode of its own; what a port answers is read by more eyes. Pure.

A query keeps the names of its parameters and loses their values; a part without a name is itself a value. So do path
parameters (``;jsessionid=...``), and what stands before "@" in an absolute form's authority.
"""

from __future__ import annotations

import re
from typing import Final

HIDDEN: Final = b"***"
_PATH_PARAMETER: Final = re.compile(rb";([^/;?=]*)=?[^/;?]*")
_QUERY_PART: Final = re.compile(rb"[^&;]+")  # some apps take either for the end of a value
_USERINFO: Final = re.compile(rb"(?<=://)[^/?#@]*@")


def target(sent: bytes) -> bytes:
    """A request target, in any of its forms, without values that it carries."""
    path, mark, query = sent.partition(b"?")
    if b";" in path:
        path = _PATH_PARAMETER.sub(rb";\1=" + HIDDEN, path)
    if b"@" in path and b"://" in path:
        path = _USERINFO.sub(HIDDEN + b"@", path)
    return path + mark + _QUERY_PART.sub(_hide, query)


def _hide(part: re.Match[bytes]) -> bytes:
    name, equals, value = part[0].partition(b"=")
    if not equals:
        return HIDDEN
    return name + equals + (HIDDEN if value else b"")
