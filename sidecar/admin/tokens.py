"""``--admin-token-file``: who may change something.

The file is read at each use, so that it can be replaced while the process runs. A token that can't be read lets
nobody in. Its content never leaves this module.
"""

from __future__ import annotations

import os
import stat

import trio

from sidecar.admin.access_guard import Refusal

LONGEST = 4096  # bytes of the file


class Token:
    """The token in the file at ``path``; an empty path: none is asked for."""

    def __init__(self, path: str = "") -> None:
        self._path = path

    async def judge(self, sent: bytes | None) -> Refusal | None:
        """The verdict on who brought ``sent`` as a bearer token; None: may go on."""
        if not self._path:
            return None
        if sent is None:
            return Refusal(401, "a token is asked for: Authorization: Bearer ..., with what is in --admin-token-file")
        import hmac  # and hashlib, and OpenSSL's: not before somebody asks

        expected = await trio.to_thread.run_sync(self._read)  # a file may be slow
        if not expected:
            return Refusal(503, "--admin-token-file can't be read or is empty, so nobody may change anything")
        if not hmac.compare_digest(sent, expected):
            return Refusal(403, "this is not the token in --admin-token-file")
        return None

    def oddity(self) -> str:
        """What is wrong with the file, as a sentence for the log; empty if nothing is."""
        if not self._path:
            return ""
        try:
            found = os.stat(self._path)
        except OSError as error:
            return f"--admin-token-file: {error.strerror}; until it can be read nobody may change anything"
        if not stat.S_ISREG(found.st_mode):
            return "--admin-token-file: is not a file; nobody may change anything"
        if found.st_mode & (stat.S_IROTH | stat.S_IWOTH):
            return "--admin-token-file: every user of this machine can read or write it; chmod 600"
        return ""

    def _read(self) -> bytes:
        try:
            with open(os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
                token = file.read(LONGEST + 1).strip()
        except (OSError, ValueError):
            return b""
        return token if len(token) <= LONGEST else b""


def bearer(authorization: list[bytes]) -> bytes | None:
    """The token of an Authorization header (RFC 6750 section 2.1); None where there is not just one."""
    if len(authorization) != 1:
        return None
    scheme, _, token = authorization[0].partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" and token.strip() else None
