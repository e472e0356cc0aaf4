"""Hands out the bed and its pods, and shows what ran in them where a test fails."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

import pytest

from tests.netns.bed import Bed
from tests.netns.pod import Pod

MakePod = Callable[[str], Pod]
_BED = pytest.StashKey[Bed]()


@pytest.fixture(scope="session")
def bed(request: pytest.FixtureRequest) -> Iterator[Bed]:
    with Bed() as made:
        request.config.stash[_BED] = made
        yield made
        del request.config.stash[_BED]


def _pods(bed: Bed) -> Iterator[MakePod]:
    made: list[Pod] = []

    def make(name: str) -> Pod:
        made.append(bed.pod(name))
        return made[-1]

    yield make
    for pod in made:
        bed.remove(pod)


@pytest.fixture
def make_pod(bed: Bed) -> Iterator[MakePod]:
    """``make_pod("a")`` is a pod that ends with the test."""
    yield from _pods(bed)


@pytest.fixture(scope="module")
def keep_pod(bed: Bed) -> Iterator[MakePod]:
    """``keep_pod("a")`` is a pod that ends with the module's last test."""
    yield from _pods(bed)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and (bed := item.config.stash.get(_BED, None)) is not None:
        report.sections += bed.story()
    return report
