"""The routes of a VirtualService, as frozen structs: what documents, the wire and the engine share. Pure.

Names and meaning are Istio's (``networking.istio.io/v1``). ``kinds`` has the document, ``proxy_config`` the form in
which the control plane sends it, ``policy.virtual_hosts`` what is compiled from it. Durations are text, as written.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

MESH: Final = "mesh"  # the reserved name of a gateway: all sidecars

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]  # as in ``schema``, which imports what imports this
Weight = Annotated[int, msgspec.Meta(ge=0, le=4_294_967_295)]
Status = Annotated[int, msgspec.Meta(ge=200, le=599)]
Attempts = Annotated[int, msgspec.Meta(ge=0, le=100)]
WholePercent = Annotated[int, msgspec.Meta(ge=0, le=100)]


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, rename="camel", gc=False):
    """A mapping whose every field is known. The collector has nothing to find in it: no part leads back to another."""


class StringMatch(_Part, frozen=True):
    """A condition on a text: one of the three. ``regex`` is RE2, and has to match all of it. Without any, in
    ``headers``, ``withoutHeaders`` and ``queryParams``: it is there."""

    exact: str | None = None
    prefix: str | None = None
    regex: str | None = None


class PortSelector(_Part, frozen=True):
    """A port by its number."""

    number: Port


class Destination(_Part, frozen=True):
    """A service or a host of a ServiceEntry. ``subset`` is one of its DestinationRule; ``port`` may be left out if it
    has only one."""

    host: str
    subset: str = ""
    port: PortSelector | None = None


class HeaderOperations(_Part, frozen=True):
    """Changes to fields: ``set`` replaces, ``add`` appends, ``remove`` removes."""

    set: dict[str, str] = {}
    add: dict[str, str] = {}
    remove: list[str] = []


class Headers(_Part, frozen=True):
    """Changes to the fields of requests and of responses."""

    request: HeaderOperations = HeaderOperations()
    response: HeaderOperations = HeaderOperations()


class HTTPMatchRequest(_Part, frozen=True):
    """Conditions on a request, all of which have to hold. ``sourceLabels`` are those of the caller's services."""

    name: str = ""
    uri: StringMatch | None = None
    scheme: StringMatch | None = None
    method: StringMatch | None = None
    authority: StringMatch | None = None
    headers: dict[str, StringMatch] = {}
    port: Port | None = None
    source_labels: dict[str, str] = {}
    gateways: list[str] = []
    query_params: dict[str, StringMatch] = {}
    ignore_uri_case: bool = False
    without_headers: dict[str, StringMatch] = {}
    source_namespace: str = ""


class HTTPRouteDestination(_Part, frozen=True):
    """One of several destinations. ``weight`` is its share of the sum of all; a single one may leave it out."""

    destination: Destination
    weight: Weight | None = None
    headers: Headers = Headers()


class HTTPRedirect(_Part, frozen=True):
    """A redirect. ``uri`` is the new path, ``prefixRewrite`` takes the place of the matched prefix alone.
    ``derivePort``: the port of the request, or the default one of the scheme."""

    uri: str = ""
    prefix_rewrite: str = ""
    authority: str = ""
    port: Port | None = None
    derive_port: Literal["", "FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT"] = ""
    scheme: str = ""
    redirect_code: Literal[0, 301, 302, 303, 307, 308] = 0  # 0: 301


class HTTPBody(_Part, frozen=True):
    """A body, as text or (``bytes``) in base64."""

    string: str | None = None
    bytes: str | None = None


class HTTPDirectResponse(_Part, frozen=True):
    """A response that the proxy itself makes."""

    status: Status
    body: HTTPBody | None = None


class RegexRewrite(_Part, frozen=True):
    """A replacement of what ``match`` (RE2) finds in the path; ``\\1`` stands for its first group."""

    match: str
    rewrite: str


class HTTPRewrite(_Part, frozen=True):
    """Another path and authority for the upstream. ``uri`` replaces the matched prefix, or all of the path."""

    uri: str = ""
    authority: str = ""
    uri_regex_rewrite: RegexRewrite | None = None


