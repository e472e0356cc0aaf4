"""What a registration may say, whose address, which virtual one is free, and who may serve."""

from __future__ import annotations

import ipaddress
from typing import Any

import msgspec
import pytest

from certs.spiffe import SpiffeId, parse, workload
from control.problems import Invalid
from control.registry import address_check, serving_rights, virtual_address_allocator
from control.registry.registration import (
    DETAIL_CHARS,
    LABELS,
    RegisteredEndpoint,
    Registration,
    check,
    check_id,
    printable,
)
from control.registry.virtual_address_allocator import FIRST, LAST, Freed, addresses, free, number_of
from sidecar.resources.kinds import Service
from sidecar.resources.schema import PortSpec

ONE = [PortSpec(port=80)]
TWO = [PortSpec(port=80, name="http"), PortSpec(port=9000, name="admin")]
HOUR = virtual_address_allocator.KEPT_SECONDS


def registration(**told: Any) -> Registration:
    return msgspec.convert(told, Registration)


# -- registrations ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "ports", "ttl"),
    [
        ({}, ONE, 15.0),
        ({}, TWO, 15.0),
        ({"port": 8080}, ONE, 15.0),
        ({"ports": {"http": 8080}}, TWO, 15.0),
        ({"mode": "direct", "port": 15006}, TWO, 15.0),
        ({"mode": "direct", "ports": {"http": 1, "admin": 2}}, TWO, 15.0),
        ({"ttl": "3s"}, ONE, 3.0),
        ({"ttl": "5m"}, ONE, 300.0),
        ({"labels": {"version": "v2", "example.com/a_b": "", "x" * 63: "y" * 63}}, ONE, 15.0),
    ],
)
def test_a_registration_that_holds_together_is_taken(told: Any, ports: list[PortSpec], ttl: float) -> None:
    assert check(registration(**told), ports) == ttl


@pytest.mark.parametrize(
    ("told", "ports", "why"),
    [
        ({"port": 1, "ports": {"http": 2}}, TWO, "one of them is enough"),
        ({"port": 8080}, TWO, "one for several ports"),
        ({"ports": {"grpc": 1}}, TWO, "'grpc' is not the name of a port of this service (admin, http)"),
        ({"ports": {"grpc": 1}}, ONE, "none of them has a name"),
        ({"mode": "direct"}, ONE, "at which port its sidecar listens"),
        ({"mode": "direct", "ports": {"http": 1}}, TWO, "at which port its sidecar listens"),
        ({"ttl": "2900ms"}, ONE, "ttl: 2900ms is not from 3s to 5m"),
        ({"ttl": "301s"}, ONE, "ttl: 301s is not from 3s to 5m"),
        ({"ttl": "soon"}, ONE, "ttl: 'soon' is not a duration"),
        ({"ttl": "0"}, ONE, "ttl: "),
        ({"labels": {f"l{n}": "" for n in range(LABELS + 1)}}, ONE, "labels: more than"),
        ({"labels": {"": "x"}}, ONE, "not a label's name"),
        ({"labels": {"x" * 64: "x"}}, ONE, "not a label's name"),
        ({"labels": {"a/b/c": "x"}}, ONE, "not a label's name"),
        ({"labels": {"a\nb": "x"}}, ONE, "not a label's name"),
        ({"labels": {"a": "x" * 64}}, ONE, "the value of a"),
        ({"labels": {"a": "é"}}, ONE, "the value of a"),
        ({"labels": {"a": "x\n"}}, ONE, "the value of a"),
    ],
)
def test_a_registration_that_does_not_is_told_what_is_wrong(told: Any, ports: list[PortSpec], why: str) -> None:
    with pytest.raises(Invalid) as caught:
        check(registration(**told), ports)
    assert why in caught.value.detail


