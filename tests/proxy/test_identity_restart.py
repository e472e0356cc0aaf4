"""What a restart keeps: the identity, with --identity-dir, while the control plane is away."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.errors import ProxyError
from sidecar.feed.identity_dir import IdentityDir
from tests.proxy.fickle import DAY, EPOCH, fed, plane_at

CALLS = ("/v1/certificates", "/v1/bundle", "/v1/crl")


@pytest.fixture
def memory() -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="identity-") as path:
        yield path


async def test_an_identity_outlives_a_restart(tmp_path: Path, memory: str) -> None:
    async with plane_at(tmp_path) as plane:
        plane.revoked[77] = time.time()
        plane.bundle_n = 3
        async with fed(plane, memory) as first:
            await first.until(lambda: first.feed.tally.lists_version)
            before = first.identity.require().credentials
        for call in CALLS:
            plane.wrong[call] = lambda _: (503, b"")
        async with fed(plane, memory) as second:
            await second.until(lambda: second.identity.generation)
            after = second.identity.require().credentials
            assert after.chain == before.chain and after.spiffe_id == before.spiffe_id
            assert second.feed.tally.bundle_version == (EPOCH, 3)
            assert second.identity.revocations.lists[0].serials == {77}
            assert len(plane.keys) == 1, "no certificate was asked for"


async def test_without_a_directory_a_restart_without_a_control_plane_has_none(tmp_path: Path) -> None:
    async with plane_at(tmp_path) as plane:
        async with fed(plane) as first:
            await first.renewed(1)
        plane.wrong[CALLS[0]] = lambda _: (503, b"")
        async with fed(plane) as second:
            await second.until(lambda: second.errors)
            with pytest.raises(ProxyError, match="no certificate yet"):
                second.identity.require()


async def test_what_ended_meanwhile_is_removed(tmp_path: Path, memory: str) -> None:
    async with plane_at(tmp_path) as plane:
        plane.ttl = 6.0
        async with fed(plane, memory) as first:
            await first.renewed(1)
        plane.ttl = DAY
        plane.wrong[CALLS[0]] = lambda _: (503, b"")
        ended = time.time() + 6.0
        async with fed(plane, memory) as second:
            second.clock.ahead = max(0.0, ended - time.time()) + 1
            await second.until(lambda: second.errors)
            assert second.identity.generation is None
    assert IdentityDir(memory).load() is None


@pytest.mark.parametrize("part", ["spiffe_id", "chain", "key", "bundle", "bundle_version", "control_id"])
async def test_what_is_somebody_elses_or_damaged_is_not_used(tmp_path: Path, memory: str, part: str) -> None:
    async with plane_at(tmp_path) as plane:
        async with fed(plane, memory) as first:
            await first.renewed(1)
        directory = IdentityDir(memory)
        kept = directory.load()
        assert kept is not None
        values = {name: getattr(kept, name) for name in kept.__struct_fields__}
        values[part] = values[part].replace("billing", "orders") if part == "spiffe_id" else "damaged"
        directory.store(type(kept)(**values))
        async with fed(plane, memory) as second:
            await second.renewed(1)
            assert len(plane.keys) == 2
