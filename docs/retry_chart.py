"""Measures what retries add to the load of an upstream during an outage, and draws docs/images/retries.png:
``python -m docs.retry_chart``. It needs matplotlib (the extra ``bench``).

A sidecar is started here three times, each time with another budget, in front of an app that answers after half a
second, and for some time with 503 only. A client begins a steady number of requests per second and waits for none. What
is counted is what arrives at the app.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

ROOT: Final = Path(__file__).parents[1]
IMAGE: Final = ROOT / "docs" / "images" / "retries.png"
RATE: Final = 40  # requests per second
SECONDS: Final = 24
OUTAGE: Final = range(8, 16)  # of these seconds
ANSWER_SECONDS: Final = 0.5  # what the app takes
ATTEMPTS: Final = 3  # retries of one request
HOST: Final = "shop.example"

# The title of a run, and the document that sets its budget; 100 % is as good as no budget.
RUNS: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "without a budget": (
        {
            "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": "shop"},
            "spec": {"host": HOST, "trafficPolicy": {"retryBudget": {"percent": 100}}},
        },
        "#a44a3f",
    ),
    "20 % of the requests in progress (the default)": (
        {
            "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": {"name": "shop"},
            "spec": {"host": HOST, "trafficPolicy": {"retryBudget": {"percent": 20}}},
        },
        "#2a6f97",
    ),
    "retryRatio 0.1, minRetriesPerSecond 1": (
        {
            "apiVersion": "sidecar/v1", "kind": "BackendTrafficPolicy", "metadata": {"name": "shop"},
            "spec": {"host": HOST, "retryBudget": {"retryRatio": 0.1, "minRetriesPerSecond": 1, "ttl": "10s"}},
        },
        "#c9a227",
    ),
}  # fmt: skip


class App:
    """An app with an outage. ``arrived`` counts the requests of each second since ``begun``."""

    def __init__(self) -> None:
        self.begun = 0.0
        self.arrived = [0] * (SECONDS + 5)

    async def serve(self, stream: trio.SocketStream) -> None:
        """Answer the requests of one connection; none of them has a body."""
        data = b""
        async for piece in stream:
            data += piece
            while b"\r\n\r\n" in data:
                data = data.partition(b"\r\n\r\n")[2]
                second = int(trio.current_time() - self.begun)
                self.arrived[min(second, len(self.arrived) - 1)] += 1
                await trio.sleep(ANSWER_SECONDS)
                status = b"503 Service Unavailable" if second in OUTAGE else b"200 OK"
                await stream.send_all(b"HTTP/1.1 %b\r\nContent-Length: 0\r\n\r\n" % status)


async def ask(port: int) -> None:
    """Send one request through the sidecar, and read its answer."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(b"GET http://%b/ HTTP/1.1\r\nHost: %b\r\n\r\n" % (HOST.encode(), HOST.encode()))
        await stream.receive_some()


async def measure(budget: dict[str, Any]) -> list[int]:
    """Return how many requests arrived at the app in each second, with this budget."""
    app = App()
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, app.serve, 0, host="127.0.0.1"))
        with sidecar([*routes(listener.socket.getsockname()[1]), budget]) as process:
            await load(app, await trio.to_thread.run_sync(outbound_of, process))
        nursery.cancel_scope.cancel()
    return app.arrived[:SECONDS]


@contextmanager
def sidecar(documents: list[dict[str, Any]]) -> Iterator[subprocess.Popen[str]]:
    """A sidecar that obeys these documents."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "documents.yaml")
        file.write_text("\n---\n".join(map(json.dumps, documents)))
        process = subprocess.Popen(
            [sys.executable, "-m", "sidecar", "--upstream=127.0.0.1:9", f"--config={file}", "--access-log=off",
             "--inbound=127.0.0.1:0", "--outbound=127.0.0.1:0", "--admin=127.0.0.1:0", "--scrape=off"],
            cwd=ROOT, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


def outbound_of(process: subprocess.Popen[str]) -> int:
    """Return the port of a sidecar's outbound listener, once all is ready."""
    assert process.stderr is not None
    port = 0
    for line in process.stderr:
        if "outbound listening on" in line:
            port = int(line.rsplit(":", 1)[1].split()[0])
        if "sidecar: ready" in line:
            return port
    raise RuntimeError("the sidecar did not start")


async def load(app: App, port: int) -> None:
    """Begin RATE requests in each second."""
    app.begun = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(RATE * SECONDS):
            await trio.sleep_until(app.begun + number / RATE)
            nursery.start_soon(ask, port)


def routes(port: int) -> list[dict[str, Any]]:
    """The app at this port as HOST, and its retries."""
    entry = {
        "hosts": [HOST], "ports": [{"number": 80, "name": "http"}], "resolution": "STATIC",
        "endpoints": [{"address": "127.0.0.1", "ports": {"http": port}}],
    }  # fmt: skip
    rule = {"route": [{"destination": {"host": HOST}}], "retries": {"attempts": ATTEMPTS, "retryOn": "5xx"}}
    api = "networking.istio.io/v1"
    return [
        {"apiVersion": api, "kind": "ServiceEntry", "metadata": {"name": "shop"}, "spec": entry},
        {
            "apiVersion": api, "kind": "VirtualService", "metadata": {"name": "shop"},
            "spec": {"hosts": [HOST], "http": [rule]},
        },
    ]  # fmt: skip


def draw(figures: dict[str, list[int]]) -> None:
    """Draw the chart."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 4.0), layout="constrained")
    axes = figure.add_subplot()
    axes.axvspan(OUTAGE.start, OUTAGE.stop, color="#eeeeee", label="every answer is 503")
    for title, arrived in figures.items():
        axes.step(range(SECONDS), arrived, where="post", label=title, color=RUNS[title][1])
    axes.axhline(RATE, color="black", linewidth=0.8, linestyle=":", label="requests of the client")
    axes.set_xlim(0, SECONDS)
    axes.set_ylim(0)
    axes.set_xlabel("seconds")
    axes.set_ylabel("requests per second at the app")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    FigureCanvasAgg(figure).print_png(str(IMAGE))


def main() -> None:
    """Measure each budget, print the figures, draw them."""
    figures = {title: trio.run(measure, budget) for title, (budget, _) in RUNS.items()}
    for title, arrived in figures.items():
        within = arrived[OUTAGE.start : OUTAGE.stop]
        print(f"{title}: {max(within)} a second at most, {sum(within) / len(within):.0f} on average in the outage")
        print(" ", arrived)
    draw(figures)


if __name__ == "__main__":
    main()
