"""``sidecar wait``: until a sidecar is ready, or for as long as ``--timeout`` says. For a pod's postStart hook.

Exit code 0 once ``/ready`` (admin) or ``/healthz/ready`` (scrape) said 200; else 1, and a line says what was seen last.
A plain blocking socket: there is nothing else to do meanwhile, and a hook that imports an event loop starts later.
"""

from __future__ import annotations

import logging
import re
import socket
import sys
from collections.abc import Sequence
from time import monotonic, sleep
from typing import cast

from sidecar import settings
from sidecar.addresses import Address
from sidecar.errors import StartError
from sidecar.flag_parser import split
from sidecar.option_table import OPTIONS, TIMEOUT

POLL_SECONDS = 0.1
ANSWER_SECONDS = 2.0  # a sidecar answers at once; whoever takes longer is something else, or stands still
_LONGEST = 4096
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[^\r\n]*\r\n")
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_TAKES = (*(option for option in OPTIONS if option.field in ("admin", "scrape")), TIMEOUT)
_USAGE = f"""\
usage: sidecar wait [--admin [ADDR:]PORT | --scrape [ADDR:]PORT] [--timeout S]

Waits until the sidecar there is ready: exit code 0. After --timeout ({TIMEOUT.default} unless given): exit code 1, and
a line that says what was seen last. Without an address it asks the admin port, wherever SIDECAR_ADMIN puts it (default:
15000), or, where that is off, the scrape port.
"""
_log = logging.getLogger(__name__)


def run(words: Sequence[str]) -> int:
    """Runs the command; returns its exit code. StartError for what can't be understood."""
    given = split(words, _TAKES)
    if given.problems:
        raise StartError(given.problems[0])
    if given.help:
        sys.stdout.write(_USAGE)
        return 0
    written = given.flags.pop("timeout", TIMEOUT.default)
    try:
        seconds = cast(float, TIMEOUT.parse(written))
    except ValueError as error:
        raise StartError(f"--timeout: {error}; write for example {TIMEOUT.example}") from None
    where, path = _target(given.flags)
    end = monotonic() + seconds
    while (state := _ask(where, path, min(ANSWER_SECONDS, end - monotonic()))) != "ready":
        if monotonic() + POLL_SECONDS >= end:
            _log.error("%s was not ready within %s; last: %s", where, written, state)
            return 1
        sleep(POLL_SECONDS)
    return 0


def _target(flags: dict[str, str]) -> tuple[Address, str]:
    if len(flags) > 1:
        raise StartError("--admin, --scrape: one of them is enough; leave the other out")
    for field, path in (("scrape", "/healthz/ready"),) if "scrape" in flags else _BOTH:
        addresses = cast(tuple[Address, ...], settings.value(field, flags))
        if addresses:
            host, port = addresses[0].host, addresses[0].port
            if port == 0:
                raise StartError(f"--{field}: 0 is no port to ask; name the one that the sidecar printed")
            return Address(_WILDCARDS.get(host, host), port), path
    raise StartError("--admin, --scrape: both are off, so nobody can be asked; name the one that is on")


_BOTH = (("admin", "/ready"), ("scrape", "/healthz/ready"))


def _ask(where: Address, path: str, seconds: float) -> str:
    """ "ready", or in words what is there instead."""
    try:
        with socket.create_connection((where.host, where.port), timeout=max(seconds, 0.01)) as sock:
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {where}\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while len(answer) < _LONGEST and (data := sock.recv(_LONGEST)):
                answer += data
    except TimeoutError:
        return "no answer"
    except OSError as error:
        return (error.strerror or str(error)).lower()
    found = _STATUS.match(answer)
    if found is None:
        return "something that is no sidecar"
    if found[1] == b"200":
        return "ready"
    said = answer.partition(b"\r\n\r\n")[2].partition(b"\n")[0][:80].decode("ascii", "replace")
    return f"{found[1].decode()} {said if said.isprintable() else ''}".rstrip()
