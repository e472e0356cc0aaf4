"""The stage that most tests of HTTP share: what each does on it has a path of its own, and leaves nothing behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.mesh.stage import Stage


@pytest.fixture(scope="package")
def stage() -> Iterator[Stage]:
    with Stage() as running:
        yield running
