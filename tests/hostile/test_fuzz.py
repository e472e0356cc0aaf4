"""CTL-12: twenty thousand mutated requests; the seed is printed, and any input can be made again from it."""

from __future__ import annotations

import os
import random

import pytest

from tests.hostile.coverage import covers
from tests.hostile.fuzz import Fuzzer
from tests.hostile.mutate import input_of, seeds_from
from tests.hostile.rig import Rig

_SEED = int(os.environ.get("FUZZ_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)


@covers("CTL-12")
@pytest.mark.parametrize(("protocol", "count"), [("http", 16_000), ("auto", 4_000)])
def test_mutated_requests(protocol: str, count: int) -> None:
    print(f"seed {_SEED}")
    with Rig("main", protocol, "--pool-idle-timeout", "2s", access_log="off") as rig:
        report = Fuzzer(rig, _SEED).run(count)
    assert report.count == count
    assert not report.failures, f"seed {_SEED}\n" + "\n".join(report.failures)
    # The mutants are neither all refused nor all well: else this would test one branch.
    assert report.forwarded > count // 20
    assert report.statuses["400"] > count // 20


def test_an_input_can_be_made_again() -> None:
    seeds = seeds_from([b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"])
    assert [input_of(7, n, seeds) for n in range(50)] == [input_of(7, n, seeds) for n in range(50)]
    assert len({input_of(7, n, seeds) for n in range(50)}) > 25
