"""A known load, and what Prometheus makes of it; ``tests.soak`` runs it for a minute.

The load is even, so that a rate means something, and counted by whoever sends it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass

from tests.peer.prometheus import Prometheus
from tests.support.process import SidecarProcess
from tests.support.raw import Client
from tests.support.upstream import RecordingUpstream, wait_until

PER_SECOND = 200
WITHIN = 0.01
TOTAL = 'sum(istio_requests_total{reporter="destination"})'
_REQUEST = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Seen:
    """Counts of the whole load, and rates per second over most of its time: as the sender has it, as Prometheus has."""

    sent: int
    counted: float
    sent_rate: float
    rate: float
    bucket_rate: float
    bytes_rate: float

    def check(self) -> None:
        """AssertionError where the two do not agree."""
        assert self.counted == self.sent, self
        for name in ("rate", "bucket_rate"):
            assert abs(getattr(self, name) / self.sent_rate - 1) < WITHIN, (name, self)
        assert abs(self.bytes_rate / (len(b"GET / 0") * self.sent_rate) - 1) < WITHIN, self


def observe(seconds: float) -> Seen:
    """Sends requests for that long while Prometheus scrapes every second."""
    addresses = ("--inbound", "127.0.0.1:0", "--outbound", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--scrape",
                 "127.0.0.1:0")  # fmt: skip
    with contextlib.ExitStack() as stack:
        app = stack.enter_context(RecordingUpstream(strict=False))
        sidecar = stack.enter_context(SidecarProcess(app.port, addresses=addresses, access_log="off"))
        client = stack.enter_context(Client(sidecar.inbound, deadline=seconds + 60))
        prometheus = stack.enter_context(Prometheus(sidecar.ports["scrape"]))
        _one(client)  # so that the series are there before they are counted
        wait_until(lambda: prometheus.number(TOTAL) == 1, "the first request was scraped", 30)
        began = time.time()
        times = _load(client, seconds)
        wait_until(lambda: prometheus.number(TOTAL) >= len(times) + 1, "the last request was scraped", 30)
        window = int(seconds) - 4
        until = began + seconds - 1
        over = f"[{window}s]"
        inside = sum(until - window < each <= until for each in times)
        return Seen(
            sent=len(times),
            counted=prometheus.number(TOTAL) - 1,
            sent_rate=inside / window,
            rate=prometheus.number(f'sum(rate(istio_requests_total{{reporter="destination"}}{over}))', until),
            bucket_rate=prometheus.number(
                f'sum(rate(istio_request_duration_milliseconds_bucket{{le="+Inf"}}{over}))', until
            ),
            bytes_rate=prometheus.number(f"sum(rate(istio_response_bytes_sum{over}))", until),
        )


def _load(client: Client, seconds: float) -> list[float]:
    """PER_SECOND requests, evenly; the times of day at which they were answered."""
    pause = threading.Event()
    times = []
    began = time.monotonic()
    for number in range(int(seconds * PER_SECOND)):
        pause.wait(max(0.0, began + number / PER_SECOND - time.monotonic()))
        _one(client)
        times.append(time.time())
    return times


def _one(client: Client) -> None:
    client.heard.raw.clear()
    client.send(_REQUEST)
    (reply,) = client.replies([b"GET"], 1)
    assert reply.status == 200 and reply.body == b"GET / 0"
