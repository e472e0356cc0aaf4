"""Who may have something forwarded, and that nobody else makes a permit."""

from __future__ import annotations

import msgspec
import pytest

from sidecar.errors import Fault, ProxyError, Reason
from sidecar.policy.authorize import Permit, authorize_caller, authorize_inbound, authorize_outbound


def test_inbound_serves_whoever_connects() -> None:
    assert isinstance(authorize_inbound(upstream_is_own=False), Permit)


def test_inbound_does_not_call_itself() -> None:
    with pytest.raises(ProxyError) as refused:
        authorize_inbound(upstream_is_own=True)
    assert refused.value.reason is Reason.OWN_LISTENER
    assert refused.value.reason.fault is Fault.POLICY


def test_outbound_serves_loopback() -> None:
    assert isinstance(authorize_outbound(loopback=True, destination_is_own=False), Permit)
    authorize_caller(loopback=True)


@pytest.mark.parametrize(
    ("loopback", "own", "reason"),
    [
        (True, True, Reason.OWN_LISTENER),
        (False, False, Reason.CALLER_REFUSED),
        (False, True, Reason.CALLER_REFUSED),  # a stranger does not learn what our listeners are
    ],
)
def test_outbound_refuses(loopback: bool, own: bool, reason: Reason) -> None:
    with pytest.raises(ProxyError) as refused:
        authorize_outbound(loopback=loopback, destination_is_own=own)
    assert refused.value.reason is reason


def test_a_stranger_is_refused_before_any_destination() -> None:
    with pytest.raises(ProxyError) as refused:
        authorize_caller(loopback=False)
    assert refused.value.reason is Reason.CALLER_REFUSED


@pytest.mark.parametrize("key", [None, object(), "", True], ids=repr)
def test_nobody_else_makes_a_permit(key: object) -> None:
    with pytest.raises(TypeError, match=r"only policy\.authorize"):
        Permit(key, "because")


def test_a_permit_does_not_change() -> None:
    permit = authorize_inbound(upstream_is_own=False)
    with pytest.raises(AttributeError):
        permit.rule = "another"  # type: ignore[misc]
    assert msgspec.structs.asdict(permit)["rule"]
