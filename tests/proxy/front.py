"""A proxy process in front of a recording app: what a client is told, what the app saw, and what the log says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from tests.support.process import SidecarProcess
from tests.support.raw import DEADLINE, Client, Reply, ask
from tests.support.strict import Request
from tests.support.upstream import Connection, RecordingUpstream, Step, wait_until


class Front:
    """``sidecar FLAGS`` with an app that runs ``scripts`` (see ``RecordingUpstream``); a context manager."""

    def __init__(
        self,
        scripts: Mapping[str, Sequence[Step]] | None = None,
        *flags: str,
        strict: bool = True,
        greeting: bytes = b"",
    ) -> None:
        self.app = RecordingUpstream(scripts, strict=strict, greeting=greeting)
        self.app.__enter__()
        try:
            self.sidecar = SidecarProcess(self.app.port, *flags)
        except BaseException:
            self.app.close()
            raise

    def __enter__(self) -> Front:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.sidecar.__exit__(kind, error, trace)
        finally:
            self.app.close()

    def client(self, deadline: float = DEADLINE, receive_buffer: int = 0) -> Client:
        """A connection to the inbound listener."""
        return Client(self.sidecar.inbound, deadline=deadline, receive_buffer=receive_buffer)

    def ask(
        self,
        target: bytes,
        *fields: bytes,
        method: bytes = b"GET",
        body: bytes = b"",
        version: bytes = b"HTTP/1.1",
        host: bytes = b"Host: app",
    ) -> Reply:
        """One request on a connection of its own, and the one reply to it. ``fields`` are whole lines."""
        lines = [method + b" " + target + b" " + version, *([host] if host else []), *fields]
        if version == b"HTTP/1.1":
            lines.append(b"Connection: close")
        replies = ask(self.sidecar.inbound, b"\r\n".join(lines) + b"\r\n\r\n" + body, (method,))
        assert len(replies) == 1, replies
        return replies[0]

    def seen(self, target: bytes) -> Request:
        """The one whole request for ``target`` that reached the app."""
        wait_until(lambda: bool(self._seen(target)), f"the app sees {target!r}")
        (request,) = self._seen(target)
        return request

    def _seen(self, target: bytes) -> list[Request]:
        return [one for connection in self.app.connections for one in connection.requests if one.target == target]

    def connection_of(self, target: bytes) -> Connection:
        """The app's connection that ``target`` came over."""
        self.seen(target)
        (found,) = [c for c in self.app.connections if any(one.target == target for one in c.requests)]
        return found

    def times_seen(self, target: bytes) -> int:
        return len(self._seen(target))

    def records(self, path: bytes, count: int = 1) -> list[dict[str, Any]]:
        """The log's records of ``path``, once there are as many as that."""
        wait_until(lambda: len(self._records(path)) >= count, f"{count} records of {path!r} in the log")
        found = self._records(path)
        assert len(found) == count, found
        return found

    def record(self, path: bytes) -> dict[str, Any]:
        return self.records(path)[0]

    def _records(self, path: bytes) -> list[dict[str, Any]]:
        return [one for one in self.sidecar.log_records() if one["path"] == path.decode()]
