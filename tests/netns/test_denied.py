"""What a policy denies is never dialed where connections are captured, in both directions: HTTP, TLS, opaque bytes, and
a client that is silent."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from tests.netns.conftest import MakePod
from tests.netns.environment import PROXY_ID
from tests.netns.pod import Pod
from tests.proxy.test_denied import SAID, SILENCE
from tests.support.upstream import wait_until

APP = 8080
_DENYING = """
import dataclasses, sys
from sidecar import app, cli
from sidecar.errors import ProxyError, Reason
made = app._context
def deny(asked):
    print(f"denied: {asked.direction} {asked.protocol}", file=sys.stderr, flush=True)
    raise ProxyError(Reason.CALLER_REFUSED, "the policy of the test denies everything")
app._context = lambda *words: dataclasses.replace(made(*words), rules=deny)
sys.exit(cli.main())
"""


@pytest.fixture(scope="module")
def pods(keep_pod: MakePod) -> Iterator[tuple[Pod, Pod]]:
    """One with a sidecar that denies, and one without any."""
    denying, plain = keep_pod("denying"), keep_pod("plain")
    denying.init()
    proxy = denying.start(
        "sidecar-denying", str(denying.environment.python), "-c", _DENYING, "--interception", "redirect",
        "--request-head-timeout", "1s", "--drain-seconds", "1s", "--access-log", "off", uid=PROXY_ID,
    )  # fmt: skip
    proxy.wait_for("sidecar: ready")
    wait_until(lambda: denying.get("/ready")[0] == 200, "the rules are found")
    yield denying, plain
    proxy.stop()


def _talk(client: socket.socket, said: list[bytes]) -> bytes:
    heard = b""
    try:
        for piece in said:
            client.sendall(piece)
            if not piece:
                time.sleep(SILENCE)
        while more := client.recv(65536):
            heard += more
    except ConnectionError:
        pass
    return heard


@pytest.mark.parametrize("said", SAID.values(), ids=SAID)
@pytest.mark.parametrize("direction", ["inbound", "outbound"])
def test_nothing_reaches_the_app(pods: tuple[Pod, Pod], direction: str, said: list[bytes]) -> None:
    denying, plain = pods
    caller, callee = (plain, denying) if direction == "inbound" else (denying, plain)
    before = denying.proxy.errors.count(f"denied: {direction}")
    with callee.listen(APP) as app:
        app.settimeout(0)
        with caller.connect(callee.v4, APP) as client:
            heard = _talk(client, said)
        assert not heard or heard.startswith(b"HTTP/1.1 4")
        with pytest.raises(BlockingIOError):
            app.accept()
    assert denying.proxy.errors.count(f"denied: {direction}") > before
