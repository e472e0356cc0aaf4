"""When a document was created: what decides which of two VirtualServices counts, over all that may happen to one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from control.documents import stored_document
from control.documents.stored_document import KIND
from control.documents.table import Documents
from control.store import Change, Entry
from control.store.sqlite import open_store
from sidecar.resources.documents import Key
from sidecar.resources.visibility import scope_of
from tests.control.documents import JSON, apply, get, path_of, put, service
from tests.control.plane import Plane, running

START = 1_000.0


def route(name: str, host: str = "web", namespace: str = "shop") -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"hosts": ["web"], "http": [{"route": [{"destination": {"host": host}}]}]},
    }


def ages(plane: Plane) -> dict[str, float]:
    """When each is held to be created, in seconds since the first."""
    found = {each.key[2]: each.created for each in plane.control.documents.mesh.of("VirtualService").values()}
    first = min(found.values())
    return {name: round(found[name] - first) for name in sorted(found)}


def counting(plane: Plane) -> list[str]:
    """The VirtualServices of a proxy of the namespace, that which counts first."""
    return [name for _, name in scope_of(plane.control.documents.mesh, "shop", "any").virtual_services]


async def test_a_document_is_as_old_as_its_first_generation_since_it_was_deleted(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        plane.clock.stop()
        for name in ("z", "m", "a"):
            await put(plane, route(name))
            plane.clock.ahead += 10
        assert ages(plane) == {"z": 0, "m": 10, "a": 20}
        assert counting(plane) == ["z", "m", "a"]

        assert (await put(plane, route("z", "other"))).json["result"] == "configured"
        assert (await apply(plane, route("z", "other"), route("m", "third"))).status == 200
        rollback = {"kind": "VirtualService", "namespace": "shop", "name": "z", "generation": 1}
        assert (await plane.ask("POST", "/v1/resources:rollback", plane.operator, rollback, headers=JSON)).status == 200
        assert (await get(plane, path_of(route("z")))).json["generation"] == 3
        assert ages(plane) == {"z": 0, "m": 10, "a": 20}, "an update makes it no younger"

        copy = (await plane.ask("GET", "/v1/backup", plane.operator)).body
        await plane.ask("DELETE", path_of(route("z")), plane.operator)
        await put(plane, route("z"))
        assert ages(plane) == {"m": 0, "a": 10, "z": 20} and counting(plane) == ["m", "a", "z"]
        rollback = {"kind": "VirtualService", "namespace": "shop", "name": "z", "generation": 2}
        assert (await plane.ask("POST", "/v1/resources:rollback", plane.operator, rollback, headers=JSON)).status == 200
        assert ages(plane) == {"m": 0, "a": 10, "z": 20}, "what it was before its deletion makes it no older"
    async with running(tmp_path) as plane:
        assert ages(plane) == {"m": 0, "a": 10, "z": 20}, "a restart changes nothing"
    (tmp_path / "second").mkdir()
    restored = tmp_path / "copy.db"
    restored.write_bytes(copy)
    restored.chmod(0o600)
    async with running(tmp_path / "second", store=str(restored)) as plane:
        assert ages(plane) == {"z": 0, "m": 10, "a": 20}, "nor does a copy in the store's place"


async def test_what_is_applied_together_counts_by_name_and_the_same_again_changes_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        await apply(plane, route("b"), route("a"), service())
        assert counting(plane) == ["a", "b"]
        plane.clock.ahead += 10
        reply = await apply(plane, route("a"), route("b"))
        assert [each["result"] for each in reply.json["results"]] == ["unchanged", "unchanged"]
        assert b"created" not in (await get(plane, path_of(route("a")))).body, "it is nothing that a document says"


def entry(generation: int, time: float, created: float | None) -> bytes:
    """As this version stores one, or (None) as one did that knew no creation."""
    raw = msgspec.json.encode(route("a"))
    if created is not None:
        return stored_document.encode(raw, generation, "x", time, created)
    return msgspec.json.encode({"document": route("a"), "generation": generation, "author": "x", "time": time})


@pytest.mark.parametrize(
    ("stored", "created"),
    [(entry(4, 9.0, 2.0), 2.0), (entry(1, 9.0, None), 9.0), (entry(4, 9.0, None), 9.0)],
)
def test_of_a_store_of_before_the_last_change_is_the_nearest_that_is_known(stored: bytes, created: float) -> None:
    held = stored_document.held(Entry("VirtualService/shop/a", stored, 1))
    assert held.document is not None
    assert (held.created, held.document.created, held.time) == (created, created, 9.0)


async def test_one_that_was_deleted_and_created_again_at_once_is_another_one() -> None:
    """Also where a follower sees only what is there in the end."""
    store = open_store("", START)
    documents = Documents(store, "cluster.local")
    told: list[frozenset[Key]] = []
    documents.follow(lambda keys, version: told.append(keys))
    key = ("VirtualService", "shop", "a")
    for time in (1.0, 5.0):
        await store.write([Change(KIND, stored_document.name_of(key), entry(1, time, time))])
        await documents.load()
        document = documents.mesh.get(key)
        assert document is not None and document.created == time
    assert told == [{key}, {key}]
    store.close()
