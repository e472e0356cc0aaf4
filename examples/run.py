"""``make run``: a small mesh on one machine, until Ctrl-C ends it: an authority, and two sample services with a sidecar
each, which speak mutual TLS to each other.

Everything lives in a directory that is gone at the end, and the authority's key in memory alone. All processes run in
sessions of their own, so that Ctrl-C reaches only this script: it asks the sidecars to drain first, while the apps
still answer, then ends the apps and the authority. A second Ctrl-C ends everything at once.
"""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TextIO

CONTROL = ("127.0.0.1", 15010)
CONTROL_TLS = "127.0.0.1:15012"


@dataclass(frozen=True)
class Service:
    """A sample service: its app's port, and those of the sidecar before it."""

    name: str
    app: int
    inbound: int
    outbound: int
    admin: int
    scrape: str


WEB = Service("web", app=8080, inbound=15006, outbound=15001, admin=15000, scrape="15020")
ORDERS = Service("orders", app=8081, inbound=16006, outbound=16001, admin=16000, scrape="off")
SERVICES = (WEB, ORDERS)

TRY = """
Two services, web and orders, each with a sidecar; between the sidecars there is mutual TLS. Try:

  curl -x http://127.0.0.1:15001 http://orders/                  # as web's app: call orders
  curl -x http://127.0.0.1:15001 http://orders/headers           # who called: x-forwarded-client-cert
  curl -x http://127.0.0.1:15001 --no-buffer http://orders/stream
  curl -x http://127.0.0.1:15001 --data hello http://orders/echo
  curl -x http://127.0.0.1:16001 http://web/                     # as orders' app: call web
  curl http://127.0.0.1:16006/                                   # past web's sidecar, in plaintext: refused
  curl http://127.0.0.1:15000/certs                              # web's certificate, whom it trusts, handshakes
  curl http://127.0.0.1:16000/requests                           # what came to orders, and why it failed if it did
  http://127.0.0.1:15000/                                        # the same of web to look at, in a browser

The authority is on 127.0.0.1:15010 for its operator. This cuts web off; call orders again after it:

  curl -H "authorization: Bearer $(cat {directory}/control/operator-token)" \\
    -d '{{"spiffeId": "spiffe://cluster.local/ns/default/sa/web"}}' http://127.0.0.1:15010/v1/revocations
  cat {directory}/audit.jsonl                                    # who did what

Below are the access logs. Ctrl-C ends it all.
"""


class Ended(Exception):
    """Somebody asked for the end: Ctrl-C, or SIGTERM."""


class Failed(Exception):
    """A process ended that should not have; it has said why."""


@dataclass
class Child:
    """A process whose lines are shown under its name. ``ready`` is set once it has said so."""

    name: str
    process: subprocess.Popen[str]
    ready: threading.Event = field(default_factory=threading.Event)

    def pass_on(self, lines: IO[str], to: TextIO) -> None:
        """Shows what it says."""
        for line in lines:
            to.write(f"{self.name:10} | {line}")
            to.flush()
            if line in ("sidecar-control: ready\n", "sidecar: ready\n"):
                self.ready.set()


