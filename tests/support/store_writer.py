"""Writes to a store as fast as it can, and says what was acknowledged, until it is killed.

``python -m tests.support.store_writer FILE``: WRITERS tasks each write, in one write per turn, their number of the
turn into two entries, and an entry of that turn's own; every third turn deletes the one before it. A line
``WRITER TURN`` stands for an acknowledged write. It goes on from what is there.
"""

from __future__ import annotations

import os
import sys
import time

import trio

from control.store import Change, Store
from control.store.sqlite import open_store

WRITERS = 6


async def write(store: Store, who: int) -> None:
    held = await store.get("left", str(who))
    turn = int(held.value) if held else 0
    while True:
        turn += 1
        changes = [Change(kind, str(who), b"%d" % turn) for kind in ("left", "right")]
        changes.append(Change("turn", f"{who}/{turn}", b"x" * (turn % 7 * 1000)))
        if turn % 3 == 0:
            changes.append(Change("turn", f"{who}/{turn - 1}", None))
        await store.write(changes)
        os.write(1, b"%d %d\n" % (who, turn))


async def main() -> None:
    store = open_store(sys.argv[1], time.time())
    async with trio.open_nursery() as nursery:
        for who in range(WRITERS):
            nursery.start_soon(write, store, who)


if __name__ == "__main__":
    trio.run(main)
