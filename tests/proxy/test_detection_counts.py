"""What connections turned out to speak, as a scraper of a real process sees it: each one is counted once."""

from __future__ import annotations

import re

from tests.support.process import SidecarProcess
from tests.support.raw import Client, ask
from tests.support.upstream import RecordingUpstream, wait_until

_OUTCOME = re.compile(r'^sidecar_detected_connections_total\{outcome="(\w+)"\} (\d+)', re.MULTILINE)


def outcomes(sidecar: SidecarProcess) -> dict[str, int]:
    return {word: int(count) for word, count in _OUTCOME.findall(sidecar.admin_get("/metrics")[1]) if count != "0"}


def test_each_connection_has_one_outcome() -> None:
    flags = ("--request-head-timeout", "200ms", "--idle-timeout", "2s")
    with RecordingUpstream(strict=False) as app, SidecarProcess(app.port, *flags) as sidecar:
        ask(sidecar.inbound, b"GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n")
        for data in (b"\x00\x01\x02\x03", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b""):
            with Client(sidecar.inbound) as client:
                client.send(data)
                client.finish()
                client.read_to_end()
        with Client(sidecar.inbound) as client:
            client.send(b"GE")
            client.read_to_end()
        with Client(sidecar.outbound) as client:
            client.send(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % (app.port, app.port))
            client.replies((b"CONNECT",), 1)
            client.finish()
            client.read_to_end()
        expected = {"http": 1, "opaque": 1, "http2": 1, "nothing": 2, "undecided": 1}
        wait_until(lambda: outcomes(sidecar) == expected, f"{expected}, not {outcomes(sidecar)}")
        count = re.search(r"^sidecar_detection_seconds_count (\d+)", sidecar.admin_get("/metrics")[1], re.MULTILINE)
        assert count is not None and int(count[1]) >= 3
