"""What documents say of a destination: DestinationRule (Istio's) and BackendTrafficPolicy (ours), as frozen structs.
Pure.

``kinds`` has the documents, ``proxy_config`` the form in which the control plane sends them, ``policy.backends`` what
is compiled from them. Durations are text, as written.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from sidecar.resources.virtual_service import PortSelector

Balancing = Literal["UNSPECIFIED", "LEAST_CONN", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST"]
Concurrency = Annotated[int, msgspec.Meta(ge=0, le=4_294_967_295)]


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, rename="camel", gc=False):
    """A mapping whose every field is known. The collector has nothing to find in it: no part leads back to another."""


class LoadBalancerSettings(_Part, frozen=True):
    """How the next endpoint is chosen; LEAST_REQUEST by default."""

    simple: Balancing = "UNSPECIFIED"


class RetryBudget(_Part, frozen=True):
    """Envoy's form: retries in progress are at most ``percent`` of the requests in progress, and at least
    ``minRetryConcurrency`` may be. Defaults: 20 and 3."""

    percent: float | None = None
    min_retry_concurrency: Concurrency | None = None


class PortTrafficPolicy(_Part, frozen=True):
    """What holds for one port, in place of the whole of what holds for the destination."""

    port: PortSelector
    load_balancer: LoadBalancerSettings | None = None


class TrafficPolicy(_Part, frozen=True):
    """How a destination is called."""

    load_balancer: LoadBalancerSettings | None = None
    retry_budget: RetryBudget | None = None
    port_level_settings: list[PortTrafficPolicy] = []


class Subset(_Part, frozen=True):
    """The endpoints that have all of these labels. Its traffic policy goes before that of the destination."""

    name: str
    labels: dict[str, str] = {}
    traffic_policy: TrafficPolicy | None = None


class DestinationRuleSpec(_Part, frozen=True):
    """A DestinationRule as one proxy gets it; ``host`` is a full name, with ``*.`` or ``*`` for all below."""

    name: str
    namespace: str
    host: str
    traffic_policy: TrafficPolicy | None = None
    subsets: list[Subset] = []

    @property
    def title(self) -> str:
        """``NAMESPACE/NAME``, as records and ``/routes`` name it."""
        return f"{self.namespace}/{self.name}"


class RetryRatioBudget(_Part, frozen=True):
    """Linkerd's form: retries are at most ``retryRatio`` of the requests of the last ``ttl``, and
    ``minRetriesPerSecond`` beside that."""

    retry_ratio: float = 0.2
    min_retries_per_second: Concurrency = 10
    ttl: str = "10s"


class BackendRetry(_Part, frozen=True):
    """``nonIdempotentRoutes`` are names of routes (``http[].name``) whose requests may be sent again though a byte of
    them reached the app, whatever their method."""

    non_idempotent_routes: list[str] = []


class BackendTrafficPolicySpec(_Part, frozen=True):
    """A BackendTrafficPolicy as one proxy gets it; ``host`` is a full name."""

    name: str
    namespace: str
    host: str
    retry_budget: RetryRatioBudget | None = None
    retry: BackendRetry = BackendRetry()

    @property
    def title(self) -> str:
        """``NAMESPACE/NAME``, as records and ``/routes`` name it."""
        return f"{self.namespace}/{self.name}"
