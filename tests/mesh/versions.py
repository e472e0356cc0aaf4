"""A caller's sidecar, and services in two versions, each of which is a recording app behind a sidecar of its own.

    with Versions(tmp_path) as mesh:
        mesh.obey(DOCUMENTS, {"books": [("v1", "v1.0"), ("v2", "v1.1")]})
        mesh.ask("books", "/path")
        mesh.seen()

Whatever services a test makes up, both sidecars serve all of them. The caller obeys documents, which take the way of
the control plane's: read, put together as a mesh with the endpoints that registered, cut down to what one proxy sees,
and compiled by the proxy.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from certs.spiffe import parse
from sidecar.resources.conflicts import problems_of
from sidecar.resources.documents import read_documents
from sidecar.resources.mesh_documents import Mesh, Place
from sidecar.resources.proxy_config import RegisteredSpec
from sidecar.resources.visibility import scoped_mesh
from tests.support.member import Member
from tests.support.papers import Authority
from tests.support.raw import Client, Reply
from tests.support.strict import Request
from tests.support.upstream import RecordingUpstream, Step, wait_until

NAMESPACE = "default"
SERVICE = """\
---
apiVersion: sidecar/v1
kind: Service
metadata: {{name: {name}}}
spec: {{serviceAccounts: [web], ports: [{{port: 80, name: http}}]}}
"""
Endpoints = Mapping[str, Sequence[tuple[str | int, str]]]
"""Of each service: at which app's sidecar, or at which port of this host, and of which version it says that it is."""


class Versions:
    """See the module. A target /script/NAME is answered by the script of that name; a context manager."""

    def __init__(
        self, directory: Path, services: Sequence[str], scripts: Mapping[str, Sequence[Step]] | None = None
    ) -> None:
        self._directory = directory
        self._services = services
        self._numbers = count(1)
        self.apps = {name: RecordingUpstream(scripts, strict=False, mesh=True) for name in ("v1", "v2")}

    def __enter__(self) -> Versions:
        with contextlib.ExitStack() as stack:
            authority = Authority(self._directory)
            self.papers = {name: authority.issue(name, NAMESPACE) for name in ("web", "caller")}
            known = self._directory / "mesh.yaml"
            known.write_text(
                "services:\n"
                + "".join(
                    f"- {{name: {name}, serviceAccounts: [web], ports: [{{port: 80, name: http}}]}}\n"
                    for name in self._services
                )
            )
            flags = ("--mesh", str(known), "--namespace", NAMESPACE, "--service-account")
            self.webs = {
                name: stack.enter_context(
                    Member(stack.enter_context(app).port, self.papers["web"], "--mtls", "strict", *flags, "web")
                )
                for name, app in self.apps.items()
            }
            app = self.apps["v1"]
            self.caller = stack.enter_context(Member(app.port, self.papers["caller"], *flags, "caller"))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def obey(self, documents: str, endpoints: Endpoints) -> None:
        """Have the caller follow these documents from now on, with these endpoints."""
        services = "".join(SERVICE.format(name=name) for name in self._services)
        read = read_documents(f"{services}---\n{documents}".encode(), "documents")
        assert read.problems == (), read.problems
        mesh = Mesh(each.document for each in read.documents)
        assert list(problems_of(mesh)) == []
        told = scoped_mesh(
            mesh,
            parse(self.papers["caller"].spiffe_id),
            lambda place: self._endpoints(place, endpoints),
            version=f"1.{next(self._numbers)}",
            issued=1.0,
        )
        assert self.caller.tell("take", document=msgspec.to_builtins(told), namespace=NAMESPACE) == []

    def _endpoints(self, place: Place, endpoints: Endpoints) -> list[RegisteredSpec]:
        found = []
        for number, (where, version) in enumerate(endpoints.get(place[1], ())):
            port = self.webs[where].inbound if isinstance(where, str) else where
            found.append(
                RegisteredSpec(
                    "127.0.0.1", port=port, mode="direct", labels={"version": version}, since=float(number + 1)
                )
            )
        return found

    def ask(self, host: str, target: str = "/", *fields: str, method: str = "GET", body: bytes = b"") -> Reply:
        """Send one request."""
        with Client(self.caller.outbound) as client:
            client.send(message(host, target, "Connection: close", *fields, method=method, body=body))
            (reply,) = client.replies((method.encode(),), 1)
            return reply

    def recorded(
        self, host: str, target: str = "/", *fields: str, method: str = "GET", body: bytes = b""
    ) -> tuple[int, dict[str, Any]]:
        """Send one request; return the reply's status, and the caller's record, which takes a moment to come."""
        agent = f"request {next(self._numbers)}"
        reply = self.ask(host, target, f"User-Agent: {agent}", *fields, method=method, body=body)
        found: list[dict[str, Any]] = []

        def there() -> bool:
            found[:] = [each for each in self.caller.log_records() if each["user_agent"] == agent]
            return bool(found)

        wait_until(there, "the caller's record")
        (record,) = found
        return reply.status, record

    def many(self, host: str, number: int, each: int, target: str = "/") -> list[Reply]:
        """Send so many requests, ``each`` on a connection at a time, on all connections at once."""
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(Client(self.caller.outbound)) for _ in range(number // each)]
            for client in clients:
                client.send(message(host, target) * each)
            return [reply for client in clients for reply in client.replies((b"GET",) * each, each)]

    def seen(self) -> list[tuple[str, Request]]:
        """The requests that came since the last call, each with the name of its app; app by app."""
        return [(name, request) for name, app in self.apps.items() for request in app.take().requests]

    def records_since(self, before: int) -> list[dict[str, Any]]:
        """The caller's records but for the first ``before``."""
        return self.caller.log_records()[before:]


def message(host: str, target: str, *fields: str, method: str = "GET", body: bytes = b"") -> bytes:
    """A request as an app that was told of a proxy sends it."""
    lines = [f"{method} http://{host}{target} HTTP/1.1", f"Host: {host}", *fields]
    lines += [f"Content-Length: {len(body)}"] if body else []
    return "\r\n".join([*lines, "", ""]).encode() + body


def within(number: int, total: int, share: float) -> bool:
    """Whether so many of ``total`` may well have been drawn with this chance: 5 standard deviations."""
    return abs(number - total * share) <= 5 * math.sqrt(total * share * (1 - share))
