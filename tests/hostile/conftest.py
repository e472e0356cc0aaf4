"""One proxy process for each protocol mode and set of flags, for the whole session."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.hostile.rig import Rig

PROTOCOLS = ("auto", "http")


@pytest.fixture(scope="session", params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def rigs() -> Iterator[Callable[[str, str], Rig]]:
    """``rigs(name, protocol)``: started when first asked for; each one is held to a clean exit at the end."""
    started: dict[tuple[str, str], Rig] = {}

    def get(name: str, protocol: str) -> Rig:
        key = (name, protocol)
        if key not in started:
            started[key] = Rig(name, protocol).__enter__()
        return started[key]

    yield get
    errors = []
    for rig in started.values():
        try:
            rig.__exit__(None, None, None)
        except AssertionError as error:
            errors.append(error)
    if errors:
        raise errors[0]
