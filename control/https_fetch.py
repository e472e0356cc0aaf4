"""One HTTP request to somebody else's server: for keys, and for TokenReview.

Who calls it: ``control.kubernetes_tokens``. The standard library's client in a thread: such calls are few,
and it takes no proxy from the environment, follows no redirect and keeps nothing. What comes back is bounded in size
and time; what goes wrong is one error without a body.
"""

from __future__ import annotations

import http.client
import ssl
import time
from urllib.parse import urlsplit

import trio

SECONDS = 5.0
ANSWER_BYTES = 1024 * 1024
AT_ONCE = 8  # threads; more callers wait their turn, within the limit on requests at work


class FetchFailed(Exception):
    """No answer that could be used. The text is for the log: no body, no secret."""


class Fetcher:
    """Asks servers that are known by ``ca_file`` (empty: the machine's CAs), with the token in ``token_file``, if any.

    Both files are read at each use, since both are replaced while we run.
    """

    def __init__(self, ca_file: str, token_file: str) -> None:
        self._ca_file = ca_file
        self._token_file = token_file
        self._turns = trio.CapacityLimiter(AT_ONCE)

    async def get(self, url: str) -> bytes:
        """The body of a 200; FetchFailed for all else."""
        return await self._in_thread("GET", url, None)

    async def post(self, url: str, body: bytes) -> bytes:
        """Likewise, for a 200 or 201 to a POST of JSON."""
        return await self._in_thread("POST", url, body)

    async def _in_thread(self, method: str, url: str, body: bytes | None) -> bytes:
        return await trio.to_thread.run_sync(self._ask, method, url, body, abandon_on_cancel=True, limiter=self._turns)

    def _ask(self, method: str, url: str, body: bytes | None) -> bytes:
        try:
            return self._exchange(method, url, body)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise FetchFailed(f"{urlsplit(url).netloc}: {type(error).__name__}") from None

    def _exchange(self, method: str, url: str, body: bytes | None) -> bytes:
        parts = urlsplit(url)
        headers = {"accept": "application/json"} | ({"content-type": "application/json"} if body else {})
        if self._token_file:
            with open(self._token_file, encoding="ascii") as file:
                headers["authorization"] = f"Bearer {file.read(65_536).strip()}"
        host = parts.hostname or ""
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = ssl.create_default_context(cafile=self._ca_file or None)
            connection = http.client.HTTPSConnection(host, parts.port, timeout=SECONDS, context=context)
        else:
            connection = http.client.HTTPConnection(host, parts.port, timeout=SECONDS)
        try:
            connection.request(method, parts.path or "/", body, headers)
            with connection.getresponse() as answer:
                return _read(answer, parts.netloc)
        finally:
            connection.close()


def _read(answer: http.client.HTTPResponse, server: str) -> bytes:
    """The body within its bounds. A timeout per read would not stop a server that sends a byte a second."""
    if answer.status not in (200, 201):
        raise FetchFailed(f"{server}: answered {answer.status}")
    deadline = time.monotonic() + SECONDS
    pieces = bytearray()
    while piece := answer.read1(65_536):
        pieces += piece
        if len(pieces) > ANSWER_BYTES:
            raise FetchFailed(f"{server}: its answer is too long")
        if time.monotonic() > deadline:
            raise FetchFailed(f"{server}: its answer takes too long")
    return bytes(pieces)
