"""HTTP/1 requests to a cluster. Each attempt uses a connection to the endpoint that the cluster picks for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

from sidecar.http.h1.client import H1ClientStream
from sidecar.policy.authorize import Permit
from sidecar.policy.retry_budget import ClusterLoad
from sidecar.upstream.cluster import Cluster
from sidecar.upstream.endpoint import Endpoint


class Pick(Protocol):
    """See ``StreamOpener.pick``."""

    def __call__(self, permit: Permit, tried: Sequence[Endpoint] = ()) -> Endpoint: ...


class ClusterClient:
    """A ``StreamOpener`` for ``cluster``: at one place of it, or (None) at an endpoint that is picked for each stream.

    ``name`` is for records; ``stream_idle`` seconds of silence end an attempt. ``counted``: its requests are counted
    in the cluster's load.
    """

    __slots__ = ("_cluster", "_pinned", "_stream_idle", "load", "name", "patience", "pick")

    def __init__(
        self, cluster: Cluster[Any], at: object, name: str, stream_idle: float, *, counted: bool = True
    ) -> None:
        self._cluster = cluster
        self._pinned = at is not None
        self.name = name
        self._stream_idle = stream_idle
        self.patience = cluster.terms.patience
        self.load: ClusterLoad | None = cluster.load if counted else None
        self.pick: Pick = cluster.pick if at is None else partial(cluster.pick, at=at)

    def open_nowait(self, endpoint: Endpoint) -> H1ClientStream | None:
        """See ``streams.StreamOpener``."""
        lease = endpoint.pool.take_idle()
        return None if lease is None else H1ClientStream(lease, self._stream_idle)

    def has_others(self, tried: int) -> bool:
        """See ``streams.StreamOpener``."""
        return not self._pinned and self._cluster.has_others(tried)

    async def open(self, endpoint: Endpoint, *, fresh: bool, seconds: float, hasty: bool) -> H1ClientStream:
        """See ``streams.StreamOpener``."""
        lease = await self._cluster.reach(endpoint, fresh=fresh, seconds=seconds, hasty=hasty)
        return H1ClientStream(lease, self._stream_idle)
