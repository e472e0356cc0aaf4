"""Policies and routes are compiled before their Snapshot is taken, in the same slices as the Snapshot itself.

Called by ``snapshot_feed`` and ``config_files``. A Snapshot that comes without is obeyed all the same:
``proxy.policy_enforcement`` and ``proxy.route_table`` compile what is missing, at once.
"""

from __future__ import annotations

from collections.abc import Generator
from importlib import import_module
from typing import Final

import msgspec

from sidecar.resources.incremental_compile import Compiled

# What ``policy.routing`` imports, in an order in which each takes few milliseconds.
_OF_ROUTES: Final = (
    "sidecar.policy.backends",
    "sidecar.policy.string_match",
    "sidecar.policy.route_question",
    "sidecar.policy.route_conditions",
    "sidecar.policy.route_index",
    "sidecar.policy.header_edits",
    "sidecar.policy.redirect",
    "sidecar.policy.cors",
    "sidecar.policy.route_actions",
    "sidecar.policy.l4_routes",
    "sidecar.policy.http_routes",
    "sidecar.policy.virtual_hosts",
)


def with_rules(work: Generator[None, None, Compiled]) -> Generator[None, None, Compiled]:
    """Return what the work does, with its policies and routes compiled. What there is none of is not imported."""
    compiled = yield from work
    snapshot = compiled.snapshot
    if snapshot is None:
        return compiled
    if snapshot.policies:
        from sidecar.policy.rbac import compile_policies

        rules = yield from compile_policies(snapshot.policies, snapshot.trust_domain)
        snapshot = msgspec.structs.replace(snapshot, rules=rules)
    if snapshot.has_traffic_rules:
        for name in _OF_ROUTES:
            import_module(name)
            yield
        from sidecar.policy.routing import compile_routing

        routing = yield from compile_routing(snapshot)
        snapshot = msgspec.structs.replace(snapshot, routing=routing)
    return msgspec.structs.replace(compiled, snapshot=snapshot)
