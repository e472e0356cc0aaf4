"""CTL-13: what we forward, others split in the same way.

The same bytes go to the proxy and to nginx, HAProxy and h11. Every request that our app saw must be the same request,
with the same body, at the same place, to them. That they refuse what we forward has to be explained in ``_EXPLAINED``;
that we refuse what they forward is our right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.hostile.case import Case
from tests.hostile.conftest import PROTOCOLS
from tests.hostile.coverage import ALL_CASES, covers
from tests.hostile.mutate import input_of, seeds_from
from tests.hostile.rig import Rig
from tests.support.reference import H11Reference, ProxyReference, Reference, Split, send_and_read_to_end

_END = b"GET /end HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n"
_MUTANTS = 1500
_SEED = 13

# What a reference refuses and we forward: (reference, what the bytes have in them, why no framing is in doubt).
_METHODS = rb"(?:\A|[^A-Z])(?![A-Z_-]+ )[!#$%&'*+.^_`|~0-9A-Za-z-]+ [!-~]+ HTTP/1\.1\r\n"
_TRAILER = rb"\r\n0+\r\n(?:.+\r\n)*?(?:transfer-encoding|content-length):"
_EXPLAINED: list[tuple[str, re.Pattern[bytes], str]] = [
    ("nginx", re.compile(_METHODS), "methods are A-Z, _ and - to nginx, any token to RFC 9110 section 9.1 and to us"),
    (
        "nginx",
        re.compile(rb"OPTIONS \* HTTP/1\.1\r\n"),
        "nginx does not proxy the asterisk form (RFC 9112 section 3.2.4)",
    ),
    ("nginx", re.compile(rb"TRACE "), "nginx refuses TRACE with 405 whatever its framing"),
    (
        "nginx",
        re.compile(rb"\r\nhost:[ \t]*\t", re.I),
        "HTAB is no white space to nginx, and so it is part of the host",
    ),
    ("h11", re.compile(_TRAILER, re.I), "h11 judges framing fields in trailers; we drop them"),
    ("haproxy", re.compile(_TRAILER, re.I), "HAProxy judges framing fields in trailers; we drop them"),
    ("haproxy", re.compile(rb"\r\nupgrade:", re.I), "HAProxy serves nothing behind a request to upgrade, taken or not"),
]


@pytest.fixture(scope="module", params=PROTOCOLS)
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    with Rig("main", str(request.param), access_log="off") as rig:
        yield rig


@pytest.fixture(scope="module")
def references() -> Iterator[dict[str, Reference]]:
    with ProxyReference("nginx") as nginx, ProxyReference("haproxy") as haproxy:
        yield {each.name: each for each in (nginx, haproxy, H11Reference())}


@pytest.fixture(params=["nginx", "haproxy", "h11"])
def reference(request: pytest.FixtureRequest, references: dict[str, Reference]) -> Reference:
    return references[request.param]


def _ours(rig: Rig, data: bytes) -> Split:
    """What our app sees."""
    rig.upstream.take()
    send_and_read_to_end(rig.sidecar.inbound, data)
    rig.sentinel()
    seen = rig.upstream.take()
    return [(r.method, r.body) for r in seen.requests if not r.target.startswith(b"/sentinel/")]


def _differs(data: bytes, ours: Split, theirs: Split, reference: str) -> str | None:
    for index, (mine, other) in enumerate(zip(ours, theirs, strict=False)):
        if mine != other:
            return f"request {index}: {mine!r} to us, {other!r} to {reference}"
    explained = any(name == reference and pattern.search(data) for name, pattern, _ in _EXPLAINED)
    if len(ours) > len(theirs) and not explained:
        return f"we forward {ours[len(theirs)]!r}, which {reference} refuses"
    return None


def _inputs() -> list[tuple[str, bytes]]:
    cases: list[Case] = [case for case in ALL_CASES if case.port == "inbound" and case.rig == "main"]
    seeds = seeds_from([case.send for case in cases])
    mutants = [(f"mutant {n} of seed {_SEED}", input_of(_SEED, n, seeds)) for n in range(_MUTANTS)]
    return [(str(case), case.send) for case in cases if len(case.send) <= 40000] + mutants


@pytest.fixture(scope="module")
def forwarded(rig: Rig) -> list[tuple[str, bytes, Split]]:
    """Every input of which our app saw a request, with what it saw."""
    found = [(name, data + _END, _ours(rig, data + _END)) for name, data in _inputs()]
    return [(name, data, ours) for name, data, ours in found if ours]


@covers("CTL-13")
def test_what_we_forward_is_split_alike(forwarded: list[tuple[str, bytes, Split]], reference: Reference) -> None:
    assert len(forwarded) > 300
    wrong = []
    for name, data, ours in forwarded:
        difference = _differs(data, ours, reference.split(data), reference.name)
        if difference is not None:
            wrong.append(f"{name}: {difference}\n    {data[:500]!r}")
    assert not wrong, f"{len(wrong)} differences\n" + "\n".join(wrong[:15])


def test_a_difference_is_seen(reference: Reference) -> None:
    """The comparison can fail: a proxy that had taken the length where these take the chunks would be found out."""
    data = b"POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + _END
    theirs = reference.split(data)
    assert theirs == [(b"POST", b"hello"), (b"GET", b"")]
    assert _differs(data, [(b"POST", b"5\r\nhe")], theirs, reference.name)
    assert _differs(data, [*theirs, (b"GET", b"")], theirs, reference.name)
    assert _differs(data, theirs[:1], theirs, reference.name) is None
