"""The promise of neighbouring versions: what was sent in schema 1.0 is still made, and still understood.

``recorded/`` has snapshots as they were sent, each beside the documents that it was made of. They are never made anew:
a release that would send something else for the same documents, or would refuse what an older one sent, fails here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from trio.testing import MockClock

from sidecar.resources.incremental_compile import compile_slices
from sidecar.resources.proxy_config import ProxyConfig
from sidecar.resources.schema import EndpointSpec
from sidecar.resources.snapshot import Node
from tests.control.distributing import Behind, distributing

RECORDED = Path(__file__).parent / "recorded"
SNAPSHOTS = sorted(RECORDED.glob("*.json"))
RECORDINGS = {path: (path.read_bytes(), path.with_suffix(".yaml").read_text()) for path in SNAPSHOTS}


def without_moment(body: bytes) -> dict[str, Any]:
    """A snapshot without its version and time."""
    members: dict[str, Any] = msgspec.json.decode(body)
    return {name: value for name, value in members.items() if name not in ("version", "issued")}


def test_there_are_some() -> None:
    assert len(SNAPSHOTS) >= 3


@pytest.mark.parametrize("path", SNAPSHOTS, ids=lambda path: path.stem)
async def test_what_was_sent_is_still_made_of_the_same_documents(path: Path, autojump_clock: MockClock) -> None:
    recorded, written = RECORDINGS[path]
    who = msgspec.json.decode(recorded, type=ProxyConfig).proxy.removeprefix("spiffe://cluster.local/ns/")
    registry = Behind()
    async with distributing(endpoints=registry) as it:
        registry.has("shop", "web", EndpointSpec("10.0.0.7", port=15006, mode="direct", labels={"version": "v2"}))
        await it.write(written)
        await it.settled()
        member = await it.member(who.replace("/sa/", "/"))
        made = b"".join(member.published.value.parts("1.1", (1, 0)))
    assert msgspec.json.encode(without_moment(made)) == msgspec.json.encode(without_moment(recorded))


@pytest.mark.parametrize("path", SNAPSHOTS, ids=lambda path: path.stem)
def test_what_was_sent_is_still_understood(path: Path) -> None:
    body = path.read_bytes()
    proxy = msgspec.json.decode(body, type=ProxyConfig).proxy
    _, _, namespace, _, account = proxy.removeprefix("spiffe://").split("/")
    steps = compile_slices(body, Node(namespace, service_account=account), "control")
    while True:
        try:
            next(steps)
        except StopIteration as done:
            compiled = done.value
            break
    assert compiled.problems == () and compiled.snapshot is not None
    assert compiled.snapshot.source == "control" and len(compiled.snapshot.services) > 0
