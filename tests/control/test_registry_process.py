"""The registry of the real process: what a restart and a kill leave, a process that was stopped, and many at once."""

from __future__ import annotations

import http.client
import json
import signal
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import pytest

from certs.keys import key_to_pem, new_key
from certs.request import new_request
from certs.spiffe import parse
from tests.support.control_process import ControlProcess, spiffe_id

DEADLINE = 60.0
SHORTEST = 3.0  # seconds, the ttl that makes these tests quick


@pytest.fixture
def control() -> Iterator[ControlProcess]:
    with ControlProcess(3600) as process:
        process.ask("PUT", "/v1/services/shop/web", {"ports": [{"port": 80}], "serviceAccounts": ["web"]})
        yield process


class Workload:
    """A sidecar's part in this: by a token on loopback, or by a certificate at the port for sidecars."""

    def __init__(self, control: ControlProcess, endpoint_id: str, papers: ssl.SSLContext | None = None) -> None:
        self._control = control
        self._token = "" if papers else control.token("web")
        self._papers = papers
        self.path = f"/v1/services/shop/web/endpoints/{endpoint_id}"

    def register(self, **told: Any) -> int:
        body = {"mode": "direct", "port": 15006, "ttl": f"{SHORTEST:g}s", **told}
        return self._ask("PUT", self.path, body)

    def beat(self, **told: Any) -> int:
        return self._ask("POST", f"{self.path}/heartbeat", told)

    def leave(self) -> int:
        return self._ask("DELETE", self.path)

    def _ask(self, method: str, path: str, body: object = None) -> int:
        connection: http.client.HTTPConnection
        if self._papers:
            told = urlsplit(self._control.url)
            connection = http.client.HTTPSConnection(told.hostname or "", told.port, timeout=30, context=self._papers)
        else:
            connection = http.client.HTTPConnection("127.0.0.1", plain_port(self._control), timeout=30)
        headers = {"authorization": f"Bearer {self._token}"} if self._token else {}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            return connection.getresponse().status
        finally:
            connection.close()


class Beating:
    """Heartbeats of some, every second, until it ends; a context manager."""

    def __init__(self, *workloads: Workload) -> None:
        self._workloads = workloads
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *how: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(SHORTEST / 3):
            for each in self._workloads:
                try:
                    each.beat()
                except OSError:
                    pass  # the control plane is away, as some of these tests have it


def plain_port(control: ControlProcess) -> int:
    return int(control.command[control.command.index("--listen") + 1].rpartition(":")[2])


def papers(control: ControlProcess) -> ssl.SSLContext:
    """A certificate for web, by a join token, as a context to connect with."""
    key = new_key()
    request = new_request(key, parse(spiffe_id("web")))
    connection = http.client.HTTPConnection("127.0.0.1", plain_port(control), timeout=30)
    headers = {"authorization": f"Bearer {control.token('web')}"}
    connection.request("POST", "/v1/certificates", json.dumps({"csr": request}), headers)
    made = json.loads(connection.getresponse().read())
    connection.close()
    key_file, chain_file = control.directory / "web.key", control.directory / "web.pem"
    key_file.write_bytes(key_to_pem(key))
    chain_file.write_text(made["chain"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(chain_file, key_file)
    return context


def endpoints(control: ControlProcess) -> dict[str, Any]:
    found = control.ask("GET", "/v1/services/shop/web")["endpoints"]
    return {each["id"]: each for each in found}


def wait_for(true: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + DEADLINE
    while not true():
        assert time.monotonic() < until, what
        time.sleep(0.1)


@pytest.mark.parametrize("how", ["end", "kill"])
def test_what_was_registered_is_there_after_a_restart_and_its_heartbeats_go_on(
    control: ControlProcess, how: str
) -> None:
    by_token, by_certificate = Workload(control, "a"), Workload(control, "b", papers(control))
    assert by_token.register(healthy=True, labels={"version": "v2"}) == 200
    assert by_certificate.register(port=15007) == 200
    assert by_certificate.beat(healthy=False, detail="tcp: connection refused") == 204
    before = endpoints(control)
    wait_for(lambda: bool(control.ask("GET", "/v1/services/shop/web")["virtualAddresses"]), "no virtual address")
    virtual = control.ask("GET", "/v1/services/shop/web")["virtualAddresses"]
    control.kill() if how == "kill" else control.end()
    control.start()
    after = endpoints(control)
    for each in (*before.values(), *after.values()):
        each.pop("lastHeard", None)
        each.pop("stale", None)
    assert after == before
    assert control.ask("GET", "/v1/services/shop/web")["virtualAddresses"] == virtual
    assert [by_token.beat(healthy=True), by_certificate.beat(healthy=False)] == [204, 204]
    assert by_token.leave() == 204
    assert set(endpoints(control)) == {"b"}


def test_who_dies_beside_one_that_lives_is_dropped_and_the_last_one_never(control: ControlProcess) -> None:
    lives, dies = Workload(control, "lives"), Workload(control, "dies")
    assert [lives.register(), dies.register(port=15007)] == [200, 200]
    with Beating(lives, dies):
        time_of_both = time.monotonic() + 1.5 * SHORTEST
        wait_for(lambda: time.monotonic() > time_of_both, "time goes by")
        assert set(endpoints(control)) == {"lives", "dies"}
    with Beating(lives):
        wait_for(lambda: set(endpoints(control)) == {"lives"}, "the dead one is there still")
    assert dies.beat() == 404
    wait_for(lambda: endpoints(control)["lives"].get("stale", False), "the last one is not shown as stale")
    assert lives.beat() == 204
    assert "stale" not in endpoints(control)["lives"]


def test_a_process_that_was_stopped_takes_nobody_for_silent(control: ControlProcess) -> None:
    workloads = [Workload(control, endpoint_id) for endpoint_id in "abc"]
    for number, each in enumerate(workloads):
        assert each.register(port=15006 + number) == 200
    with Beating(*workloads):
        wait_for(lambda: len(endpoints(control)) == 3, "they are not there")
        control.process.send_signal(signal.SIGSTOP)
        stopped = time.monotonic() + 2 * SHORTEST
        wait_for(lambda: time.monotonic() > stopped, "time goes by")
        control.process.send_signal(signal.SIGCONT)
        again = time.monotonic() + 2 * SHORTEST
        while time.monotonic() < again:
            assert set(endpoints(control)) == set("abc")
            time.sleep(0.1)


def test_two_thousand_registrations_at_once_all_go_through(control: ControlProcess) -> None:
    """Of 400 clients, five each; each connection is new, as after an outage."""
    token = control.token("web")

    def register(number: int) -> list[int]:
        connection = http.client.HTTPConnection("127.0.0.1", plain_port(control), timeout=60)
        statuses = []
        for turn in range(5):
            body = json.dumps({"mode": "direct", "port": 1024 + 5 * number + turn, "ttl": "5m"})
            path = f"/v1/services/shop/web/endpoints/e{number}-{turn}"
            connection.request("PUT", path, body, {"authorization": f"Bearer {token}"})
            reply = connection.getresponse()
            reply.read()
            statuses.append(reply.status)
        connection.close()
        return statuses

    with ThreadPoolExecutor(400) as crowd:
        statuses = [status for each in crowd.map(register, range(400)) for status in each]
    assert statuses == [200] * 2000
    assert len(endpoints(control)) == 2000
    control.kill()
    control.start()
    assert len(endpoints(control)) == 2000
