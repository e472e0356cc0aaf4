"""``--no-skips`` makes a skipped test fail, whichever way it was skipped; and what a test points out is shown."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = {
    "test_called.py": "import pytest\ndef test_one():\n    pytest.skip('missing')\n",
    "test_marked.py": "import pytest\n@pytest.mark.skipif(True, reason='missing')\ndef test_one(): pass\n",
    "test_fixture.py": "import pytest\n@pytest.fixture\ndef it(): pytest.skip('missing')\ndef test_one(it): pass\n",
    "test_module.py": "import pytest\npytest.importorskip('no_such_module')\n",
    "test_expected.py": "import pytest\n@pytest.mark.xfail\ndef test_one(): assert False\n",
}


def run(folder: Path, *flags: str) -> subprocess.CompletedProcess[bytes]:
    plain = ["-c", "/dev/null", "-p", "no:cacheprovider", "--rootdir", str(folder), *flags]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *plain, str(folder)], capture_output=True, timeout=60, check=False
    )


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A directory with the conftest.py of all tests; no pytest loads what it does not need."""
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # seconds each, and none has a part in this
    (tmp_path / "conftest.py").write_text((Path(__file__).parents[1] / "conftest.py").read_text())


@pytest.mark.parametrize("name", TESTS)
def test_a_skipped_test_fails(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(TESTS[name])
    (tmp_path / "test_sound.py").write_text("def test_one(): pass\n")
    assert run(tmp_path).returncode == 0
    assert run(tmp_path, "--no-skips").returncode == 1 + (name == "test_module.py")  # 2: collection failed


def test_a_notice_is_shown_at_the_end_and_fails_nothing(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("def test_one(record_property): record_property('notice', 'a long file')\n")
    done = run(tmp_path, "-q")
    assert done.returncode == 0
    assert b" notices ==" in done.stdout and b"\na long file\n" in done.stdout
