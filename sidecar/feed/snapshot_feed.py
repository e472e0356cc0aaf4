"""Snapshots from the control plane: waited for, judged, taken whole or refused whole, and told what became of them.

Who calls it: ``mesh_runtime``, where there is ``--control`` and no file says what to obey. Two tasks: one waits at
``/v1/snapshot``, one tells ``/v1/snapshot/status`` what was judged last.

Theory of operation. An answer is for us, of a version that is not older than what was judged before in its epoch, and
of a size that one copy of does not hold the loop; then it is compiled in slices (``feed.time_slicer``) while requests
go on by the Snapshot before. What has a problem changes nothing. ``version`` in the next poll is what was *judged*, so
what was refused comes again only when it has changed. Another epoch comes from the control plane alone, never from a
file.

A control plane that sends without end costs little: one Snapshot is in memory at a time, and between two there is half
a second, or nineteen times what the last one cost if that is more.

With ``--state-dir`` the last good one is kept as it came, and a restart begins with it, whether or not anybody answers.
"""

from __future__ import annotations

import logging
from time import thread_time
from typing import Final

import msgspec
import trio

from certs.errors import IdentityError
from sidecar import __version__
from sidecar.feed import control_responses
from sidecar.feed.control_responses import Malformed, Version
from sidecar.feed.leaving import Leaving, parts_of
from sidecar.feed.policy_rules import with_rules
from sidecar.feed.retrying_client import RetryingClient
from sidecar.feed.snapshot_holder import SnapshotHolder
from sidecar.feed.state_dir import MOST, StateDir, Unusable
from sidecar.feed.time_slicer import REST, TimeSlicer, at_once, drive
from sidecar.resources.incremental_compile import Compiled, compile_slices
from sidecar.resources.snapshot import SCHEMA, Node, Snapshot

# MOST, of an answer: a hundred thousand endpoints. It is copied once when it has come, which takes some milliseconds
# for so many bytes, and it is all that a control plane can have us keep.
TOLD: Final = 20  # problems, to the control plane and in the log
_log = logging.getLogger(__name__)


class _Head(msgspec.Struct, frozen=True):
    """What has to be known of a Snapshot before it is compiled."""

    version: str
    proxy: str


class _Status(msgspec.Struct, frozen=True):
    """Of POST /v1/snapshot/status. ``held`` is empty where nothing was taken yet."""

    version: str
    accepted: bool
    problems: tuple[str, ...]
    held: str
    software: str = __version__


