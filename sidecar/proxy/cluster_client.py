"""HTTP/1 requests to a cluster. Each attempt uses a connection that the cluster picks."""

from __future__ import annotations

from typing import Any

from sidecar.http.h1.client import H1ClientStream
from sidecar.policy.authorize import Permit
from sidecar.upstream.cluster import Cluster


class ClusterClient:
    """A ``StreamOpener`` for ``cluster``: at one place of it, or (None) at an endpoint that is picked for each stream.

    ``name`` is for records; ``stream_idle`` seconds of silence end an attempt.
    """

    __slots__ = ("_at", "_cluster", "_stream_idle", "name")

    def __init__(self, cluster: Cluster[Any], at: object, name: str, stream_idle: float) -> None:
        self._cluster = cluster
        self._at = at
        self.name = name
        self._stream_idle = stream_idle

    async def open(self, permit: Permit, *, fresh: bool) -> H1ClientStream:
        """See ``streams.StreamOpener``. Raises ProxyError; TypeError if ``permit`` is not for this cluster and
        place."""
        return H1ClientStream(await self._cluster.lease(permit, self._at, fresh=fresh), self._stream_idle)