class HTTPRetry(_Part, frozen=True):
    """``attempts`` are retries after the first try."""

    attempts: Attempts = 0
    per_try_timeout: str = ""
    retry_on: str = ""
    retry_remote_localities: bool | None = None
    retry_ignore_previous_hosts: bool | None = None
    backoff: str = ""


class Percent(_Part, frozen=True):
    """0.0 to 100.0."""

    value: float = 0.0


class Delay(_Part, frozen=True):
    """A wait before a request goes on, for a share of all; without a share: none. ``percent`` is the older spelling."""

    fixed_delay: str
    percentage: Percent | None = None
    percent: WholePercent | None = None


class Abort(_Part, frozen=True):
    """A response in place of the upstream's, for a share of all; without a share: none."""

    http_status: Status
    percentage: Percent | None = None


class HTTPFaultInjection(_Part, frozen=True):
    """Faults on purpose: first the delay, then the abort."""

    delay: Delay | None = None
    abort: Abort | None = None


class CorsPolicy(_Part, frozen=True):
    """Which origins browsers may call from."""

    allow_origins: list[StringMatch] = []
    allow_methods: list[str] = []
    allow_headers: list[str] = []
    expose_headers: list[str] = []
    max_age: str = ""
    allow_credentials: bool | None = None
    unmatched_preflights: Literal["UNSPECIFIED", "FORWARD", "IGNORE"] = "UNSPECIFIED"


class HTTPMirrorPolicy(_Part, frozen=True):
    """A destination that gets copies of requests, and whose answers are dropped."""

    destination: Destination
    percentage: Percent | None = None


class HTTPRoute(_Part, frozen=True):
    """A rule: the first one of which a match holds decides about a request. Without ``match`` it takes all."""

    name: str = ""
    match: list[HTTPMatchRequest] = []
    route: list[HTTPRouteDestination] = []
    redirect: HTTPRedirect | None = None
    direct_response: HTTPDirectResponse | None = None
    rewrite: HTTPRewrite | None = None
    timeout: str = ""
    retries: HTTPRetry | None = None
    fault: HTTPFaultInjection | None = None
    mirror: Destination | None = None
    mirrors: list[HTTPMirrorPolicy] = []
    mirror_percentage: Percent | None = None
    mirror_percent: WholePercent | None = None
    cors_policy: CorsPolicy | None = None
    headers: Headers = Headers()


class RouteDestination(_Part, frozen=True):
    """One of several destinations of bytes, by weight."""

    destination: Destination
    weight: Weight | None = None


class L4MatchAttributes(_Part, frozen=True):
    """Conditions on a connection, all of which have to hold."""

    destination_subnets: list[str] = []
    port: Port | None = None
    source_labels: dict[str, str] = {}
    gateways: list[str] = []
    source_namespace: str = ""


class TCPRoute(_Part, frozen=True):
    """A rule for opaque bytes. Without ``match`` it takes all."""

    match: list[L4MatchAttributes] = []
    route: list[RouteDestination] = []


class TLSMatchAttributes(_Part, frozen=True):
    """Conditions on a TLS connection of the app's own. ``sniHosts`` are names, or ``*.`` and a name."""

    sni_hosts: list[str]
    destination_subnets: list[str] = []
    port: Port | None = None
    source_labels: dict[str, str] = {}
    gateways: list[str] = []
    source_namespace: str = ""


class TLSRoute(_Part, frozen=True):
    """A rule for TLS that goes on as it came."""

    match: list[TLSMatchAttributes]
    route: list[RouteDestination] = []


class VirtualServiceSpec(_Part, frozen=True):
    """A VirtualService as one proxy gets it. ``hosts``, and those of destinations, are full names; they come in the
    order in which they count: of two for one host the first one does."""

    name: str
    namespace: str
    hosts: list[str]
    http: list[HTTPRoute] = []
    tcp: list[TCPRoute] = []
    tls: list[TLSRoute] = []

    @property
    def title(self) -> str:
        """``NAMESPACE/NAME``, as records name it."""
        return f"{self.namespace}/{self.name}"
