"""``python -m tests.hostile.fuzz --count N --seed S``: mutated requests by the thousand against a live proxy (CTL-12).

What must hold, whatever the bytes: the process lives and its standard error is free of tracebacks; every connection
gets an end once the client has sent its FIN; the app sees only canonical requests; no task and no descriptor is left.
An input that breaks one of these is printed as a bytes literal, to become a case.
"""

from __future__ import annotations

import argparse
import itertools
import random
import re
import socket
import sys
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field

from tests.hostile.coverage import ALL_CASES
from tests.hostile.mutate import input_of, seeds_from
from tests.hostile.rig import Rig
from tests.support.raw import BadReply, parse_replies
from tests.support.upstream import Connection, wait_until

# First lines that get HTTP's verdict on a port of any protocol but tcp: those that end in HTTP/ and something, and a
# method in front of a path, an asterisk or an http URL. Written apart from what judges them.
_BLANK = rb"[ \t\x0b\x0c\r\x1c-\x1f\x85\xa0]"
_METHODS = b"GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH".split()
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def is_http(raw: bytes) -> bool:
    """Whether the first line of these bytes gets HTTP's verdict."""
    line, end, _ = raw.lstrip(b"\n \t\x0b\x0c\r\x1c\x1d\x1e\x1f\x85\xa0").partition(b"\n")
    words = re.split(_BLANK + b"+", line.rstrip(b" \t\x0b\x0c\r\x1c\x1d\x1e\x1f\x85\xa0"))
    if len(words) > 1 and words[0] in _METHODS and re.match(rb"/|\*|(?i:https?)://", words[1]):
        return True
    return bool(end) and len(words) > 1 and words[-1][:5].upper() == b"HTTP/" and bool(_TOKEN.fullmatch(words[0]))


@dataclass
class Report:
    """What a run saw. ``failures``: one text each, with the input as a literal."""

    count: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    forwarded: int = 0


class Fuzzer:
    """Plays inputs ``start`` to ``start + count`` over ``width`` connections at a time."""

    def __init__(self, rig: Rig, seed: int, *, width: int = 32, bound: float = 20.0) -> None:
        self.rig = rig
        self.seed = seed
        self.report = Report()
        self._width = width
        self._bound = bound
        places = [case.send for case in ALL_CASES if case.port == "inbound" and case.rig == "main"]
        self._seeds = seeds_from(places)
        self._lock = threading.Lock()
        self._recent: deque[int] = deque(maxlen=width * 4)
        self._under_way: set[int] = set()  # a slow one may be older than all that are recent
        self._suspects: list[tuple[str, bytes, list[int]]] = []

    def run(self, count: int) -> Report:
        """Play them; the report's failures are empty where all is well."""
        sidecar = self.rig.sidecar
        self._play(b"\x00")  # whatever is started when it is first needed, is now
        self.rig.sentinel()
        before = sidecar.memory()
        self.rig.upstream.on_violation = self._suspect
        numbers = itertools.count()
        threads = [threading.Thread(target=self._work, args=(numbers, count), daemon=True) for _ in range(self._width)]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            threads[0].join(0.2)
            self.report.forwarded += len(self.rig.upstream.take().requests)
            for thread in threads:
                thread.join(0.01)
        self._judge_suspects()
        self.rig.sentinel()
        self.rig.upstream.take()
        self._check_leaks(before)
        sidecar.check_errors()
        return self.report

    def _work(self, numbers: itertools.count[int], count: int) -> None:
        while (index := next(numbers)) < count and len(self.report.failures) < 20:
            data = input_of(self.seed, index, self._seeds)
            with self._lock:
                self._recent.append(index)
                self._under_way.add(index)
                self.report.count += 1
            try:
                wrong = self._play(data)
            except OSError as error:
                wrong = f"could not connect: {error!r}"
            with self._lock:
                self._under_way.discard(index)
            if wrong is not None:
                self._fail(wrong, index, data)

    def _play(self, data: bytes) -> str | None:
        """Send, FIN, read to the end; what is wrong, or None."""
        with socket.create_connection(("127.0.0.1", self.rig.sidecar.inbound), timeout=self._bound) as sock:
            raw = bytearray()
            try:
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # refused before we were done: the reply is there to be read
            try:
                while piece := sock.recv(65536):
                    raw += piece
            except TimeoutError:
                return "a hang: no end within the bound"
            except ConnectionError:
                pass
        if not raw:
            self.report.statuses["closed"] += 1
            return None
        blind = b"HEAD" in data or b"CONNECT" in data  # which of the replies has a body, only the proxy knows
        try:
            replies = parse_replies(raw, [b"GET"] * 64, ended=True)
        except BadReply as error:
            return None if blind else f"not a reply: {error}"
        for reply in replies:
            self.report.statuses[str(reply.status)] += 1
            if reply.status == 500:
                return "500"
        return None

    def _suspect(self, connection: Connection) -> None:
        with self._lock:
            self._suspects.append(
                (connection.violation or "", bytes(connection.raw), [*self._under_way, *self._recent])
            )

    def _judge_suspects(self) -> None:
        """Play the inputs of that moment again, one by one, to name the one that did it."""
        self.rig.upstream.on_violation = None
        for violation, raw, recent in self._suspects:
            if len(self.report.failures) >= 20:
                return
            if self._opaque(raw):
                if not any(raw == input_of(self.seed, i, self._seeds)[: len(raw)] for i in recent):
                    self._fail(f"opaque bytes that no client sent: {raw[:300]!r}", -1, b"")
                continue
            for index in recent:
                data = input_of(self.seed, index, self._seeds)
                self.rig.upstream.take()
                self._play(data)
                self.rig.sentinel()
                if any(not self._opaque(stray) for stray in self.rig.upstream.take().strays):
                    self._fail(f"the app saw {violation}: {raw[-300:]!r}", index, data)
                    break
            else:
                self._fail(f"the app saw {violation}: {raw[-300:]!r}; not seen again alone", -1, b"")

    def _opaque(self, raw: bytes) -> bool:
        """Whether a connection with these bytes may have been relayed as it was."""
        return self.rig.protocol == "auto" and not is_http(raw)

    def _check_leaks(self, before: dict[str, object]) -> None:
        def back() -> bool:
            now = self.rig.sidecar.memory()
            pooled = len(self.rig.upstream.live())
            return (
                int(str(now["tasks"])) <= int(str(before["tasks"]))
                and int(str(now["descriptors"])) <= int(str(before["descriptors"])) + pooled
            )

        try:
            wait_until(back, "tasks and descriptors are as before", 15.0)
        except AssertionError:
            self._fail(f"a leak: {before} before, {self.rig.sidecar.memory()} after", -1, b"")

    def _fail(self, what: str, index: int, data: bytes) -> None:
        with self._lock:
            self.report.failures.append(f"seed {self.seed} number {index}: {what}\n    {data!r}")


def main() -> int:
    """The command; 0 where nothing failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--protocol", choices=("auto", "http"), default="http")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}", flush=True)
    began = time.monotonic()
    with Rig("main", options.protocol, "--pool-idle-timeout", "2s", access_log="off") as rig:
        report = Fuzzer(rig, seed).run(options.count)
    spent = time.monotonic() - began
    print(f"{report.count} inputs in {spent:.0f} s, {report.forwarded} requests forwarded, {dict(report.statuses)}")
    for failure in report.failures:
        print(failure)
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
