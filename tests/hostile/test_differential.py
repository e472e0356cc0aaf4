"""CTL-13: what we forward, others split in the same way.

The same bytes go to the proxy and to nginx, HAProxy and h11. Every request that our app saw must be the same request,
with the same body, at the same place, to them. That they refuse what we forward has to be explained in ``_EXPLAINED``;
that we refuse what they forward is our right.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hostile.case import Case
from tests.hostile.conftest import PROTOCOLS
from tests.hostile.coverage import ALL_CASES, covers
from tests.hostile.mutate import input_of, seeds_from
from tests.hostile.rig import Rig
from tests.support.raw import Client
from tests.support.reference import H11Reference, ProxyReference, Reference, Split

_END = b"GET /end HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n"
_MUTANTS = 1500
_SEED = 13

# (reference, method of the request that it refuses and we forward) -> why that is no difference in framing.
_EXPLAINED: dict[tuple[str, bytes], str] = {}


@pytest.fixture(scope="module", params=PROTOCOLS)
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    with Rig("main", str(request.param), access_log="off") as rig:
        yield rig


@pytest.fixture(scope="module", params=["nginx", "haproxy", "h11"])
def reference(request: pytest.FixtureRequest) -> Iterator[Reference]:
    if request.param == "h11":
        yield H11Reference()
    else:
        with ProxyReference(str(request.param)) as started:
            yield started


def _ours(rig: Rig, data: bytes) -> Split:
    """What our app sees; FIN only once nothing more comes, so that no answer is given up for it."""
    rig.upstream.take()
    with Client(rig.sidecar.inbound, deadline=10) as client:
        client.send(data)
        client.sock.settimeout(0.1)
        try:
            while piece := client.sock.recv(65536):
                client.heard.raw += piece
        except ConnectionError:
            pass
        except TimeoutError:
            client.finish()
            client.read_to_end()
    rig.sentinel()
    seen = rig.upstream.take()
    return [(r.method, r.body) for r in seen.requests if not r.target.startswith(b"/sentinel/")]


def _differs(ours: Split, theirs: Split, reference: str) -> str | None:
    for index, (mine, other) in enumerate(zip(ours, theirs, strict=False)):
        if mine != other:
            return f"request {index}: {mine!r} to us, {other!r} to {reference}"
    if len(ours) > len(theirs) and (reference, ours[len(theirs)][0]) not in _EXPLAINED:
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
        difference = _differs(ours, reference.split(data), reference.name)
        if difference is not None:
            wrong.append(f"{name}: {difference}\n    {data[:500]!r}")
    assert not wrong, f"{len(wrong)} differences\n" + "\n".join(wrong[:15])


def test_a_difference_is_seen(reference: Reference) -> None:
    """The comparison can fail: a proxy that had taken the length where these take the chunks would be found out."""
    data = b"POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + _END
    theirs = reference.split(data)
    assert theirs == [(b"POST", b"hello"), (b"GET", b"")]
    assert _differs([(b"POST", b"5\r\nhe")], theirs, reference.name)
    assert _differs([*theirs, (b"GET", b"")], theirs, reference.name)
    assert _differs(theirs[:1], theirs, reference.name) is None
