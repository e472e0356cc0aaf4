"""``make run``: a mesh on one machine, until Ctrl-C ends it: a control plane, three services of a shop with a sidecar
each, and customers, who buy all the time.

Whoever buys asks web, which asks orders, which asks stock. What the mesh is stands in ``examples/shop/shop.yaml``; the
sidecars know it from the control plane alone. Everything lives in a directory that is gone at the end, and the
authority's key in memory alone. All processes run in sessions of their own, so that Ctrl-C reaches only this script: it
asks the sidecars to drain first, while the apps still answer, then ends the apps and the control plane. A second Ctrl-C
ends everything at once.
"""

from __future__ import annotations

import collections
import http.client
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TextIO

CONTROL = "127.0.0.1:15010"
CONTROL_TLS = "127.0.0.1:15012"
HERE = Path(__file__).parent
BUYING_SECONDS = 0.5  # from one customer to the next
TELLING_SECONDS = 10.0


@dataclass(frozen=True)
class Service:
    """A service of the shop: its app's port, those of the sidecar before it, and whom its app asks."""

    name: str
    app: int
    inbound: int
    outbound: int
    admin: int
    scrape: str
    asks: str = ""


WEB = Service("web", app=8080, inbound=15006, outbound=15001, admin=15000, scrape="15020", asks="orders")
ORDERS = Service("orders", app=8081, inbound=16006, outbound=16001, admin=16000, scrape="off", asks="stock")
STOCK = Service("stock", app=8082, inbound=17006, outbound=17001, admin=17000, scrape="off")
SERVICES = (WEB, ORDERS, STOCK)
WEB_ID = "spiffe://cluster.local/ns/default/sa/web"
ORDERS_ID = "spiffe://cluster.local/ns/default/sa/orders"

