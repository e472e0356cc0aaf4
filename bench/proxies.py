"""The proxies under test: how each is found, started and told where to listen; all with the same duties.

Called by the scenarios through `started`. The duties are: an access log line per request (or connection) into a file,
x-forwarded-for, a request id, deadlines and counters; the configurations beside this file say so in each one's own
words. mitmproxy has none of them, and is here for scale only.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from bench import envoy, measure
from bench.hops import Hop, envoy_hop, our_hop
from bench.processes import ROOT, BenchError, Process, fill, held_port, listens, which

MITMPROXY_VENV = ROOT / "bench" / ".venv-mitmproxy"
MITMPROXY_LOCK = ROOT / "requirements" / "mitmproxy.txt"


class Mode(StrEnum):
    """What a proxy is told about the app's protocol. Ours is told TCP only, and detects the others by itself."""

    HTTP = "http"
    TCP = "tcp"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a proxy listens and dials, both on 127.0.0.1, and the directory and the log file that are its own."""

    run: Path
    listen: int
    upstream: int

    @property
    def log(self) -> Path:
        return self.run / "access.log"


@dataclass(frozen=True, slots=True)
class Proxy:
    """One proxy: the name in tables, its command line for a mode and a place, and what to call for its version.

    `ready_line` is what it prints to stderr when it is ready, where it says so at all; `farewell` the seconds it is
    given to end by itself, where it has something to write then (0: it is killed, as benchmarks may). `hop` is its
    command line as one of the two sidecars of a call within a mesh; None where it plays none. `part` is the name that
    scenarios list it under, where that is another one; `tree` is the checkout whose code `captured` runs.
    """

    name: str
    command: Callable[[Mode, Place], Sequence[str]]
    version: Callable[[], str]
    logs: bool = True
    ready_line: bytes = b""
    farewell: float = 0.0
    hop: Callable[[Hop], Sequence[str]] | None = None
    part: str = ""
    tree: Path = ROOT


@dataclass(frozen=True, slots=True)
class Running:
    """A proxy that is ready."""

    proxy: Proxy
    process: Process
    port: int
    log: Path
    ready_rss: int

    def cpu_seconds(self) -> float:
        return measure.cpu_seconds(self.process.pid)

    def rss_bytes(self) -> int:
        return measure.rss_bytes(self.process.pid)

    def log_lines(self) -> int:
        """Access log lines written so far."""
        with self.log.open("rb") as log:
            return sum(block.count(b"\n") for block in iter(lambda: log.read(1 << 20), b""))


@contextlib.contextmanager
def started(proxy: Proxy, mode: Mode, upstream: int, run: Path, core: int) -> Iterator[Running]:
    """Run a proxy on a core in a directory that is made for it; it is killed at the end.

    Raises BenchError where it is not installed or not ready within 20 s.
    """
    run.mkdir()
    with contextlib.ExitStack() as stack:
        place = Place(run, stack.enter_context(held_port()), upstream)
        process = stack.enter_context(Process(proxy.command(mode, place), core, run, name=proxy.name))
        process.wait_until(lambda: proxy.ready_line in process.err.read_bytes() and listens(place.listen), 20.0)
        log = process.out if proxy is HAPROXY else place.log
        yield Running(proxy, process, place.listen, log, measure.rss_bytes(process.pid))
        if proxy.farewell:
            process.terminate(proxy.farewell)


def sidecar_flags(mode: Mode, place: Place) -> list[str]:
    """Our own flags: the defaults but for the places, and for the protocol where a scenario tells it."""
    return [
        *("--upstream", f"127.0.0.1:{place.upstream}", "--inbound", f"127.0.0.1:{place.listen}"),
        *("--outbound", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--scrape", "off"),
        *("--access-log-file", str(place.log)),
        *(("--protocol", "tcp") if mode is Mode.TCP else ()),
    ]


def _ours(mode: Mode, place: Place) -> list[str]:
    return [sys.executable, "-m", "sidecar", *sidecar_flags(mode, place)]


def _envoy(mode: Mode, place: Place) -> list[str]:
    config = fill(
        "envoy-http.yaml" if mode is Mode.HTTP else "envoy-tcp.yaml",
        place.run / "envoy.yaml",
        LISTEN_HOST="127.0.0.1",
        LISTEN_PORT=place.listen,
        UPSTREAM_HOST="127.0.0.1",
        UPSTREAM_PORT=place.upstream,
        LOG=place.log,
    )
    return envoy.command(config)


def _haproxy(mode: Mode, place: Place) -> list[str]:
    config = fill(
        "haproxy-http.cfg" if mode is Mode.HTTP else "haproxy-tcp.cfg",
        place.run / "haproxy.cfg",
        RUN=place.run,
        LISTEN=f"127.0.0.1:{place.listen}",
        UPSTREAM=f"127.0.0.1:{place.upstream}",
    )
    return [which("haproxy", "haproxy"), "-db", "-f", str(config)]


def _mitmproxy(mode: Mode, place: Place) -> list[str]:
    return [
        *(_mitmdump(), "--quiet", "--mode", f"reverse:http://127.0.0.1:{place.upstream}"),
        *("--listen-host", "127.0.0.1", "--listen-port", str(place.listen)),
        *("--set", f"confdir={place.run}", "--set", "http2=false"),
    ]


def _mitmdump() -> str:
    """mitmdump in a virtual environment of its own, made from a lock at the first call: it pins h11 and much else."""
    program = MITMPROXY_VENV / "bin" / "mitmdump"
    if not program.exists():
        print(f"installing mitmproxy into {MITMPROXY_VENV} ...", file=sys.stderr)
        venv.create(MITMPROXY_VENV, with_pip=True, clear=True)
        install = [str(MITMPROXY_VENV / "bin" / "pip"), "install", "--quiet", "--require-hashes", "--requirement"]
        done = subprocess.run([*install, str(MITMPROXY_LOCK)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BenchError(f"mitmproxy can't be installed: {done.stderr.strip().splitlines()[-1:]}")
    return str(program)


def _first_line(*argv: str) -> str:
    lines = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip().splitlines()
    return lines[0] if lines else "unknown"


OURS = Proxy(
    "ours", _ours, lambda: _first_line(sys.executable, "-m", "sidecar", "--version"), ready_line=b"sidecar: ready",
    hop=our_hop,
)  # fmt: skip
ENVOY = Proxy("envoy", _envoy, lambda: _first_line(envoy.path(), "--version").partition("version: ")[2], hop=envoy_hop)
HAPROXY = Proxy("haproxy", _haproxy, lambda: _first_line(which("haproxy", "haproxy"), "-v"))
MITMPROXY = Proxy("mitmproxy", _mitmproxy, lambda: _first_line(_mitmdump(), "--version"), logs=False)

PROXIES = {proxy.name: proxy for proxy in (OURS, ENVOY, HAPROXY, MITMPROXY)}
