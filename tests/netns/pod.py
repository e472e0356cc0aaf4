"""A pod: a network namespace with its own resolv.conf, in which a test starts what a pod has.

``init`` runs `sidecar-init` as root, ``sidecar`` the proxy as uid 1337 without capabilities, ``app`` anything else as
another uid; ``connect`` and ``listen`` make the test itself the app. Made by ``Bed.pod``.
"""

from __future__ import annotations

import http.client
import json
import socket
import struct
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

from tests.netns.environment import APP_ID, PROXY_ID, Environment, credentials
from tests.netns.process import PodProcess
from tests.support.upstream import wait_until

ADMIN = 15000
_INIT = "import sys; from init.cli import main; sys.exit(main())"  # as its console script does


class Pod:
    """Its addresses are ``v4`` and ``v6``, its processes ``processes``; ``close`` ends them and the namespace."""

    def __init__(self, name: str, v4: str, v6: str, environment: Environment, directory: Path) -> None:
        self.name, self.v4, self.v6 = name, v4, v6
        self.environment = environment
        self.directory = directory / name
        self.directory.mkdir()
        self.directory.chmod(0o755)
        self.processes: list[PodProcess] = []
        self._makers: dict[int, tuple[socket.socket, subprocess.Popen[bytes]]] = {}
        # cat lives until our end of its pipe is gone, however we end, and the namespaces live with it.
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--propagation", "private", "cat"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0,
        )  # fmt: skip
        assert self._holder.stdin is not None and self._holder.stdout is not None
        self._holder.stdin.write(b".")
        assert self._holder.stdout.read(1) == b".", "unshare failed: namespaces need root"
        self.pid = self._holder.pid
        self.resolvers()

    @property
    def addresses(self) -> tuple[str, str]:
        return self.v4, self.v6

    def url(self, port: int, path: str = "/", family: str = "v4") -> str:
        """Where others find an app of this pod; family is "v4" or "v6"."""
        return f"http://[{self.v6}]:{port}{path}" if family == "v6" else f"http://{self.v4}:{port}{path}"

    def resolvers(self, *addresses: str, search: str = "") -> None:
        """What stands in the pod's /etc/resolv.conf; nothing at first."""
        file = self.directory / "resolv.conf"
        known = file.exists()
        lines = [f"nameserver {address}\n" for address in addresses] + ([f"search {search}\n"] if search else [])
        file.write_text("".join(lines))
        if not known:
            file.chmod(0o644)
            self.run("mount", "--bind", str(file), "/etc/resolv.conf")

    def hosts(self, name: str, *addresses: str) -> None:
        """What stands in the pod's /etc/hosts: this name, at these addresses, in their order."""
        file = self.directory / "hosts"
        file.write_text("".join(f"{address} {name}\n" for address in addresses))
        file.chmod(0o644)
        self.run("mount", "--bind", str(file), "/etc/hosts")

    def command(self, uid: int, *argv: str) -> list[str]:
        """The command line that runs another one in here as this uid (and gid)."""
        spaces = [f"--net=/proc/{self.pid}/ns/net", f"--mount=/proc/{self.pid}/ns/mnt"]
        return ["nsenter", *spaces, "prlimit", "--nofile=20000:20000", *credentials(uid), *argv]

    def run(self, *argv: str, uid: int = 0, code: int | None = 0, deadline: float = 30.0) -> str:
        """Run to its end; returns standard output, with errors behind it. AssertionError for another exit code,
        unless ``code`` is None."""
        done = subprocess.run(
            self.command(uid, *argv), env=self.environment.variables, stdin=subprocess.DEVNULL, capture_output=True,
            timeout=deadline, check=False,
        )  # fmt: skip
        text = (done.stdout + done.stderr).decode("utf-8", "backslashreplace")
        assert code is None or done.returncode == code, f"{self.name}: {argv} ended with {done.returncode}:\n{text}"
        return text

    def start(self, name: str, *argv: str, uid: int = APP_ID) -> PodProcess:
        """Start it; it ends with the pod."""
        process = PodProcess(name, self.command(uid, *argv), self.environment.variables, self.directory)
        self.processes.append(process)
        return process

    def curl(self, *arguments: str, code: int | None = 0) -> str:
        """curl as the app."""
        return self.run("curl", "-qsS", "-m", "10", "--noproxy", "*", *arguments, uid=APP_ID, code=code)

    def web(self, port: int) -> PodProcess:
        """The app that speaks HTTP, on every address; listens when this returns."""
        app = self.start(f"web-{port}", *self.environment.inside("web"), str(port))
        app.wait_for("listening")
        return app

    def init(self, *flags: str, code: int | None = 0) -> str:
        """`sidecar-init FLAGS` as root."""
        return self.run(str(self.environment.python), "-c", _INIT, *flags, code=code)

    def counters(self) -> Counter[str]:
        """The packets that the rules have counted, by "CHAIN: COMMENT"; several may have the same."""
        found: Counter[str] = Counter()
        for chain in json.loads(self.init("--show", "--format", "json"))["chains"]:
            for rule in chain["rules"]:
                found[f"{chain['name']}: {rule['comment']}"] += rule["packets"]
        return found

    def sidecar(self, *flags: str, ready: bool = True) -> PodProcess:
        """The proxy, capturing; ready when this returns, which it never is without rules."""
        number = sum(process.name.startswith("sidecar") for process in self.processes)
        # An app that never listened can't be seen to go, and would be waited for.
        common = ["--interception", "redirect", "--access-log", "json"]
        common += [] if "--drain-seconds" in flags else ["--drain-seconds", "1s"]
        proxy = self.start(
            f"sidecar-{number}", str(self.environment.python), "-m", "sidecar", *common, *flags, uid=PROXY_ID
        )
        if ready:
            proxy.wait_for("sidecar: ready")
            wait_until(lambda: self.get("/ready")[0] == 200, f"{self.name}: {proxy.name} has found its rules")
        return proxy

    @property
    def proxy(self) -> PodProcess:
        """The proxy that was started last."""
        return [process for process in self.processes if process.name.startswith("sidecar")][-1]

    def records(self) -> list[dict[str, Any]]:
        """Its access log."""
        return [json.loads(line) for line in self.proxy.output.split("\n")[:-1]]

    def record(self, **wanted: object) -> dict[str, Any]:
        """The one record with these fields, once it is there."""
        found: list[dict[str, Any]] = []

        def there() -> bool:
            found[:] = [record for record in self.records() if wanted.items() <= record.items()]
            return bool(found)

        wait_until(there, f"{self.name}: a record with {wanted}")
        assert len(found) == 1, found
        return found[0]

    def make_socket(self, family: int, uid: int = APP_ID, kind: int = socket.SOCK_STREAM) -> socket.socket:
        """A socket in here that belongs to this uid."""
        if uid not in self._makers:
            ours, theirs = socket.socketpair()
            with theirs:
                command = self.command(uid, *self.environment.inside("sockets"))
                self._makers[uid] = (
                    ours,
                    subprocess.Popen(command, stdin=theirs.fileno(), env=self.environment.variables),
                )
        orders, _ = self._makers[uid]
        orders.sendall(struct.pack("ii", family, kind))
        _, descriptors, _, _ = socket.recv_fds(orders, 1, 1)
        return socket.socket(fileno=descriptors[0])

    def connect(self, host: str, port: int, *, uid: int = APP_ID, deadline: float = 10.0) -> socket.socket:
        """A connection from in here; OSError as of connect(2)."""
        sock = self.make_socket(socket.AF_INET6 if ":" in host else socket.AF_INET, uid)
        try:
            sock.settimeout(deadline)
            sock.connect((host, port))
        except OSError:
            sock.close()
            raise
        return sock

    def listen(self, port: int, *, host: str = "0.0.0.0", backlog: int = 512) -> socket.socket:
        """A listener of the app in here."""
        sock = self.make_socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if ":" in host:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(backlog)
        return sock

    def get(self, path: str, *, port: int = ADMIN) -> tuple[int, str]:
        """One request to the admin port, as anyone in here may make it: (status, text)."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.sock = self.connect("127.0.0.1", port)
        try:
            connection.request("GET", path)
            reply = connection.getresponse()
            return reply.status, reply.read().decode("utf-8", "replace")
        finally:
            connection.close()

    def metrics(self) -> dict[str, float]:
        """Every series of the proxy, as its text names it."""
        status, text = self.get("/stats/prometheus")
        assert status == 200, text
        series = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in series}

    def close(self) -> None:
        """End what was started in here; the namespaces go, and the cable with them."""
        for process in self.processes:
            process.kill()
        for orders, maker in self._makers.values():
            orders.close()
            maker.wait(10)
        self._makers.clear()
        if self._holder.stdin is not None and self._holder.stdout is not None:
            self._holder.stdin.close()
            self._holder.wait(10)
            self._holder.stdout.close()
