"""The sidecar under a profiler: ``python -m bench.profiled exact|sampled OUT MODULE WORDS...``.

Started by `bench.profile` in the place of ``python -m MODULE``, whose ``main`` it runs (`sidecar.cli`, or
`bench.with_identity`); writes what was seen to OUT when the sidecar ends.

`exact` is cProfile: every call is counted, and each pays for it, so small functions look dearer than they are.
`sampled` looks at the stack after every few milliseconds of CPU time (ITIMER_PROF, so as often as the kernel ticks):
it disturbs little, and tells lines; what a C function takes is its caller's.
"""

from __future__ import annotations

import cProfile
import importlib
import json
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

_EVERY = 0.001

Main = Callable[[Sequence[str]], int]


def exact(out: Path, main: Main, words: Sequence[str]) -> int:
    """Run the sidecar under cProfile; OUT is what `pstats` reads."""
    profile = cProfile.Profile()
    code = profile.runcall(main, words)
    profile.dump_stats(out)
    return code


def sampled(out: Path, main: Main, words: Sequence[str]) -> int:
    """Run the sidecar and sample its main thread; OUT is JSON: how often each line, and each function, was seen."""
    lines: Counter[str] = Counter()
    functions: Counter[str] = Counter()

    def look(number: int, frame: FrameType | None) -> None:
        if frame is not None:
            lines[f"{_function(frame)}:{frame.f_lineno}"] += 1
        seen = set()
        while frame is not None:
            seen.add(_function(frame))
            frame = frame.f_back
        functions.update(seen)

    signal.signal(signal.SIGPROF, look)
    signal.setitimer(signal.ITIMER_PROF, _EVERY, _EVERY)
    code = main(words)
    signal.setitimer(signal.ITIMER_PROF, 0.0)
    out.write_text(json.dumps({"lines": lines, "functions": functions}))
    return code


def _function(frame: FrameType) -> str:
    return f"{'/'.join(frame.f_code.co_filename.rsplit('/', 2)[-2:])} {frame.f_code.co_qualname}"


PROFILERS: dict[str, Callable[[Path, Main, Sequence[str]], int]] = {"exact": exact, "sampled": sampled}

if __name__ == "__main__":
    _, profiler, out, module, *words = sys.argv
    sys.exit(PROFILERS[profiler](Path(out), importlib.import_module(module).main, words))