def main() -> int:
    def ask(number: int, frame: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise Ended

    signal.signal(signal.SIGINT, ask)
    signal.signal(signal.SIGTERM, ask)
    try:
        with tempfile.TemporaryDirectory(prefix="sidecar-run-") as directory:
            run(Path(directory))
    except Ended:
        return 0
    except Failed as failed:
        print(f"{failed} ended by itself; what it said is above", file=sys.stderr)
    return 1


def run(directory: Path) -> None:
    """Until somebody asks for the end (Ended), or one of them ends by itself (Failed)."""
    children: list[Child] = []
    try:
        start_all(directory, children)
        sys.stderr.write(TRY.format(directory=directory))
        sys.stderr.flush()
        while True:
            check(children)
            time.sleep(0.25)
    finally:
        stop(children)


def start_all(directory: Path, children: list[Child]) -> None:
    """The authority, then what needs its tokens. Each is in ``children`` as soon as it runs. Raises Failed."""
    place = directory / "control"
    control = start(
        children, "control", "-m", "control", "--ca", "memory", "--store", "memory", "--ca-dir", str(place),
        "--listen", ":".join(map(str, CONTROL)), "--tls-listen", CONTROL_TLS,
        "--audit-log", str(directory / "audit.jsonl"),
    )  # fmt: skip
    wait_ready(control, children)
    operator = (place / "operator-token").read_text().strip()
    mesh = directory / "mesh.yaml"
    mesh.write_text(mesh_file())
    for service in SERVICES:
        app = Path(__file__).with_name("app.py")
        start(children, f"{service.name}-app", str(app), str(service.app), service.name)
        token = directory / f"{service.name}.token"
        token.touch(mode=0o600)
        token.write_text(join_token(operator, service.name))
        start(
            children, service.name, "-m", "sidecar", "--upstream", f"127.0.0.1:{service.app}",
            "--inbound", str(service.inbound), "--outbound", str(service.outbound), "--admin", str(service.admin),
            "--scrape", service.scrape, "--control", f"https://{CONTROL_TLS}", "--token-file", str(token),
            "--service", service.name, "--service-account", service.name, "--mesh", str(mesh),
        )  # fmt: skip
    for service, child in zip(SERVICES, children[2::2], strict=True):
        wait_ready(child, children)
        while not has_certificate(service):
            check(children)
            time.sleep(0.1)


def start(children: list[Child], name: str, *words: str) -> Child:
    """A process of this interpreter."""
    process = subprocess.Popen(
        [sys.executable, *words],
        start_new_session=True,
        text=True,
        errors="backslashreplace",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    child = Child(name, process)
    children.append(child)
    assert process.stdout is not None
    assert process.stderr is not None
    for lines, to in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
        threading.Thread(target=child.pass_on, args=(lines, to), daemon=True).start()
    return child


def wait_ready(child: Child, children: list[Child]) -> None:
    """Until it says that it is. Raises Failed."""
    while not child.ready.wait(0.1):
        check(children)


def check(children: list[Child]) -> None:
    """Raises Failed where one of them has ended, which none should."""
    for child in children:
        if child.process.poll() is not None:
            raise Failed(child.name)


def join_token(operator: str, account: str) -> str:
    """A token with which a sidecar of this service account joins the mesh."""
    connection = http.client.HTTPConnection(*CONTROL, timeout=10)
    try:
        wanted = {"namespace": "default", "serviceAccount": account, "ttl": "24h"}
        connection.request("POST", "/v1/tokens", json.dumps(wanted), {"authorization": f"Bearer {operator}"})
        return str(json.load(connection.getresponse())["token"])
    finally:
        connection.close()


def mesh_file() -> str:
    """What the sidecars know of the mesh: who may serve a service, and where its sidecars are."""
    services = [
        {
            "name": service.name,
            "serviceAccounts": [service.name],
            "ports": [{"port": 80, "name": "http"}],
            "endpoints": [{"address": "127.0.0.1", "port": service.inbound, "mode": "direct"}],
        }
        for service in SERVICES
    ]
    return json.dumps({"services": services}, indent=2) + "\n"  # JSON is YAML


def has_certificate(service: Service) -> bool:
    """Whether its sidecar is ready to serve."""
    connection = http.client.HTTPConnection("127.0.0.1", service.admin, timeout=10)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def stop(children: list[Child]) -> None:
    """Ends them: the sidecars together, then the apps, then the authority."""
    sidecars = [child.process for child in children if child.name in {service.name for service in SERVICES}]
    others = [child.process for child in reversed(children) if child.process not in sidecars]
    try:
        for group in (sidecars, *([one] for one in others)):
            for process in group:
                process.terminate()
            for process in group:
                process.wait()
    except (Ended, KeyboardInterrupt):
        for process in (*sidecars, *others):
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
