"""The Snapshot of this moment, and the tally of what was taken and refused. One per process.

Who calls it: a feed gives Snapshots and refusals; the data plane reads ``snapshot``, once per request, and passes it
down; ``admin`` shows the rest. Nothing waits here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from sidecar.resources.snapshot import NOTHING, Snapshot, Source


class Refusal(msgspec.Struct, frozen=True):
    """What was not taken: when (seconds since the epoch), and all that is wrong with it, a line each."""

    at: float
    problems: tuple[str, ...]


class SnapshotHolder:
    """``taken_at`` is when the Snapshot came, in seconds since the epoch; 0 before the first. ``refusal`` is the last
    one, and None again as soon as something good has come after it."""

    __slots__ = ("_followers", "accepted", "refusal", "refused", "snapshot", "taken_at")

    def __init__(self, snapshot: Snapshot = NOTHING) -> None:
        self.snapshot = snapshot
        self.taken_at = 0.0
        self.accepted = 0
        self.refused = 0
        self.refusal: Refusal | None = None
        self._followers: list[Callable[[Snapshot], None]] = []

    def follow(self, follower: Callable[[Snapshot], None]) -> None:
        """From now on called with each Snapshot that is taken, after ``snapshot`` is that one. It must not wait."""
        self._followers.append(follower)

    def take(self, snapshot: Snapshot, now: float) -> None:
        """From now on this one. Requests under way go on with theirs."""
        self.snapshot = snapshot
        self.taken_at = now
        self.accepted += 1
        self.refusal = None
        for follower in self._followers:
            follower(snapshot)

    def confirm(self, source: Source, now: float) -> None:
        """Whoever is that says that the one in force is the newest: it counts as theirs from now on."""
        self.snapshot = msgspec.structs.replace(self.snapshot, source=source)
        self.taken_at = now

    def refuse(self, problems: Sequence[str], now: float) -> None:
        """What came is not taken: the one before it stays."""
        self.refused += 1
        self.refusal = Refusal(now, tuple(problems))
