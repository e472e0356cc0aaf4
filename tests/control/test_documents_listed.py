"""Lists of documents, and their histories: page by page, and as they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from control.documents import changes, listing, stored_document, writer
from tests.control.documents import apply, get, path_of, put, service
from tests.control.plane import Plane, Reply, running

WEB = service()
ROLLBACK = "/v1/resources:rollback"


async def pages(plane: Plane, query: str) -> list[Reply]:
    """All of a list."""
    found = [await get(plane, f"/v1/resources?{query}")]
    while more := found[-1].json.get("continue"):
        found.append(await get(plane, f"/v1/resources?{query}&continue={more}"))
    return found


def names(reply: Reply) -> list[str]:
    return [each["document"]["metadata"]["name"] for each in reply.json["items"]]


async def test_a_list_has_what_is_asked_for(tmp_path: Path) -> None:
    labelled = service("labelled")
    labelled["metadata"]["labels"] = {"app": "x", "tier": "front"}
    peers = {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "strict", "namespace": "shop"},
        "spec": {"mtls": {"mode": "STRICT"}},
    }
    async with running(tmp_path) as plane:
        assert (await apply(plane, service("b"), service("a", "bank"), labelled, peers)).status == 200
        for query, expected in {
            "": ["strict", "a", "b", "labelled"],
            "?kind=Service": ["a", "b", "labelled"],
            "?namespace=bank": ["a"],
            "?kind=PeerAuthentication&namespace=bank": [],
            "?label=app=x": ["labelled"],
            "?label=app=x&label=tier=front": ["labelled"],
            "?label=app=x&label=tier=back": [],
            "/Service/shop": ["b", "labelled"],
        }.items():
            assert names(await get(plane, f"/v1/resources{query}")) == expected, query
        for query in ("label=app", "label=a=1&label=a=2", "limit=0", "continue=x"):
            assert (await get(plane, f"/v1/resources?{query}")).status == 400, query
        assert (await get(plane, "/v1/resources/service/shop")).status == 404


async def test_all_pages_are_of_one_moment(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        await apply(plane, *(service(f"s{number}") for number in range(7)))
        first = await get(plane, "/v1/resources?limit=3")
        await plane.ask("DELETE", path_of(service("s5")), plane.operator)
        await apply(plane, service("s4", port=81), service("s55"))
        second = await get(plane, f"/v1/resources?limit=3&continue={first.json['continue']}")
        third = await get(plane, f"/v1/resources?limit=3&continue={second.json['continue']}")
        assert names(first) + names(second) + names(third) == [f"s{number}" for number in range(7)]
        assert first.json["version"] == second.json["version"] == third.json["version"]
        assert "continue" not in third.json
        assert second.json["items"][1]["document"]["spec"]["ports"] == [{"port": 80}]
        assert [names(page) for page in await pages(plane, "limit=4")] == [
            ["s0", "s1", "s2", "s3"],
            ["s4", "s55", "s6"],
        ]


async def test_a_list_that_was_left_too_long_ago_is_gone(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        await apply(plane, service("a"), service("b"))
        left = (await get(plane, "/v1/resources?limit=1")).json["continue"]
        for number in range(listing.STATES):
            await put(plane, service("b", port=1000 + number))
            await get(plane, "/v1/resources?limit=1")
        gone = await get(plane, f"/v1/resources?limit=1&continue={left}")
        assert (gone.status, gone.json["type"]) == (410, "urn:sidecar:problem:expired")


async def test_a_page_is_no_longer_than_anyone_wants_to_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "PAGE_BYTES", 300)  # two of these
    async with running(tmp_path) as plane:
        await apply(plane, *(service(f"s{number}") for number in range(5)))
        found = [names(page) for page in await pages(plane, "")]
    assert [name for page in found for name in page] == [f"s{number}" for number in range(5)]
    assert {len(page) for page in found} <= {1, 2}


async def test_a_history_says_who_when_and_what(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        for port in (80, 81, 82):
            await put(plane, service(port=port))
        await plane.ask("DELETE", path_of(WEB), plane.operator)
        found = (await get(plane, f"{path_of(WEB)}/history")).json["items"]
        assert [each["generation"] for each in found] == [4, 3, 2, 1]
        assert [each["document"] for each in found] == [None, service(port=82), service(port=81), service()]
        assert len({each["author"] for each in found}) == 1 and all(each["time"] for each in found)
        first = (await get(plane, f"{path_of(WEB)}/history?limit=3")).json
        assert [each["generation"] for each in first["items"]] == [4, 3, 2]
        rest = (await get(plane, f"{path_of(WEB)}/history?limit=3&continue={first['continue']}")).json
        assert [each["generation"] for each in rest["items"]] == [1] and "continue" not in rest
        assert (await get(plane, f"{path_of(service('never'))}/history")).status == 404


async def test_a_history_keeps_so_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "KEPT", 3)
    async with running(tmp_path) as plane:
        for port in range(1, 8):
            await put(plane, service(port=port))
        found = (await get(plane, f"{path_of(WEB)}/history")).json["items"]
        assert [each["generation"] for each in found] == [7, 6, 5]
    assert stored_document.KEPT == 100


async def test_what_a_document_was_can_be_what_it_is_again(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:

        async def rollback(generation: int, **headers: str) -> Reply:
            body = {"kind": "Service", "namespace": "shop", "name": "web", "generation": generation}
            return await plane.ask("POST", ROLLBACK, plane.operator, body, headers=headers)

        await put(plane, WEB)
        await put(plane, service(port=81))
        back = await rollback(1)
        assert (back.status, back.json["result"], back.json["generation"]) == (200, "configured", 3)
        assert (await get(plane, path_of(WEB))).json["document"] == WEB
        assert (await rollback(3)).json["result"] == "unchanged"
        await plane.ask("DELETE", path_of(WEB), plane.operator)
        assert (await rollback(4)).status == 409, "generation 4 is its deletion"
        revived = await rollback(2)
        assert (revived.status, revived.json["result"], revived.json["generation"]) == (201, "created", 5)
        assert (await rollback(99)).status == 404
        assert (await rollback(1, **{"if-match": '"4"'})).status == 412


async def test_a_rollback_to_what_contradicts_others_now_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        await put(plane, service("old", addresses=["10.0.0.9"]))
        await put(plane, service("old"))
        await put(plane, service("new", addresses=["10.0.0.9"]))
        body = {"kind": "Service", "namespace": "shop", "name": "old", "generation": 1}
        refused = await plane.ask("POST", ROLLBACK, plane.operator, body)
        assert refused.status == 422 and "10.0.0.9" in refused.json["problems"][0]["why"]


async def test_of_what_is_gone_so_many_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "GONE", 2)
    async with running(tmp_path) as plane:
        for name in ("a", "b", "c"):
            plane.clock.ahead += 1.0
            await put(plane, service(name))
            await plane.ask("DELETE", path_of(service(name)), plane.operator)
        statuses = [(await get(plane, f"{path_of(service(name))}/history")).status for name in ("a", "b", "c")]
        assert statuses == [404, 200, 200]
        assert [(await put(plane, service(name))).json["generation"] for name in ("a", "b")] == [1, 3]


async def test_there_is_room_for_so_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "DOCUMENTS", 2)
    async with running(tmp_path) as plane:
        full = await apply(plane, *(service(name) for name in "abc"))
        assert (full.status, full.json["type"]) == (409, "urn:sidecar:problem:too-many")
        assert (await apply(plane, service("a"), service("b"))).status == 200
        assert (await put(plane, service("c"))).status == 409
        assert (await put(plane, service("b", port=81))).status == 200, "what is there may change"
    monkeypatch.setattr(changes, "BYTES", 400)
    async with running(tmp_path) as plane:
        grown = await put(plane, service("b", serviceAccounts=[f"account-{number}" for number in range(30)]))
        assert (grown.status, grown.json["type"]) == (409, "urn:sidecar:problem:too-many")
