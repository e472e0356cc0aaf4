"""What has to be true of a proxy for its figures to count: it carries the app's answers, and does its duties.

Called by the scenarios before and after they measure. All raise BenchError. For an ``authority`` the port is asked as
an explicit proxy is.
"""

from __future__ import annotations

import ipaddress
import time

from bench import load
from bench.app import PAGE_BYTES
from bench.processes import BenchError
from bench.proxies import Running

# Envoy holds up to 64 KiB of log lines back for 10 s: some hundred of the many thousands of a turn.
_LOGGED = 0.9
_FEW = 5000


def check_small(port: int, authority: str = "") -> None:
    """Raises BenchError where the answer of the app does not come through."""
    head, body = load.ask(port, "/catalogue/items/1", authority=authority)
    if not head.startswith(b"HTTP/1.1 200 ") or body != b"a small answer of the app\n":
        raise BenchError(f"not the app's answer: {head!r} {body!r}")


def check_mix(port: int) -> None:
    """Raises BenchError where the page does not come chunked and whole, or the upload is not taken."""
    head, body = load.ask(port, "/mix/get/1")
    if not head.startswith(b"HTTP/1.1 200 ") or b"transfer-encoding: chunked" not in head.lower():
        raise BenchError(f"not a chunked answer: {head!r}")
    if not body.endswith(b"0\r\n\r\n") or not PAGE_BYTES < len(body) < PAGE_BYTES + 200:
        raise BenchError(f"not the page: {len(body)} bytes, ending with {body[-20:]!r}")
    head, body = load.ask(port, "/mix/post/1", method="POST", body=bytes(65536))
    if not head.startswith(b"HTTP/1.1 200 ") or body != b"stored\n":
        raise BenchError(f"the upload was not taken: {head!r} {body!r}")


def check_duties(port: int, authority: str = "") -> None:
    """Raises BenchError where the app is not told a request id and who the client is."""
    _, body = load.ask(port, "/duties", authority=authority)
    request_id, _, forwarded = body.decode(errors="replace").strip().partition(" ")
    # Envoy puts an address of the machine's own for a client on loopback, so any address will do.
    if len(request_id) < 8 or not _is_address(forwarded):
        raise BenchError(f"duties not done: x-request-id is {request_id!r}, x-forwarded-for is {forwarded!r}")


def check_caller(port: int, authority: str, caller: str) -> None:
    """Raises BenchError where the app is not told the SPIFFE id of who calls it."""
    _, body = load.ask(port, "/caller", authority=authority)
    if f"URI={caller}" not in body.decode(errors="replace"):
        raise BenchError(f"duties not done: x-forwarded-client-cert is {body!r}, and the caller is {caller}")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def check_log(running: Running, before: int, requests: int) -> None:
    """Raises BenchError where the access log lacks the load's requests: a proxy that drops them spares the cost."""
    deadline = time.monotonic() + 2.0
    while (lines := running.log_lines() - before) < requests * _LOGGED:
        if requests < _FEW:
            return
        if time.monotonic() > deadline:
            raise BenchError(f"{running.proxy.name} logged {lines} of {requests} requests")
        time.sleep(0.05)
