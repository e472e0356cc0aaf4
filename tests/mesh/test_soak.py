"""The long runs of ``tests.soak_mesh`` in short."""

from __future__ import annotations

from tests.soak_mesh import mesh, outage

SHORTEST = 10.0  # seconds that a certificate lasts at least


def test_nothing_fails_while_certificates_and_a_root_change() -> None:
    mesh(SHORTEST, seconds=8.0, rotations=1, warm_up=5.0)


def test_an_authority_that_is_gone_and_comes_back() -> None:
    outage(2 * SHORTEST)  # two sidecars start again within what is left of a certificate, half its life at least
