"""A support bundle: what a proxy shows of itself, without what may be secret, in one archive. Pure.

Who calls it: ``sidecarctl support-bundle``. The admin port shows no secret; this is the second look, since a bundle
leaves the house: values that callers chose freely are taken out (user agents, forwarded addresses), and whatever has
the form of a credential is replaced wherever it stands.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
from collections.abc import Mapping
from typing import Any, Final

PARTS: Final = {
    "server_info.json": "/server_info",
    "config_dump.json": "/config_dump",
    "certs.json": "/certs",
    "stats.txt": "/stats",
    "memory.json": "/memory",
    "listeners.txt": "/listeners",
    "clusters.txt": "/clusters",
    "ready.txt": "/ready",
    "requests.json": "/requests?limit=1000&format=json",
}
HIDDEN: Final = "***"
_FREE: Final = ("user_agent", "x_forwarded_for")  # of a request: what a caller wrote there
_CREDENTIALS: Final = re.compile(
    rb"sct1\.[A-Za-z0-9_.-]+"  # our tokens
    rb"|eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*"  # JWT
    rb"|-----BEGIN [A-Z ]*PRIVATE KEY-----(?:[^-]|-(?!----))*(?:-----END [A-Z ]*PRIVATE KEY-----)?"
    rb"|(?i:bearer|basic)[ +][A-Za-z0-9_.~+/=-]{8,}"
)


def clean(name: str, body: bytes) -> bytes:
    """A part as it goes into the archive."""
    if name == "requests.json":
        body = _without_free(body)
    return _CREDENTIALS.sub(HIDDEN.encode(), body)


def _without_free(body: bytes) -> bytes:
    try:
        rows: Any = json.loads(body)
    except ValueError:
        return b"[]"
    shown = [
        {key: HIDDEN if key in _FREE and value else value for key, value in row.items()}
        for row in (rows if isinstance(rows, list) else [])
        if isinstance(row, dict)
    ]
    return json.dumps(shown, indent=1).encode()


def pack(parts: Mapping[str, bytes], when: float) -> bytes:
    """The archive (tar.gz), made at ``when`` (seconds since the epoch); readable by its owner alone."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name, body in parts.items():
            entry = tarfile.TarInfo(f"support-bundle/{name}")
            entry.size, entry.mtime, entry.mode = len(body), int(when), 0o600
            archive.addfile(entry, io.BytesIO(body))
    return gzip.compress(plain.getvalue(), mtime=int(when))
