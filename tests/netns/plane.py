"""The control plane in a pod of its own, an operator beside it, and pods that join: nothing but what a user has.

Pods that joined have rules, a proxy as uid 1337 and a token; what the mesh is stands in documents, which ``apply``
hands to `sidecarctl`. Their apps know nothing of it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from tests.netns.environment import PROXY_ID, ROOT
from tests.netns.pod import Pod
from tests.netns.process import PodProcess
from tests.support.upstream import wait_until

PLAIN, TLS = 15010, 15012
CALL_SECONDS = 20.0  # of a request under load
_APIS = {
    "Service": "sidecar/v1",
    "PeerAuthentication": "security.istio.io/v1",
    "ServiceEntry": "networking.istio.io/v1",
    "Sidecar": "networking.istio.io/v1",
}


def spiffe_id(account: str, namespace: str = "shop") -> str:
    """Who a workload is."""
    return f"spiffe://cluster.local/ns/{namespace}/sa/{account}"


def document(kind: str, name: str, spec: Mapping[str, Any], namespace: str = "shop", **labels: str) -> dict[str, Any]:
    """One, as an operator writes it."""
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    return {"apiVersion": _APIS[kind], "kind": kind, "metadata": metadata, "spec": spec}


class Plane:
    """In ``pod``, from the first ``start`` on; root there, since the checkout may be for its owner alone."""

    def __init__(self, pod: Pod, leaf_ttl: str = "24h", *flags: str) -> None:
        self.pod = pod
        self._directory = pod.directory / "control"
        self._flags = ("--leaf-ttl", leaf_ttl, *flags)
        self._numbers = iter(range(1, 10_000))
        self.start()

    def start(self) -> None:
        """Ready when this returns; what it knew before it knows again."""
        self.process = self._program(
            f"control-{next(self._numbers)}", "control", "--ca-dir", str(self._directory), "--tls-listen", str(TLS),
            *self._flags,
        )  # fmt: skip
        self.process.wait_for("sidecar-control: ready", 60)

    def ctl(self, *words: str, deadline: float = 60.0) -> str:
        """`sidecarctl WORDS`, as the operator; returns what it says."""
        server = ("--server", f"http://127.0.0.1:{PLAIN}", "--token-file", str(self._directory / "operator-token"))
        return self.pod.run(*self._words("control.ctl", *server, *words), deadline=deadline)

    def apply(self, *documents: Mapping[str, Any]) -> None:
        """As one set: all, or none."""
        file = self.pod.directory / "documents.yaml"
        file.write_text("\n---\n".join(json.dumps(each) for each in documents))
        self.ctl("apply", "-f", str(file))

    def seen(self, what: str, **wanted: object) -> list[dict[str, Any]]:
        """What GET /v1/WHAT shows: those with these values. A command would say the same, in half a second each."""
        shown = self._ask("GET", f"/v1/{what}")
        return [each for each in shown[what if what == "proxies" else "items"] if wanted.items() <= each.items()]

    def _ask(self, method: str, path: str, body: object = None) -> Any:
        time.sleep(0.03)  # who asks more than 50 times a second is sent away
        operator = (self._directory / "operator-token").read_text().strip()
        connection = http.client.HTTPConnection("127.0.0.1", PLAIN, timeout=30)
        connection.sock = self.pod.connect("127.0.0.1", PLAIN)
        try:
            words = None if body is None else json.dumps(body)
            connection.request(method, path, words, {"authorization": f"Bearer {operator}"})
            reply = connection.getresponse()
            data = reply.read()
            assert reply.status < 300, (method, path, reply.status, data)
            return json.loads(data)
        finally:
            connection.close()

    def endpoints(self, service: str) -> list[dict[str, Any]]:
        """Who is registered for it."""
        return [each for one in self.seen("services", name=service) for each in one["endpoints"] if each.get("id")]

    def wait_in_sync(self, count: int, deadline: float = 30.0) -> None:
        """Until so many proxies are here, and none of them holds what is not the newest."""

        def all_are() -> bool:
            states = [each["state"] for each in self.seen("proxies")]
            return len(states) == count and set(states) == {"in sync"}

        wait_until(all_are, f"{count} proxies are in sync", deadline)

    def join(self, pod: Pod, account: str, *flags: str, namespace: str = "shop", by: str = "v4") -> PodProcess:
        """Rules, and a sidecar that has all from here; ready when this returns. ``by`` is the family that it comes
        by, and so is registered under; or the name that it looks up."""
        pod.resolvers(self.pod.v4)  # where nobody answers: names of the mesh need nobody else
        pod.init("--redirect-dns")
        return self.sidecar(pod, account, *flags, namespace=namespace, by=by)

    def token(self, pod: Pod, account: str, namespace: str = "shop") -> str:
        """The file with a join token that is good now."""
        file = pod.directory / "token"
        made = self._ask("POST", "/v1/tokens", {"namespace": namespace, "serviceAccount": account})
        file.touch(mode=0o600)
        os.chown(file, PROXY_ID, PROXY_ID)
        file.write_text(made["token"])
        return str(file)

    def sidecar(self, pod: Pod, account: str, *flags: str, namespace: str = "shop", by: str = "v4") -> PodProcess:
        """One more, in a pod that has its rules."""
        host = {"v4": self.pod.v4, "v6": f"[{self.pod.v6}]"}.get(by, by)
        return pod.sidecar(
            "--control", f"https://{host}:{TLS}", "--token-file", self.token(pod, account, namespace),
            "--namespace", namespace, "--service", account, "--service-account", account, *flags,
        )  # fmt: skip

    def _program(self, name: str, module: str, *words: str) -> PodProcess:
        return self.pod.start(name, *self._words(module, *words), uid=0)

    @staticmethod
    def _words(module: str, *words: str) -> list[str]:
        return ["env", f"PYTHONPATH={ROOT}", "PYTHONDONTWRITEBYTECODE=1", sys.executable, "-m", module, *words]


class Traffic:
    """What an app asks all the time, on a connection each, in turn at port 80, which is HTTP, and at 90, whose bytes
    are nobody's business: there each goes to the next endpoint, while HTTP stays where it has a connection.
    ``answers`` are those that came."""

    def __init__(self, pod: Pod, address: str, host: str) -> None:
        self.address = address
        self._pod, self._host = pod, host
        self._over = threading.Event()
        self.answers: list[str] = []
        self.failures: list[str] = []
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        number = 0
        while not self._over.wait(0.02):
            number += 1
            try:
                answer = self._ask(number)
            except OSError as error:
                self.failures.append(f"request {number}: {error!r}")
                continue
            if answer.startswith("HTTP/1.1 200 ") and answer.endswith(f"/{number}\n"):
                self.answers.append(answer)
            else:
                self.failures.append(f"request {number}: {answer!r}")

    def _ask(self, number: int) -> str:
        with self._pod.connect(self.address, 80 if number % 2 else 90, deadline=CALL_SECONDS) as sock:
            sock.sendall(f"GET /{number} HTTP/1.1\r\nHost: {self._host}\r\nConnection: close\r\n\r\n".encode())
            data = b""
            while not data.endswith(b"/%d\n" % number) and (more := sock.recv(65536)):
                data += more
        return data.decode()

    def more(self, count: int) -> None:
        """So many further answers, and no failure."""
        wanted = len(self.answers) + count
        wait_until(lambda: len(self.answers) >= wanted or bool(self.failures), f"{count} more answers", 60)
        self.check()

    def wait_from(self, wanted: set[str], deadline: float = 30.0) -> None:
        """Until the last answers came from these addresses, from each of them."""

        def from_these() -> bool:
            last = [answer.rpartition(" to ")[2].split(" ")[0] for answer in self.answers[-40:]]
            return bool(self.failures) or (len(last) == 40 and set(last) == wanted)

        wait_until(from_these, f"answers of {wanted}", deadline)
        self.check()

    def check(self) -> None:
        assert not self.failures, f"{len(self.failures)} of {len(self.answers)} failed: {self.failures[:5]}"

    @contextlib.contextmanager
    def running(self) -> Iterator[Traffic]:
        """Until the end of the block; whoever came must have been answered."""
        self._thread.start()
        try:
            yield self
        finally:
            self._over.set()
            self._thread.join(60)
        assert not self._thread.is_alive(), "somebody waits for ever"
        self.check()
