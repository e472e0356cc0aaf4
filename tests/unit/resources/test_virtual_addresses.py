"""Addresses that stand for services: the same everywhere, each for one service only, and within their ranges."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.resources.virtual_addresses import FIRST, LAST, is_virtual, virtual_addresses

NAMES = st.lists(st.tuples(st.sampled_from(["default", "shop"]), st.text("abc", min_size=1, max_size=4)), max_size=60)


@given(NAMES, st.randoms())
def test_each_has_its_own_whatever_order_they_come_in(names: list[tuple[str, str]], chance: st.DrawFn) -> None:
    given_ = virtual_addresses(names)
    shuffled = list(names)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert virtual_addresses(shuffled) == given_
    assert set(given_) == set(names)
    flat = [address for pair in given_.values() for address in pair]
    assert len(set(flat)) == len(flat)
    for four, six in given_.values():
        assert ip_address(four) in ip_network("240.240.0.0/16") and ip_address(six) in ip_network("2001:2::/48")
        assert is_virtual(four) and is_virtual(six)


def test_it_stays_when_others_come() -> None:
    few = virtual_addresses([("shop", f"s{number}") for number in range(100)])
    more = virtual_addresses([("shop", f"s{number}") for number in range(200)])
    assert sum(more[key] != pair for key, pair in few.items()) <= 2


def test_what_is_taken_is_not_given_again() -> None:
    ((four, six),) = virtual_addresses([("shop", "web")]).values()
    for taken in (four, six):
        ((other, _),) = virtual_addresses([("shop", "web")], [taken]).values()
        assert other != four


def test_there_is_an_end_to_them() -> None:
    taken = {f"240.240.{number // 256}.{number % 256}" for number in range(FIRST, LAST - 1)}
    found = virtual_addresses([("shop", f"s{number}") for number in range(5)], taken)
    assert sorted(four for four, _ in found.values()) == ["240.240.255.253", "240.240.255.254"]


@pytest.mark.parametrize("address", ["240.241.0.1", "10.240.240.1", "2001:20::1", "2001:2:1::1", "2001:db8::1", ""])
def test_no_other_address_is_one(address: str) -> None:
    assert not is_virtual(address)
