"""A call to a proxy's admin port, which answers loopback alone: on this machine, or by a port-forward.

Who calls it: the commands on a proxy. Plain HTTP by the standard library; the address has to be a loopback one, so that
an admin token never leaves the machine in the clear.
"""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from control.ctl.exit_codes import Exit, Failed
from sidecar import ports
from sidecar.addresses import parse_host_port, parse_ip

DEFAULT: Final = f"127.0.0.1:{ports.ADMIN}"
SECONDS: Final = 30.0
TOKEN_BYTES: Final = 16 * 1024


class Proxy:
    """The admin port at ``place`` (HOST:PORT). ``token_file`` is empty where none is asked for. Raises Failed."""

    def __init__(self, place: str, token_file: str = "") -> None:
        try:
            address = parse_host_port(place)
        except ValueError as error:
            raise Failed(Exit.USAGE, f"--proxy: {error}; write for example {DEFAULT}") from None
        ip = parse_ip(address.host)
        if address.host != "localhost" and (ip is None or not ip.is_loopback):
            raise Failed(
                Exit.USAGE, f"--proxy: {place} is not on loopback; run this beside the proxy, or forward a port to it"
            )
        self.place = place
        self._host, self._port = address.host, address.port
        self._token_file = token_file

    def get(self, path: str) -> bytes:
        """What is there. Failed where it is not, or nobody answers."""
        return self._answer("GET", path)

    def post(self, path: str) -> bytes:
        """As ``get``, by POST: it changes something, or asks what has parameters. Failed likewise."""
        return self._answer("POST", path)

    def events(self, path: str, parameters: dict[str, str]) -> Iterator[tuple[str, str]]:
        """Server-sent events: (event, data), until the other end ends. Failed where there is no stream."""
        target = f"{path}?{urlencode(parameters)}"
        with self._asked("GET", target) as (connection, reply):
            if reply.status != 200:
                raise self._refused(target, reply.status, reply.read())
            if connection.sock is not None:
                connection.sock.settimeout(None)  # nothing may happen for hours
            event = "message"
            for line in reply:
                name, _, value = line.decode("utf-8", "replace").rstrip("\r\n").partition(": ")
                if name == "event":
                    event = value
                elif name == "data":
                    yield event, value
                    event = "message"

    def _answer(self, method: str, path: str) -> bytes:
        with self._asked(method, path) as (_, reply):
            body = reply.read()
        if reply.status >= 400:
            raise self._refused(path, reply.status, body)
        return body

    @contextlib.contextmanager
    def _asked(self, method: str, path: str) -> Iterator[tuple[http.client.HTTPConnection, http.client.HTTPResponse]]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=SECONDS)
        try:
            connection.request(method, path, headers=self._headers())
            yield connection, connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or "it closed"
            raise Failed(Exit.UNREACHED, f"{self.place}: {why}; is a sidecar's admin port there (--admin)?") from None
        finally:
            connection.close()

    def _headers(self) -> dict[str, str]:
        if not self._token_file:
            return {}
        try:
            text = Path(self._token_file).read_bytes()[:TOKEN_BYTES].decode("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "there is no token in it"
            raise Failed(Exit.USAGE, f"--admin-token-file: {why}; name the file that the proxy was told") from None
        return {"authorization": f"Bearer {text}"}

    def _refused(self, path: str, status: int, body: bytes) -> Failed:
        said = body.decode("utf-8", "replace").strip().partition("\n")[0] or f"it answers {status}"
        if status in (401, 403):
            return Failed(Exit.FORBIDDEN, f"{self.place}: {said}")
        return Failed(Exit.NOT, f"{self.place}{path}: {said}")


def record(data: str) -> dict[str, Any]:
    """A record of ``/tap``."""
    found: dict[str, Any] = json.loads(data)
    return found


def line(row: dict[str, Any]) -> str:
    """A record for people; as ``/requests`` has it."""
    what = f"{row['method']} {row['path']}" if row["method"] else row["protocol"]
    parts = (
        row["time"], row["direction"], row["status"] or "-", row["flag"], row["reason"] or "-",
        f"{row['duration_ms']:.1f}ms", what, row["authority"] or "-", row["client"], row["upstream"] or "-",
        row["request_id"] or "-", *([f"by {row['downstream_peer']}"] if row["downstream_peer"] else []),
        *([f"at {row['upstream_peer']}"] if row["upstream_peer"] else []),
    )  # fmt: skip
    return " ".join(map(str, parts))
