"""A route: the destination of a request, or of the bytes of an opaque connection, and how it is tried there.

Made by ``route_table`` (outbound) and ``inbound``; ``pipeline`` follows it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Set
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from sidecar.addresses import Address
from sidecar.http.streams import StreamOpener
from sidecar.policy.authorize import Permit
from sidecar.policy.retry import REPLACE_STALE, RetryPolicy
from sidecar.proxy.deadlines import Limits
from sidecar.resources.protocols import Protocol
from sidecar.upstream.cluster import Cluster
from sidecar.upstream.endpoint import Endpoint

if TYPE_CHECKING:  # a proxy without such documents does not load these
    from sidecar.policy.http_routes import VirtualHost
    from sidecar.policy.route_actions import RouteAction, Target
    from sidecar.proxy.exchange import Upgraded
    from sidecar.resources.virtual_service import HTTPMatchRequest

Kind = Literal["app", "service", "entry", "outside"]


class ChosenRule(msgspec.Struct, gc=False):
    """The rule of a VirtualService that a request matched, by which ``match``, and which of its targets was drawn.

    ``serve`` does with a request what the rule says (``routed_request``); None: it only forwards it, as it is.
    ``title`` is NAMESPACE/VIRTUAL-SERVICE and the rule's name or number; ``target`` is None if the proxy itself
    answers. ``mirrors`` are the rule's that lead to a destination of the Snapshot, each with the share of requests.
    ``fields`` are the names of those that the matches of its VirtualService look at.
    """

    serve: Callable[..., Awaitable[Upgraded | None]] | None
    title: str
    action: RouteAction
    match: HTTPMatchRequest | None
    target: Target | None = None
    mirrors: tuple[tuple[float, Route], ...] = ()
    fields: Set[bytes] = frozenset()


class Route(msgspec.Struct, gc=False):
    """One destination. ``at`` is the endpoint that the request names explicitly; None: an endpoint is picked.

    ``client`` opens streams to the cluster; ``retry`` defines when there is another attempt, ``limits`` how long all
    and each of them may take. ``called`` is what the caller named; ``allowed`` whether the outbound policy lets the app
    go there by that alone, and ``own`` whether a listener of this proxy is there. A route with ``virtual`` is not
    followed by requests, which have to match one of its rules first. ``chosen``: the app chose the address, and the
    service entry has only a name, which has to resolve to it. ``permit`` is kept once it was given, if nothing can
    change it.
    """

    kind: Kind
    cluster: Cluster[Any]
    client: StreamOpener[Any]
    at: Any  # an Address; an Endpoint in clusters of services
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
    host: str = ""  # the full name of the destination, by which VirtualServices are found
    virtual: VirtualHost | None = None  # the one whose HTTP routes count here
    rule: ChosenRule | None = None  # the rule of one that led here
    subset: str = ""
    endpoint: Any = None  # of a service: the very one whose address the app dialed
    shared_endpoints: bool = False  # the service has no address of its own, so those of endpoints stand for all of them

    def __post_init__(self) -> None:
        self.label = self.cluster.name if self.kind in _NAMED else ""

    @property
    def server_first_cache(self) -> Cluster[Any] | Endpoint:
        """The cache that remembers whether the server there speaks first."""
        return self.cluster if self.at is None else self.cluster.at(self.at)


_NAMED = frozenset({"service", "entry"})
