"""The sidecar under a profiler: ``python -m bench.profiled exact|sampled|counted OUT MODULE WORDS...``.

Started by `bench.profile` and `bench.opcodes` in the place of ``python -m MODULE``, whose ``main`` it runs
(`sidecar.cli`, or `bench.with_identity`); writes what was seen to OUT when the sidecar ends.

`exact` is cProfile: every call is counted, and each pays for it, so small functions look dearer than they are.
`sampled` looks at the stack after every few milliseconds of CPU time (ITIMER_PROF, so as often as the kernel ticks):
it disturbs little, and tells lines; what a C function takes is its caller's.

`counted` counts the instructions of Python's own machine in the sidecar's modules: the same on a busy machine and an
idle one, but blind to what C code takes. It begins at the first SIGUSR1; at each it writes to OUT, and counts anew.
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
from types import CodeType, FrameType
from typing import Any

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


def counted(out: Path, main: Main, words: Sequence[str]) -> int:
    """Run the sidecar and count its instructions; OUT is JSON: how many there were of each function."""
    seen: Counter[CodeType] = Counter()

    def count(frame: FrameType, event: str, given: object) -> Callable[..., Any]:
        if event == "opcode":
            seen[frame.f_code] += 1
        return count

    def begin(frame: FrameType, event: str, given: object) -> Callable[..., Any] | None:
        if "/sidecar/" not in frame.f_code.co_filename or _is_of_sweeper(frame):
            return None
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        return count

    def tell(number: int, frame: FrameType | None) -> None:
        sys.settrace(begin)
        found: Counter[str] = Counter()
        for code, times in seen.items():
            found[f"{code.co_filename.rpartition('/sidecar/')[2]} {code.co_qualname}"] += times
        seen.clear()
        new = out.with_suffix(".new")
        new.write_text(json.dumps(found))
        new.rename(out)

    signal.signal(signal.SIGUSR1, tell)
    return main(words)


def _is_of_sweeper(frame: FrameType | None) -> bool:
    """Whether it is part of what is done several times a second, whether or not there are requests."""
    while frame is not None:
        if frame.f_code.co_qualname == "Sweeper.run":
            return True
        frame = frame.f_back
    return False


def _function(frame: FrameType) -> str:
    return f"{'/'.join(frame.f_code.co_filename.rsplit('/', 2)[-2:])} {frame.f_code.co_qualname}"


PROFILERS: dict[str, Callable[[Path, Main, Sequence[str]], int]] = {
    "exact": exact,
    "sampled": sampled,
    "counted": counted,
}

if __name__ == "__main__":
    _, profiler, out, module, *words = sys.argv
    sys.exit(PROFILERS[profiler](Path(out), importlib.import_module(module).main, words))