TRY = """
A control plane, and three services with a sidecar each: web asks orders, which asks stock. Between the sidecars there
is mutual TLS; customers come to web without it. In another terminal, in this directory:

  export SIDECARCTL_SERVER=http://{control} SIDECARCTL_TOKEN_FILE={directory}/control/operator-token
  {ctl} services # who is there, and how well
  {ctl} proxies # who holds which version of all this
  {ctl} get peerauthentication customers -o yaml # why customers may come in
  curl http://127.0.0.1:15006/buy # as a customer
  curl -x http://127.0.0.1:15001 http://orders/headers # as web's app; who called: x-forwarded-client-cert
  curl http://127.0.0.1:16006/ # past orders' sidecar, in plaintext: refused
  curl -i -x http://127.0.0.1:15001 http://stock/ # as web's app: a policy lets orders alone ask stock, and says so
  {ctl} explain --proxy 127.0.0.1:17000 --from {orders} GET / # what would become of a call by orders
  curl -i -x http://127.0.0.1:15001 'http://orders/slow?seconds=1' # each caller gets one in a minute: ask twice
  {ctl} limits --proxy 127.0.0.1:16000 # who is limited at orders, and for how long
  {ctl} apply -f {shop}/wrong.yaml # a mistake: refused, with its line
  {ctl} apply -f {shop}/closed.yaml # customers are refused, as a line below will tell
  {ctl} rollback peerauthentication customers --to 1 # and come in again
  {ctl} admin requests --proxy 127.0.0.1:16000 # what came to orders' sidecar
  {ctl} revoke {web} # nobody talks to web any more
  {ctl} revoke --lift {web} # web gets another certificate
  http://127.0.0.1:15000/ # web's sidecar to look at, in a browser

How a fourth service is added stands in README.md. Ctrl-C ends it all.
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
        while bought() != "bought":  # all know of all
            check(children)
            time.sleep(0.1)
        threading.Thread(target=buy, daemon=True).start()
        command = Path(sys.executable).with_name("sidecarctl")
        ctl = short(command) if command.exists() else f"{sys.executable} -m control.ctl"
        shop = short(HERE / "shop")
        sys.stderr.write(
            aligned(TRY.format(directory=directory, control=CONTROL, shop=shop, ctl=ctl, web=WEB_ID, orders=ORDERS_ID))
        )
        sys.stderr.flush()
        while True:
            check(children)
            time.sleep(0.25)
    finally:
        stop(children)


def start_all(directory: Path, children: list[Child]) -> None:
    """The control plane, then what needs its tokens. Each is in ``children`` as soon as it runs. Raises Failed."""
    place = directory / "control"
    control = start(
        children, "control", "-m", "control", "--ca", "memory", "--store", "memory", "--ca-dir", str(place),
        "--listen", CONTROL, "--tls-listen", CONTROL_TLS, "--audit-log", str(directory / "audit.jsonl"),
    )  # fmt: skip
    wait_ready(control, children)
    operator = place / "operator-token"
    sidecarctl(operator, "apply", "-f", str(HERE / "shop" / "shop.yaml"))
    for service in SERVICES:
        start(
            children, f"{service.name}-app", str(HERE / "app.py"), str(service.app), service.name, service.asks,
            environment={"http_proxy": f"http://127.0.0.1:{service.outbound}", "no_proxy": ""},
        )  # fmt: skip
        token = directory / f"{service.name}.token"
        sidecarctl(operator, "token", "create", "-n", "default", "--service-account", service.name, "--out", str(token))
        start(
            children, service.name, "-m", "sidecar", "--upstream", f"127.0.0.1:{service.app}",
            "--inbound", str(service.inbound), "--outbound", str(service.outbound), "--admin", str(service.admin),
            "--scrape", service.scrape, "--control", f"https://{CONTROL_TLS}", "--token-file", str(token),
            "--service", service.name, "--service-account", service.name, "--health", "http:/",
            "--access-log-file", str(directory / f"{service.name}.log"),
        )  # fmt: skip
    for service, child in zip(SERVICES, children[2::2], strict=True):
        wait_ready(child, children)
        while not is_ready(service):
            check(children)
            time.sleep(0.1)


def sidecarctl(token: Path, *words: str) -> None:
    """As an operator would. Raises Failed where it is refused; it has said why."""
    command = [sys.executable, "-m", "control.ctl", "--server", f"http://{CONTROL}", "--token-file", str(token)]
    if subprocess.run([*command, *words], stdout=subprocess.DEVNULL, check=False).returncode:
        raise Failed(f"sidecarctl {words[0]}")


def start(children: list[Child], name: str, *words: str, environment: dict[str, str] | None = None) -> Child:
    """A process of this interpreter."""
    process = subprocess.Popen(
        [sys.executable, *words],
        env=os.environ | (environment or {}),
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


def is_ready(service: Service) -> bool:
    """Whether its sidecar is ready to serve."""
    connection = http.client.HTTPConnection("127.0.0.1", service.admin, timeout=10)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


def buy() -> None:
    """The customers: one after the other, in plaintext; what became of them is told now and then."""
    outcomes: collections.Counter[str] = collections.Counter()
    told = time.monotonic()
    while True:
        outcomes[bought()] += 1
        if time.monotonic() - told >= TELLING_SECONDS:
            words = ", ".join(f"{number} {outcome}" for outcome, number in outcomes.most_common())
            sys.stdout.write(f"{'customers':10} | {words}\n")
            sys.stdout.flush()
            outcomes.clear()
            told = time.monotonic()
        time.sleep(BUYING_SECONDS)


def bought() -> str:
    """What became of one customer."""
    connection = http.client.HTTPConnection("127.0.0.1", WEB.inbound, timeout=10)
    try:
        connection.request("GET", "/buy")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return "were not let in"
    finally:
        connection.close()
    return "bought" if status == 200 else f"got {status}"


def short(path: Path) -> str:
    """A path as one types it in the checkout, where that is where this was started."""
    here = Path.cwd()
    return os.path.relpath(path) if here == HERE.parent and path.is_relative_to(here) else str(path)


def aligned(text: str) -> str:
    """What is said of commands, below each other."""
    lines = [line.partition(" # ") for line in text.splitlines()]
    width = max(len(command) for command, _, said in lines if said)
    return "".join(f"{one:{width}}  # {said}\n" if said else f"{one}\n" for one, _, said in lines)


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
