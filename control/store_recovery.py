"""``sidecar-control restore FILE`` and ``sidecar-control new-epoch``: for an operator, where nobody serves the store.

Who calls it: ``control.commands``. The store's side of it is in ``control.store.database_restore``; here is what it
means for a mesh.

**What was taken back since the copy was made is good again**, since nobody knows of it any more. Where we can tell what
that might be it is made void: a single-use token that is unspent in the copy may have been used since, so none of them
survives. That a reusable one was deleted since can't be seen; ``--void-tokens`` makes all of them void, for whoever has
deleted one. Revocations, and the certificates that were issued since, are gone from our books; only another root
(``ca:rotate``) settles that before those certificates expire. All of it is said, each in a line.
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import NamedTuple

import trio

from certs import spiffe
from control.app import ACCOUNT, NAMESPACE
from control.secret_files import open_directory
from control.settings import Settings
from control.store import database_restore
from control.store.open_database import beside, hold
from control.store.sqlite import open_store
from control.token_store import Token, TokenStore
from control.version import Version
from sidecar.errors import StartError

_log = logging.getLogger(__name__)


def store_path(told: Settings, directory: Path) -> Path:
    """Where the store is. StartError where it is in memory."""
    if told.store == "memory":
        raise StartError("--store: memory keeps nothing that could be replaced; name dir or a file")
    return directory / "store.db" if told.store == "dir" else Path(told.store)


def new_epoch(told: Settings, now: float) -> None:
    """Gives the store another epoch. StartError where that can't be, or where there is none."""
    directory, lock = open_directory(told.ca_dir)
    try:
        path = store_path(told, directory)
        if not path.exists():
            raise StartError(f"--store: there is none at {path}, and a new one has a new epoch")
        _log.info("%s is of epoch %d now", path, database_restore.renew_epoch(path, now))
    finally:
        os.close(lock)


def restore(told: Settings, copy: Path, void_tokens: bool, now: float) -> None:
    """Puts ``copy`` in the place of the store, which is kept beside it. StartError, and nothing has changed."""
    directory, lock = open_directory(told.ca_dir)
    held = None
    try:
        path = store_path(told, directory)
        try:
            held = hold(path)
        except FileNotFoundError:
            _log.info("there is no store at %s", path)
        ready = database_restore.make_ready(copy, path, now)
        try:
            done = trio.run(_void, ready, told, void_tokens, now)
            kept = beside(path, time.strftime(".replaced-%Y%m%dT%H%M%SZ", time.gmtime(now)))
            was_there = database_restore.put_in_place(ready, path, kept)
        finally:
            database_restore.discard(ready)
    finally:
        if held is not None:
            os.close(held)
        os.close(lock)
    _tell(done, copy, path, kept if was_there else None)


class _Done(NamedTuple):
    version: Version
    void: list[Token]
    good: list[Token]


async def _void(ready: Path, told: Settings, all_of_them: bool, now: float) -> _Done:
    """Makes tokens void in a store that is about to be put in place."""
    store = open_store(str(ready), now)
    try:
        tokens = TokenStore(store, spiffe.workload(told.trust_domain, NAMESPACE, ACCOUNT))
        live = await tokens.live(now)
        void = [token for token in live if token.single_use or all_of_them]
        for token in void:
            await tokens.void(token.id)
        version = Version(store.epoch, (await store.list("token")).version)
    finally:
        store.close()
    return _Done(version, void, [token for token in live if token not in void])


def _tell(done: _Done, copy: Path, path: Path, kept: Path | None) -> None:
    _log.info("%s is the copy in %s now, as version %s", path, copy, done.version)
    if kept is not None:
        _log.info("what was there is in %s", kept)
    single = sum(token.single_use for token in done.void)
    if single:
        _log.warning("%d single-use tokens are void: they may have been used after the copy was made", single)
    if len(done.void) > single:
        _log.warning("%d other tokens are void; the operator's is made anew at the next start", len(done.void) - single)
    if done.good:
        _log.warning(
            "%d tokens are good, also where they were deleted after the copy was made; --void-tokens makes them void",
            len(done.good),
        )
    _log.warning(
        "revocations after that copy are forgotten: make them again; certificates that were issued after it are taken "
        "back by another root alone (POST /v1/ca:rotate)"
    )
