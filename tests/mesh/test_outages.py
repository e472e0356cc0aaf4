"""Outages of ``tests.soak_control`` in short: of some seconds, with heartbeats every second.

The others go much as these do, and are left to ``make soak``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.soak_control import late, outage
from tests.support.fleet import Fleet

SHORT = ("killed", "cut", "nonsense", "half")
SECONDS = 4.5  # longer than three heartbeats, and than an endpoint may be silent


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Fleet(("orders", "web"), short=True) as made:
        yield made
        made.check()


@pytest.mark.parametrize("name", SHORT)
def test_services_go_on_without_a_control_plane(fleet: Fleet, name: str) -> None:
    outage(fleet, name, SECONDS)


def test_who_starts_meanwhile_serves_by_what_it_has_kept(fleet: Fleet) -> None:
    late(fleet)


def test_who_drains_under_load_fails_nobody(fleet: Fleet) -> None:
    """Whoever calls it before all know goes to the other one."""
    fleet.drain("web-1")
    fleet.goes_on(2.0)
    assert set(fleet.endpoints()["web"]) == {"web-0"}
