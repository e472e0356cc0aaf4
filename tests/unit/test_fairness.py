"""When a step of a handshake may begin, and who makes room."""

from __future__ import annotations

from itertools import pairwise

import pytest

from sidecar.policy.fairness import AROUND, FLOWING_SECONDS, SLACK_SECONDS, Activity, PerPeerQueue, RateShare, peer_of


@pytest.mark.parametrize(
    ("host", "peer"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "20010db800010002"),
        ("2001:db8:1:2::9", "20010db800010002"),
        ("2001:db8:1:3::9", "20010db800010003"),
        ("::1", "0000000000000000"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80000000000000"),
        ("not:an:address", "not:an:address"),
    ],
)
def test_a_peer_is_an_address_or_a_network(host: str, peer: str) -> None:
    assert peer_of(host) == peer


def test_who_was_idle_may_do_a_few_steps_and_then_keeps_to_its_share() -> None:
    """A step of 10 ms each time that it may: the rest is not owed before the slack is used up."""
    share, step, now = 0.1, 0.01, 100.0
    pace, began = RateShare(share), list[float]()
    for _ in range(50):
        now += pace.rest(now)
        began.append(now)
        pace.spent(now, step)
        now += step
    at_first = [at for at in began if at < 100.0 + SLACK_SECONDS]
    assert 1 < len(at_first) <= SLACK_SECONDS * share / AROUND / step + 2
    apart = [after - before for before, after in pairwise(began[10:])]
    assert apart == pytest.approx([step * AROUND / share] * len(apart))


def test_what_was_done_while_nobody_else_was_at_work_is_no_debt() -> None:
    pace, now = RateShare(0.1), 100.0
    for _ in range(1000):  # without a rest
        pace.spent(now, 0.01)
        now += 0.01
    assert pace.rest(now) == pytest.approx(0.01 * AROUND / 0.1 - 0.01)


def test_a_rest_ends() -> None:
    pace = RateShare(0.5)
    for _ in range(100):
        pace.spent(100.0, 0.01)
    assert pace.rest(100.0) > 0.0
    assert pace.rest(200.0) == 0.0


def test_others_are_at_work_for_a_moment_after_the_number_changed() -> None:
    flow = Activity()
    told = [(100.0, 0), (100.0, 7), (100.0 + FLOWING_SECONDS / 2, 7), (100.1 + FLOWING_SECONDS, 7), (200.0, 0)]
    assert [flow.goes_on(now, forwarded) for now, forwarded in told] == [False, True, True, False, True]


def test_room_is_made_by_the_oldest_of_whoever_has_most() -> None:
    things: PerPeerQueue[int] = PerPeerQueue()
    for peer, thing in (("b", 1), ("a", 2), ("a", 3), ("a", 4), ("b", 5), ("c", 6)):
        things.add(peer, thing)
    assert [things.take_from_largest() for _ in range(2)] == [2, 1]
    assert len(things) == 4
    things.discard("a", 3)
    things.discard("a", 3)
    things.discard("nobody", 3)
    assert len(things) == 3
    assert sorted(things.take_from_largest() for _ in range(3)) == [4, 5, 6]
    with pytest.raises(ValueError, match="empty"):
        things.take_from_largest()
