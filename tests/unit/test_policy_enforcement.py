"""What stands between the Snapshot's policies and the pipeline: the address that trusted proxies report, and words."""

from __future__ import annotations

import pytest

from sidecar.errors import ProxyError, Reason
from sidecar.proxy.local_reply import rbac_reply
from sidecar.proxy.policy_enforcement import MOST_DRY_RUNS, DryRuns, remote_address

TRUSTED = ("10.0.0.1", "10.0.0.2")


@pytest.mark.parametrize(
    ("client", "forwarded", "found"),
    [
        ("192.0.2.7", b"203.0.113.9", "192.0.2.7"),  # what a stranger says counts for nothing
        ("10.0.0.1", b"203.0.113.9", "203.0.113.9"),
        ("10.0.0.1", b"198.51.100.1, 203.0.113.9", "203.0.113.9"),  # the last one that no trusted proxy is
        ("10.0.0.1", b"203.0.113.9 ,10.0.0.2", "203.0.113.9"),
        ("10.0.0.1", b"10.0.0.2", "10.0.0.2"),
        ("10.0.0.1", b"203.0.113.9, unknown", "unknown"),
        ("10.0.0.1", b"203.0.113.9,", "unknown"),
        ("10.0.0.1", b"\xff", "�"),
    ],
)
def test_the_address_that_trusted_proxies_report(client: str, forwarded: bytes, found: str) -> None:
    assert remote_address(client, forwarded, lambda host: host in TRUSTED) == found


def test_a_refusal_tells_peers_of_the_mesh_why() -> None:
    error = ProxyError(Reason.RBAC_DENIED, 'no ALLOW policy matches; "quoted" \\ and \u00e9')
    error.rule = "default deny"
    to_stranger = rbac_reply(error, b"id-1", of_mesh=False)
    assert (to_stranger.status, to_stranger.body) == (403, b"RBAC: access denied")
    assert to_stranger.fields == [(b"content-type", b"text/plain")]
    (name, value) = rbac_reply(error, b"id-1", of_mesh=True).fields[-1]
    assert name == b"proxy-status"
    assert value == (
        b'sidecar; error=http_request_denied; details="default deny; no ALLOW policy matches; '
        b'\\"quoted\\" \\\\ and ?; decision id-1"'
    )


def test_dry_runs_are_counted_by_caller_and_bounded() -> None:
    found = DryRuns()
    for number in range(MOST_DRY_RUNS + 5):
        found.add("shop/dry", f"caller-{number}", "deny")
    found.add("shop/dry", "caller-0", "deny")
    rows = found.shown()
    assert len(rows) == MOST_DRY_RUNS + 1
    assert [(row["caller"], row["times"]) for row in rows[:2]] == [("other callers", 5), ("caller-0", 2)]
