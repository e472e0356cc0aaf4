"""What may be forwarded, that nothing else makes a permit, and that a permit is for one destination."""

from __future__ import annotations

import msgspec
import pytest

from sidecar.errors import Fault, ProxyError, Reason
from sidecar.policy.authorize import (
    Asked,
    Leave,
    Permit,
    Rules,
    allow_all,
    authorize_caller,
    authorize_inbound,
    authorize_outbound,
    authorize_service,
    refuse_own_listener,
)

PEER = "spiffe://cluster.local/ns/shop/sa/web"
INBOUND = Asked("inbound", PEER, "10.0.0.1", "inbound|8080||", "HTTP", b"GET", b"/x", b"web")
OUTBOUND = Asked("outbound", "", "127.0.0.1", "outbound|80||web.shop", "TCP")


def denying(seen: list[Asked]) -> Rules:
    def rules(asked: Asked) -> Leave:
        seen.append(asked)
        raise ProxyError(Reason.CALLER_REFUSED, "the test denies it")

    return rules


def test_a_permit_names_the_rule_the_peer_and_the_cluster() -> None:
    permit = authorize_inbound(lambda _: Leave("allow-web", "a note"), INBOUND)
    assert (permit.rule, permit.peer, permit.cluster, permit.at) == ("allow-web", PEER, "inbound|8080||", None)
    assert permit.note == "a note"
    assert authorize_inbound(allow_all, INBOUND).rule == "the app beside this proxy"
    assert authorize_service(allow_all, OUTBOUND).cluster == "outbound|80||web.shop"
    place = ("10.0.0.9", 80)
    assert authorize_outbound(allow_all, OUTBOUND, place, destination_is_own=False).at == place


def test_whatever_rules_deny_is_denied_in_both_directions() -> None:
    seen: list[Asked] = []
    for attempt in (
        lambda: authorize_inbound(denying(seen), INBOUND),
        lambda: authorize_service(denying(seen), OUTBOUND),
        lambda: authorize_outbound(denying(seen), OUTBOUND, destination_is_own=False),
    ):
        with pytest.raises(ProxyError, match="the test denies it"):
            attempt()
    assert seen == [INBOUND, OUTBOUND, OUTBOUND]


def test_a_listener_of_this_proxy_is_refused() -> None:
    refuse_own_listener(False)
    for attempt in (
        lambda: refuse_own_listener(True),
        lambda: authorize_outbound(allow_all, OUTBOUND, destination_is_own=True),
    ):
        with pytest.raises(ProxyError) as refused:
            attempt()
        assert refused.value.reason is Reason.OWN_LISTENER
        assert refused.value.reason.fault is Fault.POLICY


def test_only_loopback_may_call_outbound() -> None:
    authorize_caller(loopback=True)
    with pytest.raises(ProxyError) as refused:
        authorize_caller(loopback=False)
    assert refused.value.reason is Reason.CALLER_REFUSED


@pytest.mark.parametrize("key", [None, object(), "", True], ids=repr)
def test_nothing_else_makes_a_permit(key: object) -> None:
    with pytest.raises(TypeError, match=r"only policy\.authorize"):
        Permit(key, "because", "", "inbound|8080||")


def test_a_permit_does_not_change() -> None:
    permit = authorize_inbound(allow_all, INBOUND)
    with pytest.raises(AttributeError):
        permit.rule = "another"  # type: ignore[misc]
    assert msgspec.structs.asdict(permit)["rule"]