class SnapshotFeed:
    """For ``current``; ``instance`` tells this process from others of its identity."""

    def __init__(
        self,
        caller: RetryingClient,
        current: SnapshotHolder,
        me: Node,
        instance: str,
        directory: StateDir | None = None,
    ) -> None:
        self.judged: Version | None = None
        self.slices = TimeSlicer()
        self._leaving = Leaving(self.slices)
        self._caller = caller
        self._current = current
        self._me = me
        self._instance = instance
        self._directory = directory
        self._status: _Status | None = None
        self._untold = trio.Event()
        self._lost = False  # the control plane may have forgotten us
        self._refusals = 0  # in a row

    async def run(self) -> None:
        """Until it is cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._follow)
            nursery.start_soon(self._leaving.run)
            nursery.start_soon(self._caller.persist, "status", self._tell)

    async def _follow(self) -> None:
        await self._caller.persist("snapshot", self._poll, failed=self._lose)

    def _lose(self, _: str) -> None:
        self._lost = True

    # -- from the control plane --------------------------------------------------------------------------------------

    async def _poll(self) -> None:
        await self._caller.wait_certificate()
        # After a failure at once, so that a control plane that forgot us is told again before a long poll has ended.
        began, wait = self._caller.steady(), 0.0 if self._lost else self._caller.patience()
        self.slices.begin()
        target = f"/v1/snapshot?instance={self._instance}&schema={SCHEMA}&wait={wait:.1f}s"
        if self.judged is not None:
            target += "&version={}.{}".format(*self.judged)
        answer, _ = await self._caller.ask("GET", target, most=MOST, wait=wait)
        if answer.status == 200:
            await self._judge(answer.body, answer.etag)
        else:
            self._confirm()
        if self._lost:
            self._lost = False
            self._untold.set()
        await self._caller.pace(began)
        await trio.sleep(REST * self.slices.last)

    async def _judge(self, body: bytes, etag: str) -> None:
        head = self._head(body, etag)
        version = control_responses.version(head.version)
        if control_responses.older(version, self.judged):
            raise Malformed("older_version", "a Snapshot that is older than the one that was judged last")
        if version == self.judged:
            return
        await trio.lowlevel.checkpoint()  # the head took as long as a slice may, and the envelope will
        compiled = await self._compile(head, body)
        self.judged = version
        if compiled.snapshot is None:
            self._refuse(head.version, compiled.problems)
            return
        self._take(compiled.snapshot)
        self._say(_Status(head.version, True, (), head.version))
        await self._keep(head, body)

    def _head(self, body: bytes, etag: str) -> _Head:
        """Raises Malformed where nobody could say which version that is."""
        began = thread_time()
        try:
            return msgspec.json.decode(body, type=_Head)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return _Head(self._told(etag.strip('"')), "")
        finally:
            self.slices.note(thread_time() - began)

    def _told(self, version: str) -> str:
        try:
            control_responses.version(version)
        except Malformed:
            self._current.refuse(("it is no Snapshot, and has no version",), self._caller.clock())
            raise
        return version

    async def _compile(self, head: _Head, body: bytes) -> Compiled:
        ours = str(self._caller.contact.ours())
        if head.proxy and head.proxy != ours:
            return Compiled(None, (f"it is for another workload than {ours}",))
        serving = self._current.snapshot.source != "none"
        compiled = await drive(with_rules(compile_slices(body, self._me, "control")), self.slices, gently=serving)
        if compiled.snapshot is not None and head.proxy != ours:
            return Compiled(None, ("it does not say for which workload it is",))
        return compiled

    def _take(self, snapshot: Snapshot) -> None:
        began = thread_time()
        before = self._current.snapshot
        self._leaving.hold(before, parts_of(before))
        self._current.take(snapshot, self._caller.clock())
        self.slices.settle()
        self.slices.note(thread_time() - began)
        self.slices.applied = self.slices.last
        self._refusals = 0
        _log.info(
            "snapshot: version %s: %d services; %.0f ms of CPU",
            snapshot.version, len(snapshot.services), self.slices.last * 1e3,
        )  # fmt: skip

    def _refuse(self, version: str, problems: tuple[str, ...]) -> None:
        self._current.refuse(problems, self._caller.clock())
        self._refusals += 1
        held = self._held()
        if not self._refusals & (self._refusals - 1):  # the 1st, 2nd, 4th, ... in a row
            for problem in problems[:TOLD]:
                _log.error("snapshot: %s: %s", version, problem)
            _log.error(
                "snapshot: %s is refused; %s", version, f"{held} stays in force" if held else "there is none yet"
            )
        self._say(_Status(version, False, problems[:TOLD], held))

    def _held(self) -> str:
        snapshot = self._current.snapshot
        return "" if snapshot.source == "none" else str(snapshot.version)

    def _confirm(self) -> None:
        """Nothing is newer: what was kept from before is what the control plane would give."""
        if self._current.snapshot.source == "last good" and str(self._current.snapshot.version) == self._judged_text():
            self._current.confirm("control", self._caller.clock())

    def _judged_text(self) -> str:
        return "" if self.judged is None else "{}.{}".format(*self.judged)

    # -- what became of it -------------------------------------------------------------------------------------------

    def _say(self, status: _Status) -> None:
        self._status = status
        self._untold.set()

    async def _tell(self) -> None:
        await self._untold.wait()
        status = self._status
        if status is not None:
            target = f"/v1/snapshot/status?instance={self._instance}"
            await self._caller.ask("POST", target, msgspec.json.encode(status), most=MOST)
        if status is self._status:
            self._untold = trio.Event()
        await self._caller.pace(self._caller.steady())

    # -- what a restart keeps ----------------------------------------------------------------------------------------

    async def _keep(self, head: _Head, body: bytes) -> None:
        if self._directory is None:
            return
        try:
            await trio.to_thread.run_sync(self._directory.store, head.version, head.proxy, body)
        except OSError as error:
            detail = f"--state-dir: the last good Snapshot can't be kept ({error.strerror}); all goes on without"
            self._caller.failed("state_dir", "not_written", detail)

    def take_kept(self) -> None:
        """Begins with what was kept, where that is good and ours; before there is a loop."""
        try:
            kept = self._directory.load() if self._directory is not None else None
            if kept is None:
                return
            head, body = kept
            self._caller.contact.learn()
            ours = self._caller.contact.ours()
            if head.proxy != str(ours):
                raise Unusable(f"it is for another workload than {ours}")
            version = control_responses.version(head.version)
            compiled = at_once(with_rules(compile_slices(body, self._me, "last good")))
            if compiled.snapshot is None:
                raise Unusable(compiled.problems[0])
        except (Unusable, IdentityError, Malformed) as refused:
            _log.warning("--state-dir: what it keeps is not used: %s", refused)
            return
        self.judged = version
        self._current.take(compiled.snapshot, self._caller.clock())
        self._status = _Status(head.version, True, (), head.version)
        self._untold.set()
        _log.info("snapshot: version %s, kept from before", head.version)
