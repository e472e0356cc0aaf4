"""One browser and one sidecar under load for the tests that only look; each test has a tab of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.browser.chromium import Chromium
from tests.browser.traffic import running_app, running_load
from tests.support.process import SidecarProcess

RATE = 1000.0  # requests per second


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    with Chromium("--host-resolver-rules=MAP rebound.example 127.0.0.1") as running:
        yield running


@pytest.fixture
def browser(chromium: Chromium) -> Iterator[Chromium]:
    """The browser, whose tabs end with the test."""
    yield chromium
    chromium.close_tabs()


@pytest.fixture(scope="module")
def app_port() -> Iterator[int]:
    with running_app() as port:
        yield port


@pytest.fixture(scope="module")
def loaded(app_port: int) -> Iterator[tuple[SidecarProcess, Callable[[], int]]]:
    """A sidecar with RATE requests per second behind it, some of which fail; and how many there have been."""
    with SidecarProcess(app_port, "--memory-limit", "512MiB", access_log="off") as sidecar:
        with running_load(sidecar, app_port, rate=RATE, failures=10.0) as sent:
            yield sidecar, sent


@pytest.fixture
def busy(loaded: tuple[SidecarProcess, Callable[[], int]]) -> SidecarProcess:
    """The sidecar of ``loaded``."""
    return loaded[0]
