"""A route: the destination of a request, or of the bytes of an opaque connection, and how it is tried there.

Made by ``route_table`` (outbound) and ``inbound``; ``pipeline`` follows it.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from sidecar.addresses import Address
from sidecar.http.streams import StreamOpener
from sidecar.policy.authorize import Permit
from sidecar.policy.retry import REPLACE_STALE, RetryPolicy
from sidecar.proxy.deadlines import Limits
from sidecar.resources.protocols import Protocol
from sidecar.upstream.cluster import Cluster
from sidecar.upstream.endpoint import Endpoint

Kind = Literal["app", "service", "entry", "outside"]


class Route(msgspec.Struct, gc=False):
    """One destination. ``at`` is the endpoint that the request names explicitly; None: an endpoint is picked.

    ``client`` opens streams to the cluster; ``retry`` defines when there is another attempt, ``limits`` how long all
    and each of them may take. ``called`` is what the caller named; ``allowed`` whether the outbound policy lets the app
    go there by that alone, and ``own`` whether a listener of this proxy is there. ``chosen``: the app chose the
    address, and the service entry has only a name, which has to resolve to it. ``permit`` is kept once it was given, if
    nothing can change it.
    """

    kind: Kind
    cluster: Cluster[Any]
    client: StreamOpener[Any]
    at: Address | None
    called: Address
    shown: str  # in a record, before an endpoint is picked
    protocol: Protocol = "auto"
    allowed: bool = True
    own: bool = False
    chosen: bool = False
    permit: Permit | None = None
    retry: RetryPolicy = REPLACE_STALE
    limits: Limits | None = None
    label: str = ""  # the cluster's name in records; empty for what is known by where it is

    def __post_init__(self) -> None:
        self.label = self.cluster.name if self.kind in _NAMED else ""

    @property
    def server_first_cache(self) -> Cluster[Any] | Endpoint:
        """The cache that remembers whether the server there speaks first."""
        return self.cluster if self.at is None else self.cluster.at(self.at)


_NAMED = frozenset({"service", "entry"})
