"""Destinations of routes and their weights, judged. Pure.

Called by ``http_route_rules`` and ``virtual_service_rules``. Weights are shares of their sum; several destinations
whose weights are all 0 would have nowhere to go, and a sum above 2^32-1 is more than Envoy takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from sidecar.resources.header_rules import check_headers
from sidecar.resources.names import NOT_A_LABEL, is_label
from sidecar.resources.route_hosts import ANY, host_problem
from sidecar.resources.validation import Path, Problem, shown
from sidecar.resources.virtual_service import Destination, HTTPRouteDestination, RouteDestination

Found = Iterator[Problem]

MOST_WEIGHT: Final = 4_294_967_295  # of all destinations of a route together


def check_http_destinations(routes: Sequence[HTTPRouteDestination], at: Path) -> Found:
    """All that is wrong with where requests go, and with what is changed for one destination."""
    yield from check_destinations(routes, at)
    for index, each in enumerate(routes):
        yield from check_headers(each.headers, (*at, index, "headers"))


def check_destinations(routes: Sequence[HTTPRouteDestination | RouteDestination], at: Path) -> Found:
    """All that is wrong with destinations and their weights."""
    for index, each in enumerate(routes):
        yield from check_destination(each.destination, (*at, index, "destination"))
    total = sum(each.weight or 0 for each in routes)
    if len(routes) > 1 and total == 0:
        yield Problem(at, "has several destinations, and the sum of their weights is 0; add weight")
    if total > MOST_WEIGHT:
        yield Problem(at, f"has weights whose sum is above {MOST_WEIGHT}")


def check_destination(destination: Destination, at: Path) -> Found:
    """All that is wrong with one destination."""
    if destination.host == ANY:
        yield Problem((*at, "host"), "* is no destination; write the name of a service or of a ServiceEntry")
    elif why := host_problem(destination.host):
        yield Problem((*at, "host"), why)
    if destination.subset and not is_label(destination.subset):
        yield Problem((*at, "subset"), f"{shown(destination.subset)} {NOT_A_LABEL}")