@pytest.mark.parametrize("text", ["", "A", "a_b", "-a", "a-", ".a", "a" * 64, "é", "a\n", "a/b", "a b"])
def test_an_id_is_one_that_can_stand_in_a_path(text: str) -> None:
    with pytest.raises(Invalid):
        check_id(text)


@pytest.mark.parametrize("text", ["a", "billing-7d9f-x2x", "10.1.2.3", "a" * 63])
def test_ids_as_pods_have_them(text: str) -> None:
    check_id(text)


def test_a_detail_is_kept_printable_and_bounded() -> None:
    assert printable("GET /healthz: 503, größer als 1 s") == "GET /healthz: 503, größer als 1 s"
    assert printable("a\nb\x1b[31m") == "a\\nb\\x1b[31m"
    assert len(printable("\n" * DETAIL_CHARS)) == DETAIL_CHARS
    assert printable("x" * DETAIL_CHARS) == "x" * DETAIL_CHARS
    assert printable("x" * (DETAIL_CHARS + 1)) == "x" * (DETAIL_CHARS - 3) + "..."


def test_callers_are_told_which_are_known_to_be_unwell() -> None:
    def with_health(healthy: bool | None) -> RegisteredEndpoint:
        return RegisteredEndpoint(
            id="a", identity="x", address="10.0.0.1", ttl=15.0, healthy=healthy, registered=0.0, changed=0.0
        )

    found = [(with_health(each).spec(["10.0.0.1"]).unwell, with_health(each).health) for each in (True, None, False)]
    assert found == [(False, "healthy"), (False, "unknown"), (True, "unhealthy")]


# -- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "peer", "found", "own"),
    [
        ("", "10.0.0.7", "10.0.0.7", True),
        ("", "::ffff:10.0.0.7", "10.0.0.7", True),
        ("", "2001:DB8::1", "2001:db8::1", True),
        ("10.0.0.7", "10.0.0.7", "10.0.0.7", True),
        ("::ffff:10.0.0.7", "10.0.0.7", "10.0.0.7", True),
        ("2001:0db8:0:0::1", "2001:db8::1", "2001:db8::1", True),
        ("", "127.0.0.1", "127.0.0.1", True),
        ("127.0.0.9", "127.0.0.1", "127.0.0.9", True),
        ("::1", "127.0.0.1", "::1", True),
        ("10.0.0.8", "10.0.0.7", "10.0.0.8", False),
        ("10.0.0.8", "127.0.0.1", "10.0.0.8", False),
        ("10.0.0.8", "socket", "10.0.0.8", False),
        ("fd00::1", "10.0.0.7", "fd00::1", False),
    ],
)
def test_an_address_is_canonical_and_the_observed_one_needs_nobodys_word(
    wanted: str, peer: str, found: str, own: bool
) -> None:
    address = address_check.address_of(wanted, peer)
    assert str(address) == found
    assert address_check.is_own(address, peer) is own


