"""Policies are compiled before their Snapshot is taken, in the same slices as the Snapshot itself.

Called by ``snapshot_feed`` and ``config_files``. A Snapshot that comes without is judged all the same:
``proxy.policy_enforcement`` compiles what is missing, at once.
"""

from __future__ import annotations

from collections.abc import Generator

import msgspec

from sidecar.policy.rbac import compile_policies
from sidecar.resources.incremental_compile import Compiled


def with_rules(work: Generator[None, None, Compiled]) -> Generator[None, None, Compiled]:
    """Return what the work does, with its policies compiled."""
    compiled = yield from work
    snapshot = compiled.snapshot
    if snapshot is None or not snapshot.policies:
        return compiled
    engine = yield from compile_policies(snapshot.policies, snapshot.trust_domain)
    return msgspec.structs.replace(compiled, snapshot=msgspec.structs.replace(snapshot, rules=engine))
