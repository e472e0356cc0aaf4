"""A look at the app: does its port take a connection, does it answer over HTTP, does a command end well?

Who calls it: ``admin.probes`` for orchestrators, ``feed.app_health`` for what callers are told. Nothing of it is part
of the data path. What is found wrong is a word or a clause, never anything that the app has said; empty: nothing is.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress

import h11
import trio

from sidecar.errors import ProxyError, Reason
from sidecar.net.connection import Connection, ConnectionClosed
from sidecar.net.dial import dial

MAX_HEAD = 65_536
_REAP_SECONDS = 1.0  # a process that was killed ends at once, unless the kernel holds it


async def look_at_port(
    addresses: Sequence[str], port: int, path: str, registry: set[Connection], *, seconds: float, source: str = ""
) -> str:
    """Connects to the first of these IP literals that answers, from ``source`` where that is given, and where there is
    a ``path`` wants a status of 200 to 399 for it. Ends after ``seconds``; leaves no connection."""
    with trio.move_on_after(seconds):
        try:
            connection = await dial(addresses, port, timeout=2 * seconds, registry=registry, source=source)
        except ProxyError as error:
            return error.reason.word
        try:
            connection.limit(2 * seconds, Reason.UPSTREAM_TIMEOUT)  # in case it outlives its scope
            host = f"[{addresses[0]}]" if ":" in addresses[0] else addresses[0]
            return await _ask(connection, f"{host}:{port}", path) if path else ""
        except ConnectionClosed:
            return "closed"
        except h11.RemoteProtocolError:
            return "not_http"
        except ProxyError as error:  # expired by somebody else: a drain
            return error.reason.word
        finally:
            connection.close()
    return "timeout"


async def _ask(connection: Connection, host: str, path: str) -> str:
    h11_connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
    headers = [("host", host), ("user-agent", "sidecar-probe"), ("connection", "close")]
    head = h11_connection.send(h11.Request(method="GET", target=path, headers=headers))
    await connection.send_all(head or b"")
    h11_connection.send(h11.EndOfMessage())
    while True:
        event = h11_connection.next_event()
        if event is h11.NEED_DATA:
            h11_connection.receive_data(await connection.recv())
        elif isinstance(event, h11.Response):
            return "" if 200 <= event.status_code < 400 else f"status_{event.status_code}"
        elif not isinstance(event, h11.InformationalResponse):
            return "closed"


async def look_by_command(words: Sequence[str], *, seconds: float) -> str:
    """Runs it, without a shell, and wants it to end with 0. What it says goes nowhere. After ``seconds``, or when this
    is cancelled, it is killed; what it has begun in its session, and left, is killed in any case."""
    nothing = subprocess.DEVNULL
    try:
        process = await trio.lowlevel.open_process(
            list(words), stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True
        )
    except OSError as error:
        return f"it can't be run: {os.strerror(error.errno or 0).lower()}"
    try:
        with trio.move_on_after(seconds):
            code = await process.wait()
            return f"exit code {code}" if code > 0 else f"signal {-code}" if code else ""
        return "timeout"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        if process.returncode is None:
            with trio.move_on_after(_REAP_SECONDS, shield=True):
                await process.wait()