@pytest.mark.parametrize(
    ("further", "peer", "proven", "allowed", "found", "refused"),
    [
        ((), "10.0.0.7", (), (), ["10.0.0.7"], []),
        (("10.0.0.7", "fd00::7"), "10.0.0.7", (), (), ["10.0.0.7"], ["fd00::7"]),
        (("10.0.0.7", "fd00::7"), "fd00::7", (), (), ["fd00::7"], ["10.0.0.7"]),
        (("10.0.0.7", "fd00::7"), "fd00::7", ("10.0.0.7",), (), ["10.0.0.7", "fd00::7"], []),
        (("10.0.0.7", "fd00::7"), "10.0.0.7", (), ("fd00::/8",), ["10.0.0.7", "fd00::7"], []),
        (("10.0.0.7", "FD00:0::7"), "::ffff:10.0.0.7", (), ("fd00::/8",), ["10.0.0.7", "fd00::7"], []),
        (("10.0.0.7",), "192.0.2.1", (), (), ["192.0.2.1"], ["10.0.0.7"]),  # behind a translation
        (("10.0.0.7",), "192.0.2.1", (), ("10.0.0.0/8",), ["10.0.0.7"], []),
        (("10.0.0.7", "fd00::7"), "192.0.2.1", ("fd00::7",), (), ["fd00::7"], ["10.0.0.7"]),
        (("10.0.0.7", "fe80::1", "x"), "10.0.0.7", (), ("::/0",), ["10.0.0.7"], ["fe80::1", "x"]),
        (("127.0.0.9", "::1"), "127.0.0.1", (), (), ["127.0.0.9", "::1"], []),
        (("127.0.0.9",), "10.0.0.7", (), ("0.0.0.0/0",), ["10.0.0.7"], ["127.0.0.9"]),
    ],
)
def test_each_address_is_taken_that_is_proven_or_allowed(
    further: tuple[str, ...],
    peer: str,
    proven: tuple[str, ...],
    allowed: tuple[str, ...],
    found: list[str],
    refused: list[str],
) -> None:
    placed = address_check.placed("", further, peer, proven, allowed)
    assert list(placed.addresses) == found
    assert [each.address for each in placed.refused] == refused
    assert all(each.why for each in placed.refused)
    assert set(placed.proven) <= {*proven, str(address_check.observed(peer)), *placed.addresses}


def test_what_a_network_allows_is_not_proven_by_it() -> None:
    both = ("10.0.0.7", "fd00::7")
    assert address_check.placed("", both, "10.0.0.7", (), ("fd00::/8",)).proven == ("10.0.0.7",)
    assert address_check.placed("", both, "fd00::7", ("10.0.0.7",), ()).proven == both
    assert address_check.placed("10.0.0.7", ("fd00::7",), "10.0.0.7", (), ()).addresses == ("10.0.0.7",)
    with pytest.raises(Invalid, match="no token of this workload allows it"):
        address_check.placed("10.0.0.8", both, "10.0.0.7", (), ())


@pytest.mark.parametrize(
    ("wanted", "peer", "why"),
    [
        ("", "socket", "does not show where it comes from"),
        ("", "unknown", "does not show where it comes from"),
        ("billing.shop", "10.0.0.7", "is not an IP address"),
        ("10.0.0.7:80", "10.0.0.7", "is not an IP address"),
        ("10.0.0.7/32", "10.0.0.7", "is not an IP address"),
        ("010.0.0.7", "10.0.0.7", "is not an IP address"),
        ("fe80::1%eth0", "10.0.0.7", "is not an IP address"),
        ("0.0.0.0", "10.0.0.7", "nobody's address"),
        ("0.1.2.3", "10.0.0.7", "nobody's address"),
        ("::", "10.0.0.7", "nobody's address"),
        ("255.255.255.255", "10.0.0.7", "nobody's address"),
        ("240.240.1.1", "10.0.0.7", "nobody's address"),
        ("2001:2::1", "10.0.0.7", "nobody's address"),
        ("224.0.0.1", "10.0.0.7", "multicast"),
        ("ff02::1", "10.0.0.7", "multicast"),
        ("169.254.169.254", "10.0.0.7", "link-local"),
        ("fe80::1", "10.0.0.7", "link-local"),
        ("", "fe80::1", "link-local"),
        ("127.0.0.1", "10.0.0.7", "loopback"),
        ("::1", "10.0.0.7", "loopback"),
        ("::ffff:127.0.0.1", "10.0.0.7", "loopback"),
        ("127.0.0.1", "socket", "loopback"),
    ],
)
def test_an_address_that_nobody_may_have_is_refused_by_name(wanted: str, peer: str, why: str) -> None:
    with pytest.raises(Invalid) as caught:
        address_check.address_of(wanted, peer)
    assert why in caught.value.detail


