"""What a turn is, and what a scenario promises: the words that scenarios, results and command line share.

Imports the proxies alone, so that each room of scenarios can import it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.proxies import Proxy

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Turn:
    """One proxy's turn: where its app is, its directory, the two cores, how long to measure, and in which round."""

    proxy: Proxy
    upstream: int
    run: Path
    proxy_core: int
    load_core: int
    seconds: int
    round: int = 0


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario and what it promises.

    `figure` is the key of the figure that is compared; `bound` is the largest ratio to Envoy's that is accepted for
    ours and `aim` the one wished for; `limit` is the largest value of any turn that is accepted whatever Envoy's is;
    `rounds` caps the rounds where one more would tell nothing new; `root` says that only root can play it. `of` names
    the scenario whose turns have this one's figure too: where both are wanted, that one alone is played. `beside` are
    other scenarios of the same run, each with the largest ratio to its figure that is accepted for ours.
    """

    name: str
    title: str
    figure: str
    unit: str
    play: Callable[[Turn], Figures]
    bound: float | None = None
    aim: float | None = None
    rounds: int = 99
    proxies: frozenset[str] = frozenset({"ours", "envoy", "haproxy"})
    limit: float | None = None
    root: bool = False
    of: str = ""
    beside: tuple[tuple[str, float], ...] = ()

    def is_played_by(self, proxy: Proxy) -> bool:
        return (proxy.part or proxy.name) in self.proxies
