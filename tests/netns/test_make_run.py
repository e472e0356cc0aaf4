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
        return self.pod.run("bash", "-c", command.replace("curl ", "curl -sS -m 20 "), code=code)

    @property
    def printed(self) -> list[str]:
        """The commands that it says to try, without what it says of them."""
        text = self.process.errors.replace("\\\n", " ")
        return re.findall(r"^  ((?:curl|cat) .*?)(?: {2,}#.*)?$", text, re.MULTILINE)

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
    answers = {}
    for command in run.printed:
        answers[command] = run.say(command, code=56 if "http://127.0.0.1:16006/" in command else 0)
    assert len(answers) == 10, run.printed
    (hello, headers, stream, echo, web, past, certs, requests, revoked, audit) = answers.values()
    assert (hello, web, echo) == ("Hello from orders.\n", "Hello from web.\n", "hello")
    assert ";URI=spiffe://cluster.local/ns/default/sa/web" in headers
    assert stream.endswith("chunk 5 of 5\n")
    assert "reset by peer" in past
    assert "spiffe://cluster.local/ns/default/sa/web" in certs
    assert "plaintext_refused" in requests
    assert '"spiffeId":"spiffe://cluster.local/ns/default/sa/web"' in revoked
    assert '"what":"revocations.add","verdict":"granted"' in audit

    call = "curl -w '%{http_code}' -o /dev/null -x http://127.0.0.1:15001 http://orders/"

    def cut_off() -> bool:
        return run.say(call) != "200"

    wait_until(cut_off, "web is cut off")
    assert run.say("curl -x http://127.0.0.1:16001 http://orders/ -o /dev/null -w '%{http_code}'") == "200"


def test_nothing_can_be_read_between_its_sidecars(run: Run) -> None:
    with Sniffer(run.pod, "lo") as sniffer:
        said = MARKER.decode()
        echo = f"curl -x http://127.0.0.1:15001 -H 'x-marker: {said}' --data {said} 'http://orders/echo?{said}'"
        assert run.say(echo) == said
        # The last step, from the sidecar to its app on loopback, is in the clear: so the search finds what is there.
        assert sniffer.between(APP).count(MARKER) == 4  # path, header, body, and the answer
        assert sniffer.between(INBOUND).count(MARKER) == 0
        flows = [data for ports, data in sniffer.flows().items() if INBOUND in ports]
        assert len(flows) == 2 and all(len(data) > 500 and is_tls(data) for data in flows)


def test_ctrl_c_leaves_nothing_behind(run: Run) -> None:
    directory = run.directory()
    assert directory.is_dir()
    assert (directory.stat().st_mode & 0o777) == 0o700
    mine = processes(run.pod)
    assert len(mine) == 6, mine  # the script, the authority, two apps, two sidecars
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
