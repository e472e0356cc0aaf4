"""The registry as a whole: its parts put together, what runs, and its figures.

Who makes it: the composition root, with the store and the documents, which are open by then. ``open`` reads what there
is; ``run`` keeps it true until it is cancelled. Others take ``registry``, the view.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import trio

from certs.spiffe import SpiffeId
from control.documents.table import Documents
from control.metrics import Figures
from control.registry.api import RegistryCalls
from control.registry.endpoint_table import Registry
from control.registry.endpoints import Endpoints
from control.registry.reconciler import Ageing, Following
from control.store import Store
from control.token_store import TokenStore

STATES = ("healthy", "unhealthy", "unknown", "stale")


class RegistryParts:
    """See the module. ``clock`` in seconds since the epoch; ``monotonic`` only rises; ``blocked``: is it revoked?
    ``networks``: where every workload may register."""

    def __init__(
        self,
        store: Store,
        documents: Documents,
        tokens: TokenStore,
        figures: Figures,
        trust_domain: str,
        clock: Callable[[], float],
        monotonic: Callable[[], float] = trio.current_time,
        blocked: Callable[[SpiffeId], bool] = lambda _: False,
        networks: Sequence[str] = (),
    ) -> None:
        self.registry = Registry(store, monotonic)
        self.endpoints = Endpoints(store, self.registry, documents, tokens, trust_domain, clock, networks)
        self.calls = RegistryCalls(self.endpoints, self.registry, documents, clock, monotonic)
        self.ageing = Ageing(store, self.registry, figures, monotonic)
        self.following = Following(store, self.registry, documents, trust_domain, monotonic, blocked)
        self._monotonic = monotonic
        figures.gauges("sidecar_control_endpoints", "Registered endpoints by their state.", "state", self._states)
        figures.gauge(
            "sidecar_control_virtual_addresses",
            "Services that a virtual address stands for.",
            lambda: float(len(self.registry.virtuals())),
        )
        figures.gauge(
            "sidecar_control_virtual_addresses_lacking",
            "Services that get no virtual address, as there is none left.",
            lambda: float(len(self.following.lacking)),
        )

    async def open(self) -> None:
        """Takes everything from the store."""
        await self.registry.open()

    async def run(self) -> None:
        """Follows the store and the documents, and drops who is gone."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.registry.run)
            nursery.start_soon(self.following.run)
            nursery.start_soon(self.ageing.run)

    def _states(self) -> Mapping[str, float]:
        """How many endpoints are in each state. One that is stale is nothing else."""
        now = self._monotonic()
        found: Counter[str] = Counter(dict.fromkeys(STATES, 0))
        for key in self.registry.services():
            hearings = self.registry.hearings(*key)
            for each in self.registry.endpoints(*key):
                found["stale" if hearings[each.key].stale(now) else each.health] += 1
        return {state: float(number) for state, number in found.items()}