def test_a_tokens_networks_are_canonical_and_each_one_is_one() -> None:
    assert address_check.networks(["10.0.0.0/8", "10.0.0.0/8", "fd00::/8", "192.0.2.1"]) == (
        "10.0.0.0/8",
        "fd00::/8",
        "192.0.2.1/32",
    )
    for wrong in ("none", "10.0.0.0/8,10.0.0.0/9", "10.0.0.1/8", "shop", "", "10.0.0.0/33"):
        with pytest.raises(Invalid, match=r"addresses: .*10\.0\.0\.0/8"):
            address_check.networks([wrong])
    with pytest.raises(Invalid, match="more than"):
        address_check.networks([f"10.0.{n}.0/24" for n in range(address_check.NETWORKS + 1)])


def test_an_address_is_allowed_by_a_network_of_its_own_family() -> None:
    address = ipaddress.ip_address("10.1.2.3")
    assert address_check.is_allowed(address, ["fd00::/8", "10.0.0.0/8"])
    assert not address_check.is_allowed(address, ["::/0", "10.2.0.0/16"])
    assert not address_check.is_allowed(address, [])


# -- virtual addresses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [FIRST, 256, 4711, LAST])
def test_a_number_stands_for_an_address_of_each_family(number: int) -> None:
    found = addresses(number)
    assert ipaddress.ip_address(found.v4) in ipaddress.ip_network("240.240.0.0/16")
    assert ipaddress.ip_address(found.v6) in ipaddress.ip_network("2001:2::/48")
    assert number_of(found.v4) == number_of(found.v6) == number


def test_the_ends_of_the_range_are_nobodys() -> None:
    assert addresses(FIRST).v4 == "240.240.0.1"
    assert addresses(LAST).v4 == "240.240.255.254"
    for address in ("240.240.0.0", "240.240.255.255", "2001:2::", "2001:2::1:0", "10.0.0.1", "shop", ""):
        assert number_of(address) is None


def test_a_service_finds_its_number_again_and_another_one_where_that_is_taken() -> None:
    number = free(("shop", "billing"), set(), {}, 0.0)
    assert number is not None
    assert free(("shop", "billing"), set(), {}, 0.0) == number
    assert free(("shop", "billing"), {number}, {}, 0.0) not in (number, None)


def test_a_freed_number_goes_to_nobody_else_for_an_hour() -> None:
    number = free(("shop", "billing"), set(), {}, 0.0)
    assert number is not None
    every = set(range(FIRST, LAST + 1)) - {number}
    freed = {number: Freed(("shop", "billing"), HOUR)}
    assert free(("shop", "orders"), every, freed, HOUR - 1) is None
    assert free(("shop", "billing"), every, freed, 1.0) == number
    assert free(("shop", "orders"), every, freed, HOUR) == number


def test_where_all_are_taken_there_is_none() -> None:
    assert free(("shop", "billing"), range(FIRST, LAST + 1), {}, 0.0) is None


# -- who may serve ---------------------------------------------------------------------------------------------------

DOMAIN = "cluster.local"
SERVED = Service(ports=ONE, service_accounts=["billing"], subject_alt_names=["spiffe://other.mesh/ns/x/sa/y"])


@pytest.mark.parametrize(
    ("identity", "may"),
    [
        (workload(DOMAIN, "shop", "billing"), True),
        (parse("spiffe://other.mesh/ns/x/sa/y"), True),
        (workload(DOMAIN, "shop", "orders"), False),
        (workload(DOMAIN, "bank", "billing"), False),
        (workload("other.mesh", "shop", "billing"), False),
        (parse("spiffe://cluster.local/shop/billing"), False),
        (parse("spiffe://cluster.local"), False),
    ],
)
def test_who_may_serve_is_said_by_the_service(identity: SpiffeId, may: bool) -> None:
    assert serving_rights.may_serve(SERVED, "shop", identity, DOMAIN) is may


def test_a_service_that_lists_nobody_is_served_by_nobody() -> None:
    assert not serving_rights.may_serve(Service(ports=ONE), "shop", workload(DOMAIN, "shop", "billing"), DOMAIN)
