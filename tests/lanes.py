"""``python -m tests.lanes``: every test, in two lanes side by side, and at the end those that must be alone.

Most of the time the tests wait: for a process to start, a lease to end, a drain. Two lanes wait at once. Each is a
pytest of its own, with its own fixtures, its own network namespaces and its own cache; what the first prints is shown
as it comes, and what the second prints when the first has ended. A test that is marked ``alone`` measures CPU or
delays, which a neighbour would spoil, and runs when both lanes have ended.

``make test`` and ``.ci/run`` call this. Arguments are pytest's, and go to each lane. Ten thousand tests with real
processes on a machine that is shared have accidents: with ``--again N`` up to N tests that failed are run once more,
by themselves, and both outcomes are shown. More than a handful is no accident. The exit code is 0 where every test
passed, there at the latest.

``make quick`` calls it with ``--quick``: the two lanes hold what a change breaks most often then, and no test that must
be alone is run.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_CACHES = ROOT / ".pytest_cache" / "lanes"
_FIRST = ("tests/browser", "tests/control/ctl", "tests/mesh", "tests/netns", "tests/peer")
_TESTS_FAILED = 1  # pytest's exit code; anything above is no verdict on the tests, and below it was killed
# A pytest that is interrupted may end with an exception of what it took down, and Python's code for that is 1 as well.
_PYTEST = """
import sys, traceback, pytest
try:
    sys.exit(pytest.main())
except Exception:
    traceback.print_exc()
    sys.exit(pytest.ExitCode.INTERNAL_ERROR)
"""


@dataclass(frozen=True, slots=True)
class Lane:
    """One pytest: ``arguments`` say which tests are its own, ``cache`` is where it keeps which of them failed."""

    cache: Path
    arguments: tuple[str, ...]

    def command(self, more: Sequence[str]) -> list[str]:
        """Its command line; what failed in an earlier run is forgotten."""
        shutil.rmtree(self.cache, ignore_errors=True)
        return [sys.executable, "-c", _PYTEST, "-o", f"cache_dir={self.cache}", *self.arguments, *more]

    def failed(self) -> list[str]:
        """The tests that failed, by pytest's names for them."""
        kept = self.cache / "v" / "cache" / "lastfailed"
        return list(json.loads(kept.read_text())) if kept.exists() else []


# What the first lane does not name is the second's: so no directory is forgotten.
LANES = (
    Lane(_CACHES / "first", ("-m", "not alone", *_FIRST)),
    Lane(_CACHES / "second", ("-m", "not alone", *(f"--ignore={place}" for place in _FIRST))),
)
ALONE = Lane(_CACHES / "alone", ("-m", "alone"))


# What the proxy does with a request and with bytes, by real sockets, and the same between two sidecars of a mesh.
_SLICE = (
    "tests/mesh/test_connect.py",
    "tests/mesh/test_http_bodies.py",
    "tests/mesh/test_http_interim.py",
    "tests/mesh/test_seen.py",
    "tests/proxy/test_early_answers.py",
    "tests/proxy/test_exchange.py",
    "tests/proxy/test_exchange_ends.py",
    "tests/proxy/test_forwarding_headers.py",
    "tests/proxy/test_http1_bodies.py",
    "tests/proxy/test_http1_connections.py",
    "tests/proxy/test_identity_over_tls.py",
    "tests/proxy/test_listener.py",
    "tests/proxy/test_tcp_proxy.py",
    "tests/proxy/test_outbound.py",
    "tests/proxy/test_connection_pool.py",
    "tests/proxy/test_relay.py",
    "tests/proxy/test_secured_connection.py",
    "tests/proxy/test_upgrade.py",
    "tests/proxy/test_wire_and_app.py",
)
QUICK = (
    Lane(_CACHES / "quick-first", ("-m", "not alone", "tests/unit")),
    Lane(_CACHES / "quick-second", ("-m", "not alone", "tests/wire", *_SLICE)),
)


def side_by_side(first: Lane, second: Lane, more: Sequence[str] = ()) -> list[int]:
    """Both at once; their exit codes."""
    with tempfile.TemporaryFile() as kept:
        with (
            subprocess.Popen(second.command(more), cwd=ROOT, stdout=kept, stderr=subprocess.STDOUT) as other,
            subprocess.Popen(first.command(more), cwd=ROOT) as shown,
        ):
            codes = [shown.wait(), other.wait()]
        kept.seek(0)
        shutil.copyfileobj(kept, sys.stdout.buffer)
        sys.stdout.flush()
    return codes


def run(lanes: tuple[Lane, Lane], alone: Lane | None, more: Sequence[str] = (), again: int = 0) -> int:
    """Run the lanes, then what is alone, then up to ``again`` failed tests once more; return 0 if all is well, or the
    worst of pytest's codes."""
    codes = side_by_side(*lanes, more)
    if alone is not None and _is_verdict(codes):
        codes.append(subprocess.call(alone.command(more), cwd=ROOT))
    if not any(codes):
        return 0
    failed = [name for lane in (*lanes, alone) if lane is not None for name in lane.failed()]
    print(f"failed: {len(failed)}", *failed, sep="\n  ", flush=True)
    if not _is_verdict(codes) or not 0 < len(failed) <= again:
        return max(codes, key=abs)
    print("once more, by themselves", flush=True)
    return subprocess.call(Lane(_CACHES / "again", tuple(failed)).command(more), cwd=ROOT)


def _is_verdict(codes: Sequence[int]) -> bool:
    """Whether every pytest came to its end: then what failed is known."""
    return all(code in (0, _TESTS_FAILED) for code in codes)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.lanes", description=__doc__, allow_abbrev=False)
    parser.add_argument("--again", type=int, default=0, metavar="N", help="so many failed tests are run once more")
    parser.add_argument("--quick", action="store_true", help="only what a change breaks most often")
    options, more = parser.parse_known_args()
    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C is for the lanes, which end what they started
    code = run(QUICK, None, more, options.again) if options.quick else run(LANES, ALONE, more, options.again)
    return 1 if code < 0 else code


if __name__ == "__main__":
    sys.exit(main())
