"""A call within a mesh, set up: one sidecar or both, on one core, with certificates of an authority of their own.

Called by the scenarios of the mesh.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from bench import measure
from bench.hops import Hop
from bench.processes import BenchError, Process, held_port, listens
from bench.proxies import Running
from bench.turn import Turn
from tests.support.papers import Authority, Papers


@dataclass(frozen=True, slots=True)
class Pair:
    """The caller's sidecar and the app's, both ready, and the caller's id."""

    outbound: Running
    inbound: Running
    caller: str

    def cpu_seconds(self) -> tuple[float, float]:
        """Of outbound and of inbound, so far."""
        return self.outbound.cpu_seconds(), self.inbound.cpu_seconds()

    def rss_bytes(self) -> int:
        """Of the larger one."""
        return max(self.outbound.rss_bytes(), self.inbound.rss_bytes())


@dataclass(frozen=True, slots=True)
class Callee:
    """The app's sidecar, ready, and the papers of a client that may call it."""

    inbound: Running
    client: Papers


@contextlib.contextmanager
def pair(turn: Turn, *, opaque: bool = False, rules: int = 0, limited: bool = False, routes: int = 0) -> Iterator[Pair]:
    """Both sidecars of a call to the turn's app, inbound with so many rules, or a limit, outbound with so many routes;
    they are killed at the end. Raises BenchError as ``started`` does."""
    turn.run.mkdir()
    authority = Authority(turn.run)
    caller, callee = authority.issue("caller"), authority.issue("app")
    ids = caller.spiffe_id, callee.spiffe_id
    with contextlib.ExitStack() as stack:
        inner, outer = stack.enter_context(held_port()), stack.enter_context(held_port())
        inbound = Hop("inbound", turn.run, inner, turn.upstream, callee, *ids, opaque, rules, limited)
        outbound = Hop("outbound", turn.run, outer, inner, caller, *ids, opaque, routes=routes)
        second = stack.enter_context(_started(turn, inbound))
        yield Pair(stack.enter_context(_started(turn, outbound)), second, caller.spiffe_id)


@contextlib.contextmanager
def callee(turn: Turn) -> Iterator[Callee]:
    """The app's sidecar alone."""
    turn.run.mkdir()
    authority = Authority(turn.run)
    caller, own = authority.issue("caller"), authority.issue("app")
    with held_port() as port:
        hop = Hop("inbound", turn.run, port, turn.upstream, own, caller.spiffe_id, own.spiffe_id, opaque=False)
        with _started(turn, hop) as running:
            yield Callee(running, caller)


@contextlib.contextmanager
def _started(turn: Turn, hop: Hop) -> Iterator[Running]:
    proxy = turn.proxy
    if proxy.hop is None:
        raise BenchError(f"{proxy.name} plays no part in a mesh")
    name = f"{proxy.name}-{hop.name}"
    with Process(proxy.hop(hop), turn.proxy_core, turn.run, name=name) as process:
        process.wait_until(lambda: proxy.ready_line in process.err.read_bytes() and listens(hop.listen), 20.0)
        yield Running(proxy, process, hop.listen, hop.log, measure.rss_bytes(process.pid))
        if proxy.farewell:
            process.terminate(proxy.farewell)
