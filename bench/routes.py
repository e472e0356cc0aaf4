"""The routes of the scenarios `routes-1` and `routes-10000`, in our words and in Envoy's.

Called by `hops` for the caller's sidecar. A single route takes all requests to the app. Many routes are ten for each of
many hosts, the app's among them; there the last one takes the load's requests, after nine for other paths. Every route
has a timeout and retries, and every host a budget for its retries.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

ROUTES_OF_A_HOST = 10
_TIMEOUT, _PER_TRY, _ATTEMPTS = 15, 5, 2
_PERCENT, _LEAST = 20, 3  # of the budget


def documents(routes: int, host: str, namespace: str) -> dict[str, object]:
    """What a Snapshot has of so many routes."""
    named = [(f"s{number}", each) for number, each in enumerate(_hosts(routes, host))]
    policy = {"retryBudget": {"percent": _PERCENT, "minRetryConcurrency": _LEAST}}
    return {
        "schema": "1.4",
        "virtualServices": [
            {"name": name, "namespace": namespace, "hosts": [each], "http": list(_rules(routes, host))}
            for name, each in named
        ],
        "destinationRules": [
            {"name": name, "namespace": namespace, "host": each, "trafficPolicy": policy} for name, each in named
        ],
    }


def _hosts(routes: int, host: str) -> list[str]:
    """The app's host and others, one for ten routes. The app's is in the middle."""
    others = [f"s{number}.example" for number in range(routes // ROUTES_OF_A_HOST - 1)]
    middle = len(others) // 2
    return [*others[:middle], host, *others[middle:]]


def _prefixes(routes: int) -> Iterator[str]:
    for number in range(min(routes, ROUTES_OF_A_HOST) - 1):
        yield f"/section-{number}/"
    yield "/"


def _rules(routes: int, host: str) -> Iterator[dict[str, object]]:
    for number, prefix in enumerate(_prefixes(routes)):
        yield {
            "name": f"r{number}",
            "match": [{"uri": {"prefix": prefix}}],
            "route": [{"destination": {"host": host}}],
            "timeout": f"{_TIMEOUT}s",
            "retries": {"attempts": _ATTEMPTS, "perTryTimeout": f"{_PER_TRY}s", "retryOn": "connect-failure,503"},
        }


def envoy_hosts(routes: int, host: str, port: int) -> str:
    """The same as Envoy's virtual hosts, in the form in which istiod writes them; without routes one that takes all."""
    if not routes:
        every = {"match": {"prefix": "/"}, "route": {"cluster": "next", "timeout": "0s"}}
        return json.dumps([{"name": "next", "domains": ["*"], "routes": [every]}])
    retry = {
        "retry_on": "connect-failure,retriable-status-codes",
        "retriable_status_codes": [503],
        "num_retries": _ATTEMPTS,
        "per_try_timeout": f"{_PER_TRY}s",
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                },
            }
        ],
        "host_selection_retry_max_attempts": 5,
    }
    action = {"cluster": "next", "timeout": f"{_TIMEOUT}s", "retry_policy": retry}
    rules = [{"match": {"prefix": prefix}, "route": action} for prefix in _prefixes(routes)]
    return json.dumps(
        [
            {"name": f"s{number}", "domains": [each, f"{each}:{port}"], "routes": rules}
            for number, each in enumerate(_hosts(routes, host))
        ]
    )


def envoy_breakers(routes: int) -> str:
    """The budget, as a line of Envoy's cluster; empty without routes."""
    if not routes:
        return ""
    budget = {"budget_percent": {"value": _PERCENT}, "min_retry_concurrency": _LEAST}
    return f"      circuit_breakers: {json.dumps({'thresholds': [{'retry_budget': budget}]})}\n"
