"""The last records, for ``/requests`` and ``/explain``, and live ones for whoever taps.

Called once per record on the hot path. Kept as it is, a record is some fifteen objects that are touched again a
thousand requests later, when the processor's caches have long forgotten them: that cost a good two microseconds per
request. So one that ended well is kept as one run of bytes, and made into a record again when somebody asks; one that
failed is kept as it is. Values that a peer made long are cut here, since a thousand of them stay.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Final

import msgspec
import trio

from sidecar.telemetry.record import SERVER_ERROR, ConnectionInfo, Record

KEPT: Final = 1000
KEPT_FAILED: Final = 100  # of their own: under load the last thousand are the last second, and failures are few
LONGEST: Final = 1024  # bytes of any one value that a peer chose
TAP_BUFFER: Final = 256  # records that a tap may lag behind before it is dropped
_CHOSEN_BY_PEERS: Final = ("path", "sent_target", "user_agent", "forwarded_for", "authority", "method")
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(list).decode
_ORIGIN: Final = Record.__struct_fields__.index("origin")
_STRIPPED: Final = Record.__struct_fields__.index("stripped")
_LIMITS: Final = Record.__struct_fields__.index("limits")
_JUDGED: Final = Record.__struct_fields__.index("judged")
_TRIES: Final = Record.__struct_fields__.index("tries")


class RecordSummary(msgspec.Struct, array_like=True, gc=False):
    """What a summary wants of a record that ended well: its first fields, read without the rest, for a third of the
    cost. A page that is open looks at a thousand of them each second."""

    direction: str
    protocol: str
    client: str
    start: float
    began: float
    duration: float
    method: bytes
    status: int
    upstream: str


_glance = msgspec.msgpack.Decoder(RecordSummary).decode


class History:
    """The last KEPT records, and the last KEPT_FAILED of those that failed."""

    __slots__ = ("_failed", "_kept")

    def __init__(self) -> None:
        self._kept: deque[bytes | Record] = deque(maxlen=KEPT)
        self._failed: deque[Record] = deque(maxlen=KEPT_FAILED)

    def add(self, record: Record) -> None:
        """Keeps a finished record."""
        if record.reason is None and record.status < SERVER_ERROR and not record.tries:
            packed = _pack(record)
            if len(packed) > LONGEST:
                _cut(record)
                packed = _pack(record)
            self._kept.append(packed)
        else:
            _cut(record)
            self._kept.append(record)
            if record.reason is not None or record.status >= SERVER_ERROR:
                self._failed.append(record)

    def newest_first(self) -> list[Record]:
        """The last records, failed or not."""
        return [_record(each) for each in reversed(self._kept)]

    def glances(self) -> list[Record | RecordSummary]:
        """As ``newest_first``, at a glance; those that failed, or took more than one try, are there whole."""
        return [each if isinstance(each, Record) else _glance(each) for each in reversed(self._kept)]

    def failed_newest_first(self) -> list[Record]:
        """The last of those that failed."""
        return list(reversed(self._failed))

    def find(self, request_id: str) -> Record | None:
        """The newest record with this id."""
        wanted = request_id.encode("utf-8", "replace")
        kept: Iterable[bytes | Record] = chain(reversed(self._kept), reversed(self._failed))
        for each in kept:
            if isinstance(each, Record):
                if each.request_id == wanted:
                    return each
            elif wanted in each:
                record = _record(each)
                if record.request_id == wanted:
                    return record
        return None


def _record(kept: bytes | Record) -> Record:
    if isinstance(kept, Record):
        return kept
    values = _unpack(kept)
    if values[_ORIGIN] is not None:
        values[_ORIGIN] = info = ConnectionInfo(*values[_ORIGIN])
        info.place = (info.place[0], info.place[1])
    values[_JUDGED] = tuple([tuple(each) for each in values[_JUDGED]])
    values[_LIMITS] = tuple([tuple(each) for each in values[_LIMITS]])
    values[_STRIPPED], values[_TRIES] = tuple(values[_STRIPPED]), ()
    return Record(*values)


def _cut(record: Record) -> None:
    for name in _CHOSEN_BY_PEERS:
        value = getattr(record, name)
        if len(value) > LONGEST:
            setattr(record, name, value[:LONGEST] + b"...")


class Tap:
    """One listener's live records that ``wanted`` says yes to. ``dropped``: it was too slow, and gets no more."""

    __slots__ = ("_arrived", "_records", "dropped", "wanted")

    def __init__(self, wanted: Callable[[Record], bool]) -> None:
        self.wanted = wanted
        self.dropped = False
        self._records: deque[Record] = deque()
        self._arrived = trio.Event()

    def offer(self, record: Record) -> None:
        """Called for each record; never waits."""
        if self.wanted(record):
            if len(self._records) >= TAP_BUFFER:
                self.dropped = True
            else:
                self._records.append(record)
            self._arrived.set()

    async def next_batch(self) -> list[Record]:
        """Waits for records; returns those that are there. Empty: it was dropped."""
        if not self._records and not self.dropped:
            self._arrived = trio.Event()
            await self._arrived.wait()
        records = list(self._records)
        self._records.clear()
        return records


class Taps:
    """Who listens now: ``listeners``, which the hot path looks at once per record. ``dropped`` were too slow."""

    __slots__ = ("dropped", "listeners")

    def __init__(self) -> None:
        self.listeners: list[Tap] = []
        self.dropped = 0

    def __len__(self) -> int:
        return len(self.listeners)

    def open(self, wanted: Callable[[Record], bool]) -> Tap:
        """A new listener; it ends with ``close``."""
        tap = Tap(wanted)
        self.listeners.append(tap)
        return tap

    def close(self, tap: Tap) -> None:
        """No more for this one."""
        if tap in self.listeners:
            self.listeners.remove(tap)

    def offer(self, record: Record) -> None:
        """A record for all of them; those that lag too far behind are let go."""
        for tap in self.listeners[:]:
            tap.offer(record)
            if tap.dropped:
                self.listeners.remove(tap)
                self.dropped += 1
