"""Two sidecars on one machine that run under one ``--instance``: both serve, and either may be killed.

In namespaces, and until the dead one is dropped: ``tests/netns/test_same_instance.py``.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.soak import App, connect, send_one, take_one
from tests.support.control_process import ControlProcess
from tests.support.fleet import HOST, service
from tests.support.process import SidecarProcess
from tests.support.upstream import wait_until

SHORT = ("-m", "tests.support.short_ttl")
TTL = 3.0  # seconds, as those ask for
CALLS = 20


@dataclass(frozen=True, slots=True)
class Twins:
    """Two sidecars of ``twin``, and one that calls them."""

    control: ControlProcess
    caller: SidecarProcess
    pair: tuple[SidecarProcess, SidecarProcess]

    def endpoints(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.control.ask("GET", "/v1/services/shop/twin")["endpoints"]
        return found

    def call(self, times: int) -> None:
        """So many calls, none of which may fail."""
        host = HOST.format("twin").encode()
        for number in range(times):
            with connect(self.caller.outbound) as sock:
                send_one(sock, number, base=b"http://" + host, host=host, close=True)
                take_one(sock, number)


@pytest.fixture
def twins() -> Iterator[Twins]:
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="twins-")))
        app = stack.enter_context(App())
        control = stack.enter_context(ControlProcess(3600.0))
        control.ask("POST", "/v1/resources:apply", [service("twin"), service("caller")])

        def sidecar(name: str, *flags: str) -> SidecarProcess:
            token = directory / f"{name}.token"
            token.write_text(control.token(name))
            return stack.enter_context(
                SidecarProcess(
                    app.port, "--control", control.url, "--token-file", str(token), "--namespace", "shop", "--service",
                    name, "--service-account", name, *flags, entry=SHORT,
                )
            )  # fmt: skip

        pair = sidecar("twin", "--instance", "twin-1"), sidecar("twin", "--instance", "twin-1")
        made = Twins(control, sidecar("caller"), pair)
        wait_until(lambda: len(made.endpoints()) == 2, "both are registered", 30)
        wait_until(lambda: _knows_both(made.caller), "the caller knows both", 30)
        yield made


def _knows_both(caller: SidecarProcess) -> bool:
    status, text = caller.admin_get("/config_dump")
    return status == 200 and text.count('"mode": "direct"') + text.count('"mode":"direct"') >= 3


@pytest.mark.parametrize("which", [0, 1], ids=["the first", "the second"])
def test_when_either_is_killed_no_call_fails(twins: Twins, which: int) -> None:
    assert {each["id"] for each in twins.endpoints()} == {"twin-1"}
    twins.call(CALLS)
    twins.pair[which].process.kill()
    twins.pair[which].wait_exit()
    killed = time.monotonic()
    while time.monotonic() < killed + 2 * TTL:
        twins.call(CALLS)
    lives = [each["port"] for each in twins.endpoints() if not each.get("stale")]
    assert lives == [twins.pair[1 - which].inbound], "heartbeats of the one are none of the other"
