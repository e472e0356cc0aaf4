"""``make run``: what it prints can be typed, and does what it says; between its sidecars nothing can be read; Ctrl-C
leaves nothing behind. In a namespace, since its ports are those that everybody has."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.netns.conftest import MakePod
from tests.netns.environment import ROOT
from tests.netns.pod import Pod
from tests.netns.sniffer import Sniffer, is_tls
from tests.support.upstream import wait_until

APP, INBOUND = 8081, 16006  # of orders
WEB_ID = "spiffe://cluster.local/ns/default/sa/web"
MARKER = b"can-anybody-read-this"


class Run:
    """The script, started."""

    def __init__(self, pod: Pod) -> None:
        self.pod = pod
        words = [sys.executable, str(ROOT / "examples" / "run.py")]
        variables = ["env", f"PYTHONPATH={ROOT}", "PYTHONDONTWRITEBYTECODE=1"]
        self.process = pod.start("run", *variables, *words, uid=0)

    def say(self, command: str, code: int = 0) -> str:
        """What a shell answers to it."""
        words = f"cd {ROOT}; {self.settings}; {command.replace('curl ', 'curl -sS -m 20 ')} 2>&1"
        return self.pod.run("env", f"PYTHONPATH={ROOT}", "bash", "-c", words, code=code)

    @property
    def printed(self) -> list[str]:
        """The commands that it says to try, without what it says of them."""
        text = self.process.errors.replace("\\\n", " ")
        return re.findall(r"^  ((?:curl|\S+ -m control.ctl|\S*sidecarctl) .*?)(?: {2,}#.*)?$", text, re.MULTILINE)

    @property
    def settings(self) -> str:
        """What it says to export first."""
        found = re.search(r"^  (export .*)$", self.process.errors, re.MULTILINE)
        assert found is not None
        return found[1]

    def directory(self) -> Path:
        found = re.search(r"/\S*/sidecar-run-\w+", self.process.errors)
        assert found is not None
        return Path(found[0])

    def end(self) -> None:
        """Ctrl-C."""
        if self.process.running:
            self.process.signal(signal.SIGINT)
        assert self.process.wait() == 0, self.process.errors


@pytest.fixture
def run(make_pod: MakePod) -> Iterator[Run]:
    started = Run(make_pod("run"))
    try:
        started.process.wait_for("Ctrl-C ends it all", 60)
        yield started
    finally:
        started.end()


def test_what_it_prints_can_be_typed(run: Run) -> None:
    codes = {"wrong.yaml": 1, "curl http://127.0.0.1:16006/": 56}
    answers = []
    for command in run.printed:
        if "/slow" in command:
            assert "200 OK" in run.say(command)  # the first one
        answers.append(run.say(command, code=next((codes[part] for part in codes if part in command), 0)))
        if "closed.yaml" in command:
            wait_until(lambda: not bought(run), "customers are kept out")
        elif "rollback" in command:
            wait_until(lambda: bought(run), "customers come in again")
    assert len(answers) == 16, run.printed
    (
        services,
        proxies,
        document,
        buy,
        headers,
        past,
        denied,
        allowed,
        export,
        limits,
        wrong,
        closed,
        again,
        requests,
        revoked,
        lifted,
    ) = answers
    assert re.findall(r"^default +(\w+) .* 1/1$", services, re.MULTILINE) == ["orders", "stock", "web"]
    assert proxies.count("in sync") == 3
    assert "mode: PERMISSIVE" in document
    assert buy == "web -> orders -> stock: sold\n"
    assert f";URI={WEB_ID}" in headers
    assert "reset by peer" in past
    assert "403 Forbidden" in denied and "RBAC: access denied" in denied and "default/stock-callers rule 0" in denied
    assert "allowed: True" in allowed and "decided_by: default/stock-callers[0]" in allowed
    assert (
        "429 Too Many Requests" in export and "beyond limit per-caller of RateLimitPolicy default/orders-slow" in export
    )
    assert re.search(rf"orders-slow +per-caller +requests +1 +1 +{WEB_ID}, for \d+s", limits)
    assert re.search(r"wrong\.yaml:9: spec\.mtls\.mode: 'RELAXED' is not one of .*\n.*nothing was changed", wrong)
    assert (closed, again) == (
        "PeerAuthentication default/customers configured\n",
        "PeerAuthentication default/customers is generation 3 now\n",
    )
    assert "plaintext_refused" in requests
    assert f"{WEB_ID} is revoked" in revoked
    assert f"{WEB_ID} may have certificates again" in lifted
    wait_until(lambda: bought(run), "web has another certificate")


def bought(run: Run) -> bool:
    """Whether a customer is let in, and served by all three."""
    answer = "-s -o /dev/null -w '%{http_code}'"
    return run.say(f"curl {answer} http://127.0.0.1:15006/buy || true").endswith("200")


def test_a_service_is_added_as_the_readme_says(run: Run) -> None:
    page = (ROOT / "README.md").read_text()
    (block,) = re.findall(r"```\n(# a fourth service.*?)```", page, re.DOTALL)
    lines = [line for line in block.replace("\\\n", " ").splitlines() if line and not line.startswith("#")]
    assert len(lines) == 5, lines
    try:
        for line in lines[:-1]:
            line = line.replace("ratings.token", f"{run.directory()}/ratings.token")
            line = line.replace(".venv/bin/sidecarctl", f"{sys.executable} -m control.ctl")
            line = line.replace(".venv/bin/sidecar", f"{sys.executable} -m sidecar")
            quiet = " >/dev/null 2>&1 &" if line.endswith("&") else ""
            run.say(line.removesuffix("&") + quiet)
        wait_until(lambda: "Hello from ratings.\n" in run.say(f"{lines[-1]} || true"), "web's app reaches ratings")
    finally:
        run.say("pkill -f '[ ]ratings( |$)' || true")


def test_nothing_can_be_read_between_its_sidecars(run: Run) -> None:
    with Sniffer(run.pod, "lo") as sniffer:
        said = MARKER.decode()
        echo = f"curl -x http://127.0.0.1:15001 -H 'x-marker: {said}' --data {said} 'http://orders/echo?{said}'"
        assert run.say(echo) == said
        # The last step, from the sidecar to its app on loopback, is in the clear: so the search finds what is there.
        assert sniffer.between(APP).count(MARKER) == 4  # path, header, body, and the answer
        assert sniffer.between(INBOUND).count(MARKER) == 0
        flows = [data for ports, data in sniffer.flows().items() if INBOUND in ports]
        # The customers' calls keep a connection open, so its handshake was before.
        assert len(flows) >= 2 and sum(map(len, flows)) > 300 and all(is_tls(data) for data in flows)


def test_ctrl_c_leaves_nothing_behind(run: Run) -> None:
    directory = run.directory()
    assert directory.is_dir()
    assert (directory.stat().st_mode & 0o777) == 0o700
    mine = processes(run.pod)
    assert len(mine) == 8, mine  # the script, the control plane, three apps, three sidecars
    run.end()
    assert not directory.exists()
    assert processes(run.pod) == []
    run.process.check_errors()


def test_a_port_that_is_taken_ends_it_with_the_reason(make_pod: MakePod) -> None:
    pod = make_pod("taken")
    with pod.listen(APP, host="127.0.0.1"):
        process = Run(pod).process
        assert process.wait(60) == 1
    assert "orders-app | app: 127.0.0.1:8081: Address already in use; stop what listens there" in process.errors
    assert process.errors.endswith("orders-app ended by itself; what it said is above\n")
    assert processes(pod) == []


def processes(pod: Pod) -> list[str]:
    """The command lines of Python in the pod."""
    space = Path(f"/proc/{pod.pid}/ns/net").readlink()
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if (place / "ns/net").readlink() == space:
                found.append((place / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # it has ended meanwhile, or is a zombie
            continue
    return [line for line in found if sys.executable in line and "tests.netns" not in line]
