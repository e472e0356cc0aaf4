"""Origins over HTTP/1: an exchange on a pooled connection."""

from __future__ import annotations

from sidecar.net.pool import Pool
from sidecar.policy.authorize import Permit
from sidecar.proxy.upstream import UpstreamStream


class PoolOrigin:
    """Opens exchanges on ``pool``. ``name`` is for records; ``stream_idle`` seconds of silence end an exchange."""

    __slots__ = ("_pool", "_stream_idle", "name")

    def __init__(self, pool: Pool, name: str, stream_idle: float) -> None:
        self._pool = pool
        self.name = name
        self._stream_idle = stream_idle

    async def open(self, permit: Permit, *, fresh: bool) -> UpstreamStream:
        """See ``streams.Origin``. Raises ProxyError; TypeError for what is no Permit."""
        if permit.__class__ is not Permit:
            raise TypeError("forwarding takes a Permit")
        lease = None if fresh else self._pool.take_idle()
        if lease is None:
            lease = await self._pool.acquire(fresh=fresh)
        return UpstreamStream(lease, self._stream_idle)
