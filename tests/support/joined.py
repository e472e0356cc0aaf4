"""Sidecars that joined: an authority, the app ``web`` behind its sidecar, and callers whose sidecars know ``web``.

Between callers and ``web`` lies a wire, which passes on every byte and looks for what must never be on it.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import tempfile
import threading
from pathlib import Path
from types import TracebackType

from tests.support.control_process import ControlProcess
from tests.support.process import SidecarProcess
from tests.support.upstream import wait_until

WEB = "web.shop.svc.cluster.local"
PLAIN = b"HTTP/1.1"  # in each request and each reply; ALPN has it in small letters


class Wire:
    """A TCP relay to the port ``target``; ``sightings`` counts reads in which PLAIN was seen, ``passed`` bytes."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.sightings = 0
        self.passed = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._over = False
        self._thread = threading.Thread(target=self._run, daemon=True, name="wire")
        self._thread.start()

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        self._thread.join(5)
        for key in list(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()

    def _run(self) -> None:
        while not self._over:
            for key, _ in self._selector.select(0.1):
                if key.fileobj is self._listener:
                    self._join(self._listener.accept()[0])
                elif (
                    isinstance(key.fileobj, socket.socket) and key.fileobj.fileno() >= 0
                ):  # else just ended by its other
                    self._pass(key.fileobj, key.data)

    def _join(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection(("127.0.0.1", self._target), 5)
        except OSError:
            client.close()
            return
        for one, other in ((client, server), (server, client)):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(one, selectors.EVENT_READ, (other, bytearray()))

    def _pass(self, sock: socket.socket, data: tuple[socket.socket, bytearray]) -> None:
        other, tail = data
        try:
            found = sock.recv(65536)
            if found:
                other.sendall(found)
        except OSError:
            found = b""
        if not found:  # either end is the end of both: nothing here says one thing and then listens
            for one in (sock, other):
                with contextlib.suppress(KeyError):
                    self._selector.unregister(one)
                one.close()
            return
        self.passed += len(found)
        self.sightings += PLAIN in bytes(tail) + found
        tail[:] = (bytes(tail) + found)[1 - len(PLAIN) :]


class Joined:
    """``web``'s sidecar before the app at port ``app``, and a caller's for each of ``callers``, all with a certificate
    when this is made. A context manager; ``flags`` are for all of them, ``callers`` gives each its own."""

    def __init__(self, app: int, leaf_ttl: float, callers: dict[str, list[str]], *flags: str) -> None:
        with contextlib.ExitStack() as stack:
            self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="joined-")))
            self.control = stack.enter_context(ControlProcess(leaf_ttl))
            self._app, self._flags, self._stack = app, flags, stack
            self._own: dict[str, list[str]] = {"web": [], **callers}
            self.sidecars: dict[str, SidecarProcess] = {}
            self._mesh_file("web", 1)  # it calls nobody
            self.wire = stack.enter_context(Wire(self._start("web").inbound))
            for name in callers:
                self._mesh_file(name, self.wire.port)
                self._start(name)
            for name in self.sidecars:
                self.wait_ready(name)
            self._stack = stack.pop_all()

    def __enter__(self) -> Joined:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def ready(self, name: str) -> tuple[int, str]:
        """What its /ready says."""
        return self.sidecars[name].admin_get("/ready")

    def wait_ready(self, name: str, deadline: float = 30.0) -> None:
        """Until it is ready, which it is not without a certificate."""
        try:
            wait_until(lambda: self.ready(name)[0] == 200, f"{name} has a certificate", deadline)
        except AssertionError as error:
            raise AssertionError(f"{error}\n" + "\n".join(self.sidecars[name].errors[-20:])) from None

    def restart(self, *names: str) -> None:
        """SIGTERM, their end, and others with the same flags (and other ports), which serve when this returns; whether
        they have a certificate then is another matter."""
        for name in names:
            self.sidecars[name].terminate()
        for name in names:
            self.sidecars[name].wait_clean_exit()
            self._start(name)

    def command(self, name: str) -> list[str]:
        """The flags of identity of a sidecar."""
        return [
            "--control", self.control.url, "--token-file", str(self._token_file(name)), "--namespace", "shop",
            "--service", name, "--service-account", name, "--mesh", str(self.directory / f"{name}.yaml"),
            "--drain-seconds", "5s", "--pool-idle-timeout", "2s", *self._flags, *self._own[name],
        ]  # fmt: skip

    def _start(self, name: str) -> SidecarProcess:
        made = SidecarProcess(self._app, *self.command(name))
        self.sidecars[name] = self._stack.enter_context(made)
        return made

    def _token_file(self, name: str) -> Path:
        path = self.directory / f"{name}.token"
        if not path.exists():
            path.write_text(self.control.token(name))
        return path

    def _mesh_file(self, name: str, endpoint: int) -> None:
        path = self.directory / f"{name}.yaml"
        path.write_text(
            "services:\n- name: web\n  namespace: shop\n  serviceAccounts: [web]\n  ports:\n"
            "  - {port: 80, name: http}\n  - {port: 3306, name: tcp-db}\n"
            f"  endpoints:\n  - {{address: 127.0.0.1, port: {endpoint}, mode: direct}}\n"
        )
