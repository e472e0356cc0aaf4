"""The phases of a root, step by step, by a clock that is an argument."""

from __future__ import annotations

import pytest

from certs import issue, keys
from certs.issue import Issuer
from control import ca_rotation
from control.ca_rotation import Generation, Generations, Phase, RotationRefused

ISSUER: Issuer = issue.new_root("cluster.local", keys.new_key(), keys.new_serial(), 0.0, 1e6)


def one(name: str, phase: Phase = Phase.ISSUING, until: float = 0.0) -> Generation:
    return Generation(name, ISSUER, phase, 0.0, until)


def shown(generations: Generations) -> list[tuple[str, str, float]]:
    return [(each.id, each.phase.value, each.until) for each in generations]


BEGUN = ca_rotation.begin((one("old"),), one("new"), 100.0, 50.0)


def test_a_new_root_is_published_first() -> None:
    assert shown(BEGUN) == [("old", "issuing", 0.0), ("new", "published", 150.0)]
    assert ca_rotation.next_step(BEGUN) == 150.0
    assert ca_rotation.issuing(BEGUN).id == "old"


def test_nothing_happens_before_it_is_due() -> None:
    assert ca_rotation.step(BEGUN, 149.9, False, 500.0) is BEGUN


@pytest.mark.parametrize(("now", "confirmed"), [(120.0, True), (150.0, False), (1e9, False)])
def test_it_issues_when_all_have_confirmed_or_at_the_deadline(now: float, confirmed: bool) -> None:
    after = ca_rotation.step(BEGUN, now, confirmed, 500.0)
    assert shown(after) == [("old", "retiring", max(now, 500.0)), ("new", "issuing", 0.0)]
    assert ca_rotation.issuing(after).since == now


def test_the_old_one_goes_when_the_last_of_its_certificates_has_expired() -> None:
    after = ca_rotation.step(BEGUN, 120.0, True, 500.0)
    assert ca_rotation.next_step(after) == 500.0
    assert ca_rotation.step(after, 499.0, True, 0.0) is after
    assert shown(ca_rotation.step(after, 500.0, True, 0.0)) == [("new", "issuing", 0.0)]


def test_another_may_begin_while_one_retires_and_not_while_one_waits() -> None:
    with pytest.raises(RotationRefused):
        ca_rotation.begin(BEGUN, one("third"), 120.0, 1.0)
    retiring = ca_rotation.step(BEGUN, 120.0, True, 500.0)
    both = ca_rotation.begin(retiring, one("third"), 130.0, 10.0)
    assert shown(ca_rotation.step(both, 140.0, False, 600.0)) == [
        ("old", "retiring", 500.0),
        ("new", "retiring", 600.0),
        ("third", "issuing", 0.0),
    ]


def test_at_any_time_exactly_one_issues() -> None:
    generations: Generations = (one("0"),)
    for at in range(1, 2000, 7):
        if at % 5 == 0 and ca_rotation.coming(generations) is None:
            generations = ca_rotation.begin(generations, one(str(at)), float(at), 30.0)
        generations = ca_rotation.step(generations, float(at), at % 3 == 0, at + 40.0)
        ca_rotation.check(generations)


@pytest.mark.parametrize(
    "phases", [[], [Phase.RETIRING], [Phase.ISSUING] * 2, [Phase.ISSUING, Phase.PUBLISHED, Phase.PUBLISHED]]
)
def test_a_state_that_can_not_be_is_refused(phases: list[Phase]) -> None:
    with pytest.raises(ValueError):
        ca_rotation.check(tuple(one(str(at), phase) for at, phase in enumerate(phases)))
