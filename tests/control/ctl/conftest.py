"""A control plane, and the command as its operator."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.control.ctl.running import Ctl, operator
from tests.support.control_process import ControlProcess


@pytest.fixture(scope="module")
def control() -> Iterator[ControlProcess]:
    """A control plane for the tests of one file."""
    with ControlProcess(3600.0) as made:
        yield made


@pytest.fixture
def ctl(control: ControlProcess, tmp_path: Path) -> Ctl:
    """The command, as the operator."""
    return operator(control, tmp_path)
