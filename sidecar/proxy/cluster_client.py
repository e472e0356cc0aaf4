"""HTTP/1 requests to a cluster. Each attempt uses a connection that the cluster picks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from sidecar.http.h1.client import H1ClientStream
from sidecar.policy.authorize import Permit
from sidecar.upstream.cluster import Cluster
from sidecar.upstream.endpoint import Endpoint


class ClusterClient:
    """A ``StreamOpener`` for ``cluster``: at one place of it, or (None) at an endpoint that is picked for each stream.

    ``name`` is for records; ``stream_idle`` seconds of silence end an attempt.
    """

    __slots__ = ("_cluster", "_pinned", "_stream_idle", "name", "pick")

    def __init__(self, cluster: Cluster[Any], at: object, name: str, stream_idle: float) -> None:
        self._cluster = cluster
        self._pinned = at is not None
        self.name = name
        self._stream_idle = stream_idle
        self.pick: Callable[[Permit], Endpoint] = partial(cluster.pick, at=at)

    def open_nowait(self, endpoint: Endpoint) -> H1ClientStream | None:
        """See ``streams.StreamOpener``."""
        lease = endpoint.pool.take_idle()
        return None if lease is None else H1ClientStream(lease, self._stream_idle)

    async def open(self, endpoint: Endpoint, *, fresh: bool) -> H1ClientStream:
        """See ``streams.StreamOpener``."""
        lease = await self._cluster.connect(endpoint, pinned=self._pinned, fresh=fresh)
        return H1ClientStream(lease, self._stream_idle)
