"""Sidecars with an identity, and a shop of two: ``caller``'s sidecar, and ``web``'s in front of a recording app."""

from __future__ import annotations

import contextlib
import json
import socket
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.papers import Authority, Papers
from tests.support.process import SidecarProcess
from tests.support.secure import HTTP, SecureClient, client_context
from tests.support.upstream import RecordingUpstream, Step, wait_until

WEB = "web.shop.svc.cluster.local"
PORTS = {"http": 80, "auto": 8080, "tcp": 3306}  # of the service, and what is spoken there
SNI = {port: f"outbound_.{port}_._.{WEB}" for port in PORTS.values()}


class Member(SidecarProcess):
    """A sidecar with these papers; ``roots`` where it trusts more than their own. ``tell`` gives it orders."""

    def __init__(
        self,
        upstream: int | str,
        papers: Papers,
        *flags: str,
        roots: Sequence[str] = (),
        access_log: str = "json",
        wait_ready: bool = True,
    ) -> None:
        self._orders = tempfile.TemporaryDirectory(prefix="orders-")
        self._socket = str(Path(self._orders.name, "socket"))
        trusted = ",".join(roots or [str(papers.roots)])
        super().__init__(
            upstream,
            *flags,
            access_log=access_log,
            wait_ready=wait_ready,
            entry=(
                "-m", "tests.support.member_process", self._socket, str(papers.key), str(papers.chain), trusted,
            ),
        )  # fmt: skip

    def _clean_up(self) -> None:
        super()._clean_up()
        self._orders.cleanup()

    def tell(self, do: str, **words: Any) -> Any:
        """Gives an order (see ``member_process``), waits until it is done, and returns the answer."""
        with contextlib.ExitStack() as stack:
            sock = self._connected(stack)
            sock.sendall(json.dumps({"do": do, **words}).encode() + b"\n")
            answer = b""
            while not answer.endswith(b"\n"):
                data = sock.recv(65536)
                assert data, f"no answer to {do}:\n" + "\n".join(self.errors[-20:])
                answer += data
        return json.loads(answer)

    def _connected(self, stack: contextlib.ExitStack) -> socket.socket:
        """To where the member takes orders: its socket is a file a moment before anybody listens there."""
        taken: list[socket.socket] = []

        def connect() -> bool:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(30)
            try:
                sock.connect(self._socket)
            except (FileNotFoundError, ConnectionRefusedError):
                sock.close()
                return False
            taken.append(stack.enter_context(sock))
            return True

        wait_until(connect, "the member takes orders")
        return taken[0]

    def record_of(self, port: int) -> dict[str, Any]:
        """The log's one record of a client that called from this port."""

        def found() -> list[dict[str, Any]]:
            return [each for each in self.log_records() if each["client"].endswith(f":{port}")]

        wait_until(lambda: bool(found()), f"a record of the client at port {port}")
        (record,) = found()
        return record

    def install(self, papers: Papers, roots: Sequence[str] = ()) -> None:
        """Another certificate, or another bundle, from now on."""
        self.tell("install", key=str(papers.key), chain=str(papers.chain), roots=list(roots) or [str(papers.roots)])


class Shop:
    """An authority, the app, its sidecar ``web``, and ``caller``'s, which knows the service ``web``. A context manager.

    ``mode`` is web's --mtls, ``protocol`` its --protocol. ``endpoint`` replaces web's sidecar in what the caller knows.
    """

    def __init__(
        self,
        *,
        mode: str = "strict",
        protocol: str = "auto",
        web_flags: Sequence[str] = (),
        caller_flags: Sequence[str] = (),
        scripts: Mapping[str, Sequence[Step]] | None = None,
        greeting: bytes = b"",
        strict: bool = True,
        endpoint: int = 0,
        app: int = 0,
        authority: Authority | None = None,
        web_roots: Sequence[str] = (),
    ) -> None:
        self.mode, self.protocol = mode, protocol
        with contextlib.ExitStack() as stack:
            self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="shop-")))
            self.authority = authority or Authority(self.directory)
            self.papers = {name: self.authority.issue(name) for name in ("web", "caller")}
            self.app = stack.enter_context(RecordingUpstream(scripts, greeting=greeting, strict=strict, mesh=True))
            me = ("--namespace", "shop", "--service")
            self.web = stack.enter_context(
                Member(
                    app or self.app.port, self.papers["web"], "--mtls", mode, "--protocol", protocol,
                    "--mesh", str(self.mesh_file("web", 1)), *me, "web", "--service-account", "web", *web_flags,
                    roots=web_roots,
                )
            )  # fmt: skip
            mesh = self.mesh_file("caller", endpoint or self.web.inbound)
            self.caller = stack.enter_context(
                Member(
                    self.app.port, self.papers["caller"], "--mesh", str(mesh), *me, "caller", "--service-account",
                    "caller", *caller_flags,
                )
            )  # fmt: skip
            self._stack = stack.pop_all()

    def __enter__(self) -> Shop:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def mesh_file(self, whose: str, endpoint: int) -> Path:
        """What ``whose`` sidecar knows: web, at this port of 127.0.0.1. Callers know what its ports speak; web itself
        has only its --protocol for that, since all of them lead to its one app."""
        names = {name: name if whose != "web" else "any" for name in PORTS}
        ports = "".join(f"  - {{port: {port}, name: {names[name]}-{port}}}\n" for name, port in PORTS.items())
        path = self.directory / f"{whose}.yaml"
        path.write_text(
            "services:\n- name: web\n  namespace: shop\n  serviceAccounts: [web]\n  ports:\n"
            f"{ports}  endpoints:\n  - {{address: 127.0.0.1, port: {endpoint}, mode: direct}}\n"
        )
        return path

    def stranger(
        self,
        papers: Papers | None,
        *,
        alpn: Sequence[str] = HTTP,
        sni: str | None = SNI[80],
        trusts: bool = True,
    ) -> SecureClient:
        """A client of web's inbound port that is no sidecar, with these papers or none."""
        key, chain = (papers.key, papers.chain) if papers is not None else (None, None)
        context = client_context(key, chain, self.papers["web"].roots if trusts else None, alpn)
        return SecureClient(self.web.inbound, context, sni=sni)

    def seen(self) -> int:
        """How many bytes have reached the app so far."""
        return sum(len(each.raw) for each in self.app.connections)
