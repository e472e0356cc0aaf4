"""Where the app may send to, and that a name alone opens nothing."""

from __future__ import annotations

import pytest

from sidecar.errors import ProxyError, Reason
from sidecar.policy.authorize import Asked, Permit, allow_all, authorize_captured, authorize_outbound
from sidecar.policy.egress import OPEN, AllowedHost, Egress, effective, parse_allowed

ASKED = Asked("outbound", "", "127.0.0.1", "PassthroughCluster", "TCP")


def closed(text: str) -> Egress:
    return Egress(True, parse_allowed(text))


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("api.example.com", "api.example.com", 443),
        ("api.example.com:443", "API.example.com.", 443),
        ("API.Example.com.", "api.example.com", 1),
        ("a, b:80", "b", 80),
        ("10.0.0.7", "10.0.0.7", 5432),
        ("fd99::5", "FD99:0::5", 80),
        ("[fd99::5]:80", "fd99::5", 80),
        ("[fd99::5]", "[fd99::5]", 9),
        ("10.0.0.7:80", "::ffff:10.0.0.7", 80),
    ],
)
def test_a_host_is_allowed_however_it_is_spelled(text: str, host: str, port: int) -> None:
    assert closed(text).allows(host, port)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("none", "api.example.com", 443),
        ("api.example.com:443", "api.example.com", 80),
        ("example.com", "api.example.com", 443),
        ("api.example.com", "evil-api.example.com", 443),
        ("10.0.0.7", "10.0.0.70", 80),
        ("api.example.com", "", 443),
    ],
)
def test_another_is_not(text: str, host: str, port: int) -> None:
    assert not closed(text).allows(host, port)


def test_anybody_may_be_called_unless_it_is_closed() -> None:
    assert OPEN.allows("anybody", 1)
    assert OPEN.allows_as("", (), "192.0.2.1", 1)


@pytest.mark.parametrize(
    ("name", "resolved", "address", "allowed"),
    [
        ("api.example.com", ["192.0.2.1", "192.0.2.2"], "192.0.2.2", True),
        ("api.example.com", ["fd99:0::5"], "fd99::5", True),
        ("api.example.com", ["192.0.2.1"], "198.51.100.9", False),  # a lying Host, on its way to anywhere
        ("api.example.com", [], "198.51.100.9", False),
        ("other.example.com", ["198.51.100.9"], "198.51.100.9", False),
        ("other.example.com", [], "10.0.0.7", True),  # the address itself is allowed, whatever is said there
        ("10.0.0.7", ["10.0.0.7"], "198.51.100.9", False),
    ],
)
def test_a_name_counts_only_with_an_address_that_it_leads_to(
    name: str, resolved: list[str], address: str, allowed: bool
) -> None:
    assert closed("api.example.com,10.0.0.7").allows_as(name, resolved, address, 443) is allowed


def test_what_is_read_is_kept_in_one_spelling() -> None:
    assert parse_allowed("API.example.com.:443, FD99:0::5") == (
        AllowedHost("api.example.com", 443),
        AllowedHost("fd99::5"),
    )
    assert parse_allowed("none") == ()


def test_of_the_command_line_and_a_document_the_stricter_is_in_force() -> None:
    hosts = parse_allowed("api.example.com")
    shut = Egress(True, hosts)
    for document in (None, "ALLOW_ANY", "REGISTRY_ONLY"):
        assert effective(shut, document) is shut
    assert effective(OPEN, None) is effective(OPEN, "ALLOW_ANY") is OPEN
    found = effective(Egress(False, hosts), "REGISTRY_ONLY")
    assert found.allows("api.example.com", 443) and not found.allows("other.example.com", 443)


def test_before_anything_is_known_nobody_is_called_and_a_loop_is_still_a_loop() -> None:
    for own, reason in ((True, Reason.OWN_LISTENER), (False, Reason.NO_CONFIGURATION)):
        with pytest.raises(ProxyError) as refused:
            authorize_outbound(allow_all, ASKED, destination_is_own=own, allowed=True, configured=False)
        assert refused.value.reason is reason


def test_a_listener_of_ours_is_refused_before_the_policy_is_asked() -> None:
    assert isinstance(authorize_outbound(allow_all, ASKED, destination_is_own=False, allowed=True), Permit)
    for own, reason in ((True, Reason.OWN_LISTENER), (False, Reason.BLACK_HOLE)):
        with pytest.raises(ProxyError) as refused:
            authorize_outbound(allow_all, ASKED, destination_is_own=own, allowed=False)
        assert refused.value.reason is reason


@pytest.mark.parametrize(
    ("redirected", "own", "back", "local", "reason"),
    [
        (False, False, False, True, Reason.NOT_REDIRECTED),
        (True, True, False, True, Reason.OWN_LISTENER),
        (True, False, True, True, Reason.OWN_LISTENER),
        (True, False, False, False, Reason.NOT_THIS_POD),
    ],
)
def test_what_may_not_be_served_at_the_inbound_port(
    redirected: bool, own: bool, back: bool, local: bool, reason: Reason
) -> None:
    with pytest.raises(ProxyError) as refused:
        authorize_captured(redirected=redirected, own_listener=own, came_back=back, local=local)
    assert refused.value.reason is reason


def test_what_the_rules_brought_for_this_pod_may() -> None:
    authorize_captured(redirected=True, own_listener=False, came_back=False, local=True)
