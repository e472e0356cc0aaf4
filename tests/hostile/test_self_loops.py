"""CTL-6: a proxy that is asked to call itself refuses at once; nothing goes round. What the rules lead back to it is in
tests/netns/test_capture_proxy.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hostile.coverage import covers
from tests.proxy.front import Front
from tests.support.process import SidecarProcess
from tests.support.raw import ask
from tests.support.upstream import wait_until

LISTENERS = ("inbound", "outbound", "admin")
NAMES = ("127.0.0.1", "localhost", "127.1.2.3", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0")


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    with Front() as made:
        yield made


@covers("CTL-6")
@pytest.mark.parametrize("host", NAMES)
@pytest.mark.parametrize("listener", LISTENERS)
@pytest.mark.parametrize("method", [b"GET", b"CONNECT"])
def test_outbound_does_not_call_its_own_listeners(front: Front, listener: str, host: str, method: bytes) -> None:
    sidecar = front.sidecar
    authority = f"{host}:{sidecar.ports[listener]}".encode()
    target = authority if method == b"CONNECT" else b"http://" + authority + b"/loop"
    before = len(sidecar.log_records())
    request = b"%b %b HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % (method, target, authority)
    (reply,) = ask(sidecar.ports["outbound"], request, (method,))
    assert reply.status == 403
    wait_until(lambda: len(sidecar.log_records()) > before, "the refusal is in the log")
    (record,) = sidecar.log_records()[before:]  # one: it did not come in again anywhere
    assert record["response_code_details"] == "own_listener"


@covers("CTL-6")
def test_inbound_does_not_start_in_front_of_itself() -> None:
    where = ("--inbound", "0.0.0.0:15006")
    with SidecarProcess("127.0.0.1:15006", addresses=where, wait_ready=False) as sidecar:
        assert sidecar.wait_exit(10) == 2
    assert sidecar.errors[0].startswith("sidecar: error: --upstream: 127.0.0.1:15006 is")
