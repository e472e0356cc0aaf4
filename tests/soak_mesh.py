"""Long runs of a mesh that is joined: nothing fails while certificates and roots change, and nothing is in the clear.

    python -m tests.soak mesh|outage

``mesh``: 16 connections of load between two sidecars whose certificates last 20 s, for 3 minutes; the root is replaced
twice meanwhile. No request fails, and afterwards memory, tasks and descriptors are as at first. Then the caller is
revoked: what is open is cut within 5 s, and what is new is refused.

``outage``: certificates last 60 s, and the authority is killed under load. Traffic goes on until a certificate ends,
and then there is none; a sidecar that is started again meanwhile has an identity with ``--identity-dir`` alone. The
authority comes back, and all is well within 20 s. ``tests/mesh/test_soak.py`` runs both in short.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.soak import App, Failed, at_rest, connect, send_one, take_one
from tests.support.control_process import spiffe_id
from tests.support.joined import WEB, Joined
from tests.support.process import ROOT, SidecarProcess
from tests.support.upstream import wait_until

LOAD = 16
THINKS = 0.02  # seconds between two requests of a connection
RSS_GROWTH = 3_000_000
CALLS = 3  # to the control plane, at a time: each is a task and a descriptor more, now and then
CUT_SECONDS = 5.0
WELL_SECONDS = 20.0
ROTATION_SECONDS = 60.0  # how long a rotation would wait for who does not confirm it


class Load:
    """LOAD clients of a caller's sidecar that call ``web``, each on a connection that it keeps as long as it may."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._over = threading.Event()
        self.done = [0] * LOAD
        self.failures: list[tuple[float, str]] = []  # (monotonic, what)
        self.last_good = 0.0  # monotonic
        self._threads = [threading.Thread(target=self._run, args=(index,), daemon=True) for index in range(LOAD)]
        for thread in self._threads:
            thread.start()

    @property
    def total(self) -> int:
        """Requests that got what they should."""
        return sum(self.done)

    def check(self) -> None:
        """Nothing has failed."""
        assert not self.failures, f"{len(self.failures)} failed, after {self.total}: {self.failures[:5]}"

    def run(self, seconds: float) -> None:
        """So much longer, and not a failure."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            time.sleep(min(0.2, seconds))
            self.check()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), "a client waits for ever"

    def _run(self, index: int) -> None:
        number = index
        while not self._over.is_set():
            try:
                with connect(self._port) as sock:
                    again = True
                    while again and not self._over.wait(THINKS):
                        number += 1
                        send_one(sock, number, base=b"http://" + WEB.encode(), host=WEB.encode())
                        again = take_one(sock, number)
                        self.done[index] += 1
                        self.last_good = time.monotonic()
            except (OSError, Failed) as error:
                self.failures.append((time.monotonic(), f"client {index}: {error!r}"))


@contextlib.contextmanager
def loaded(sidecar: SidecarProcess) -> Iterator[Load]:
    """Load, until the end of the block."""
    load = Load(sidecar.outbound)
    try:
        yield load
    finally:
        load.stop()


# -- mesh --------------------------------------------------------------------------------------------------------------


def mesh(leaf_ttl: float = 20.0, seconds: float = 180.0, rotations: int = 2, warm_up: float = 30.0) -> str:
    """Runs it; returns what was measured. Raises AssertionError."""
    with App() as app, Joined(app.port, leaf_ttl, {"caller": []}) as joined:
        with loaded(joined.sidecars["caller"]) as load:  # every path once, a renewal among them
            load.run(warm_up)
        before = _rest(joined)
        with loaded(joined.sidecars["caller"]) as load:
            ends = time.monotonic() + seconds
            took = [rotate(joined, load, leaf_ttl) for _ in range(rotations)]
            load.run(max(0.0, ends - time.monotonic()))
        load.check()
        after = _rest(joined, before)
        for name, sidecar in joined.sidecars.items():
            complaints = [line for line in sidecar.errors if "in a row)" in line or ": cut: " in line]
            assert not complaints, f"{name}: {complaints}"
        renewals = {name: _renewals(joined, name) for name in joined.sidecars}
        text = (
            f"{load.total} requests on {LOAD} connections, none failed; renewals {renewals}; roots replaced in "
            f"{', '.join(f'{each:.1f} s' for each in took)}; {_told(before, after)}"
        )
        for name, memory in after.items():
            assert memory["rss_bytes"] - before[name]["rss_bytes"] <= RSS_GROWTH, text
        assert joined.wire.sightings == 0, f"plaintext on the wire; {text}"
        return f"{text}; {revoked(joined)}; nothing in the clear in {joined.wire.passed} bytes"


def rotate(joined: Joined, load: Load, leaf_ttl: float) -> float:
    """Replaces the root under load, to the end; returns how many seconds that took."""
    began = time.monotonic()
    joined.control.ask("POST", "/v1/ca:rotate", {"voidTokens": True, "deadline": f"{ROTATION_SECONDS:g}s"})
    joined.control.wait_phases(
        ["issuing", "retiring"], deadline=ROTATION_SECONDS + 20
    )  # all have confirmed the new one
    joined.control.wait_phases(["issuing"], deadline=leaf_ttl + 20)  # the old one is gone
    load.check()
    return time.monotonic() - began


def revoked(joined: Joined) -> str:
    """Revokes the caller under load; returns how soon what was told. Raises AssertionError."""
    with _tunnel(joined.sidecars["caller"]) as open_before, loaded(joined.sidecars["caller"]) as load:
        wait_until(lambda: min(load.done) > 5 or bool(load.failures), "a steady load")
        load.check()
        began = time.monotonic()
        joined.control.ask("POST", "/v1/revocations", {"spiffeId": spiffe_id("caller")})
        open_before.settimeout(CUT_SECONDS)
        try:
            heard = open_before.recv(1)
        except ConnectionResetError:
            heard = b""
        except TimeoutError:
            raise AssertionError(f"an open connection of a revoked peer is there {CUT_SECONDS:g} s later") from None
        cut = time.monotonic() - began
        assert heard == b"", heard
        wait_until(lambda: time.monotonic() - load.last_good > 2.0, "no request gets through any more", CUT_SECONDS + 5)
        last = load.last_good - began
        assert last <= CUT_SECONDS, f"a request of a revoked peer was served {last:.1f} s later"
    assert load.failures
    records = joined.sidecars["web"].log_records()
    told = Counter(record["response_code_details"] for record in records if record["response_code_details"])
    assert told["revoked"] and told["peer_refused"], told
    return f"a revoked peer: cut after {cut:.2f} s, last served after {last:.2f} s, recorded as {dict(told)}"


@contextlib.contextmanager
def _tunnel(sidecar: SidecarProcess) -> Iterator[socket.socket]:
    """An idle connection to the app, through both sidecars."""
    with connect(sidecar.outbound) as sock:
        sock.sendall(b"CONNECT %b:3306 HTTP/1.1\r\nHost: %b:3306\r\n\r\n" % (WEB.encode(), WEB.encode()))
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            more = sock.recv(1)
            assert more, answer
            answer += more
        assert answer.startswith(b"HTTP/1.1 200"), answer
        sock.sendall(b"\0no HTTP until here: ")
        send_one(sock, 1)
        take_one(sock, 1)
        yield sock


def _renewals(joined: Joined, name: str) -> int:
    return sum("certificate: spiffe://" in line for line in joined.sidecars[name].errors)


def _rest(joined: Joined, before: dict[str, dict[str, Any]] | None = None) -> dict[str, dict[str, Any]]:
    """What ``/memory`` of each says once it rests: no more tasks and descriptors than before."""

    def as_before(memory: dict[str, Any], name: str) -> bool:
        return before is None or all(memory[each] <= before[name][each] + CALLS for each in ("tasks", "descriptors"))

    return {
        name: at_rest(sidecar, lambda memory, name=name: as_before(memory, name))  # type: ignore[misc]
        for name, sidecar in joined.sidecars.items()
    }


def _told(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]]) -> str:
    return "; ".join(
        f"{name}: memory {(memory['rss_bytes'] - before[name]['rss_bytes']) / 1e6:+.2f} MB to "
        f"{memory['rss_bytes'] / 1e6:.1f} MB, tasks {before[name]['tasks']} -> {memory['tasks']}, "
        f"descriptors {before[name]['descriptors']} -> {memory['descriptors']}"
        for name, memory in after.items()
    )


# -- outage ------------------------------------------------------------------------------------------------------------


def outage(leaf_ttl: float = 60.0) -> str:
    """Runs it; returns what was measured. Raises AssertionError."""
    with tempfile.TemporaryDirectory(prefix="identity-", dir="/dev/shm") as tmpfs, App() as app:
        callers: dict[str, list[str]] = {"caller": [], "keeps": ["--identity-dir", tmpfs], "forgets": []}
        with Joined(app.port, leaf_ttl, callers) as joined:
            with loaded(joined.sidecars["caller"]) as load:
                wait_until(lambda: min(load.done) > 5 or bool(load.failures), "a steady load")
                joined.control.kill()
                killed = time.monotonic()
                _restarted(joined)
                wait_until(lambda: bool(load.failures), "the certificate of either end has ended", leaf_ttl + 10)
                went_on = load.last_good - killed
                assert load.failures[0][0] - killed >= leaf_ttl / 2 - 2, f"too early: {load.failures[0]}"
                closed = _closed(joined, load, leaf_ttl)
                joined.control.start()
                back = time.monotonic()
                for name in joined.sidecars:
                    joined.wait_ready(name, WELL_SECONDS)
                failed = len(load.failures)
                wait_until(lambda: load.last_good > back, "requests get through again", WELL_SECONDS)
                well = time.monotonic() - back
                assert well <= WELL_SECONDS
            for name in callers:
                _asks(joined.sidecars[name])
            _off_tmpfs(joined)
            assert joined.wire.sightings == 0, "plaintext on the wire"
            _seen_in_the_clear(joined)
            return (
                f"{load.total} requests; with the authority gone they went on for {went_on:.1f} s, and then {closed}; "
                f"all was well {well:.1f} s after it was back ({failed} had failed)"
            )


def _restarted(joined: Joined) -> None:
    """Sidecars that are started again without an authority: one has kept its identity, one has none."""
    joined.restart("forgets", "keeps")
    assert joined.ready("keeps")[0] == 200, joined.ready("keeps")
    _asks(joined.sidecars["keeps"])
    status, words = joined.ready("forgets")
    assert status == 503 and "no certificate" in words, (status, words)
    with connect(joined.sidecars["forgets"].outbound) as sock:
        send_one(sock, 1, base=b"http://" + WEB.encode(), host=WEB.encode())
        answer = sock.recv(65536)
    assert answer.startswith(b"HTTP/1.1 503 "), answer


def _closed(joined: Joined, load: Load, leaf_ttl: float) -> str:
    """All certificates have ended: nothing gets through, and everyone says why. Returns that in words."""
    for name in joined.sidecars:
        wait_until(lambda name=name: joined.ready(name)[0] == 503, f"{name} is not ready", leaf_ttl + 5)  # type: ignore[misc]
        assert "no certificate" in joined.ready(name)[1], joined.ready(name)
    # A client may hold an answer that came in time, and not have counted it yet.
    failed = len(load.failures)
    wait_until(lambda: len(_clients(load.failures[failed:])) == LOAD, "each client has failed since")
    passed, good, failed = joined.wire.passed, load.total, len(load.failures)
    wait_until(lambda: len(load.failures) > failed + 5 * LOAD, "requests are tried")
    assert load.total == good, "a request was served without a certificate"
    assert joined.wire.passed == passed, "something was sent without a certificate"
    assert "503" in load.failures[-1][1], load.failures[-1]
    joined.restart("keeps")  # what it has kept has ended as well
    assert joined.ready("keeps")[0] == 503, joined.ready("keeps")
    return "nothing passed the wire"


def _clients(failures: Sequence[tuple[float, str]]) -> set[str]:
    return {words.partition(":")[0] for _, words in failures}


def _asks(sidecar: SidecarProcess) -> None:
    with connect(sidecar.outbound) as sock:
        send_one(sock, 1, base=b"http://" + WEB.encode(), host=WEB.encode())
        take_one(sock, 1)


def _off_tmpfs(joined: Joined) -> None:
    """A key never touches a disk."""
    with tempfile.TemporaryDirectory(prefix="identity-", dir="/var/tmp") as disk:
        command = [
            sys.executable, "-m", "sidecar", "--upstream", "127.0.0.1:1", *joined.command("forgets"),
            "--identity-dir", disk,
        ]  # fmt: skip
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 2 and "tmpfs" in done.stderr, (done.returncode, done.stderr)
        assert list(Path(disk).iterdir()) == []


def _seen_in_the_clear(joined: Joined) -> None:
    """What is sent in the clear is refused, and the wire sees it: so it would have seen it before."""
    with connect(joined.wire.port) as sock:
        with contextlib.suppress(ConnectionError):
            send_one(sock, 1)
            assert sock.recv(1) == b""
    wait_until(lambda: joined.wire.sightings > 0, "the wire sees plaintext")
