"""The stores that are held to it: SQLite in a file and in memory, and a dict."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from control.store import Store
from control.store.sqlite import open_store
from tests.support.dict_store import DictStore

SECONDS = 1000.5  # when they are made
STORES: dict[str, Callable[[Path], Store]] = {
    "sqlite in a file": lambda path: open_store(str(path / "store.db"), SECONDS),
    "sqlite in memory": lambda path: open_store("", SECONDS),
    "a dict": lambda path: DictStore(int(SECONDS * 1000)),
}


@pytest.fixture(params=list(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made = STORES[request.param](tmp_path)
    yield made
    made.close()
