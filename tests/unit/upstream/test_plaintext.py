"""What was dialed in plaintext, and belongs to the mesh by now: remembered within a bound."""

from __future__ import annotations

import pytest
import trio

from sidecar.addresses import Address
from sidecar.errors import ProxyError
from sidecar.net.resolve import Resolver
from sidecar.resources.snapshot import NOTHING
from sidecar.upstream.plaintext import MOST_PLACES, PlaintextConnector
from tests.unit.resources.written import snapshot


def connector() -> PlaintextConnector:
    return PlaintextConnector(Resolver(), [], set(), lambda: NOTHING)


async def test_an_endpoint_whose_address_joins_the_mesh_is_told_once() -> None:
    plaintext, place = connector(), Address("10.0.0.7", 8080)
    with trio.fail_after(5):
        await plaintext._look_up(place, "a test")
        await plaintext._look_up(Address("192.0.2.1", 80), "a test")
    assert plaintext.joined(NOTHING) == set()
    assert plaintext.joined(snapshot()) == {place}  # an endpoint of billing
    assert plaintext.joined(snapshot()) == set()


async def test_places_are_remembered_within_a_bound_and_beyond_it_all_begin_anew() -> None:
    plaintext = connector()
    with trio.fail_after(30):
        for number in range(MOST_PLACES + 10):
            await plaintext._look_up(
                Address(f"198.{18 + number // 65536}.{number // 256 % 256}.{number % 256}", 80), "x"
            )
    assert len(plaintext._dialed) <= MOST_PLACES
    assert plaintext.joined(NOTHING) is None  # which stands for all of them
    assert plaintext.joined(NOTHING) == set()


async def test_what_the_mesh_has_is_not_dialed() -> None:
    plaintext = PlaintextConnector(Resolver(), [], set(), snapshot)
    for host in ("10.0.0.7", "billing.shop"):
        with pytest.raises(ProxyError, match="never spoken to in plaintext"):
            await plaintext._look_up(Address(host, 8080), "a test")
