"""The documents in memory: what those see that follow them, who comes second, and what a newer version wrote."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import trio

from control.documents import stored_document
from control.documents.changes import Order
from control.documents.parse import JSON as JSON_TYPE
from control.documents.table import Documents
from control.documents.writer import Writer
from control.problems import Invalid
from control.store import Change, TooOld
from control.store.sqlite import open_store
from sidecar.resources.documents import Key
from tests.control.documents import JSON, apply, as_yaml, get, path_of, put, results, service
from tests.control.plane import running

WEB = service()
NEWER = service() | {"spec": WEB["spec"] | {"moonPhase": "full"}}


async def test_two_who_apply_at_once_come_one_after_the_other(tmp_path: Path) -> None:
    """Each sees what the other left; the history has every change that was acknowledged, and none twice."""
    async with running(tmp_path) as plane:
        replies = []

        async def one(number: int) -> None:
            replies.append(await apply(plane, service("a", port=1000 + number), service("b", port=2000 + number)))

        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(one, number)
        assert {reply.status for reply in replies} == {200}
        for name in ("a", "b"):
            items = (await get(plane, f"{path_of(service(name))}/history")).json["items"]
            assert [each["generation"] for each in items] == list(range(20, 0, -1))
            told = {generation: reply for reply in replies for which, _, generation in results(reply) if which == name}
            assert sorted(told) == list(range(1, 21))
        ports = [
            (await get(plane, path_of(service(name)))).json["document"]["spec"]["ports"][0]["port"]
            for name in ("a", "b")
        ]
        assert ports[1] - ports[0] == 1000, "both are of the same apply"


async def test_of_two_who_make_the_same_claim_one_gets_it(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        statuses: list[int] = []

        async def one(name: str) -> None:
            statuses.append((await put(plane, service(name, addresses=["10.0.0.9"]))).status)

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(one, f"s{number}")
        assert sorted(statuses) == [201] + [422] * 9
        assert len((await get(plane, "/v1/resources")).json["items"]) == 1


async def test_of_two_who_saw_the_same_one_is_told_that_it_is_another_now(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        await put(plane, WEB)
        statuses: list[int] = []

        async def one(port: int) -> None:
            statuses.append((await put(plane, service(port=port), if_match='"1"')).status)

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(one, 1000 + number)
        assert sorted(statuses) == [200] + [412] * 9


async def order(writer: Writer, value: object) -> Order:
    read = await writer.read(msgspec.json.encode(value), JSON_TYPE)
    assert read.problems == ()
    return Order(wanted=read.wanted, author="test", now=0.0)


@pytest.mark.parametrize("meddling", [1, 99])
async def test_a_store_that_others_write_to_loses_no_change(meddling: int, nursery: trio.Nursery) -> None:
    """Another process writes between our judging and our writing: it is judged again, and given up at last."""
    store = open_store("", 1.0)
    documents = Documents(store, "cluster.local")
    await documents.load()
    nursery.start_soon(documents.run)
    writer = Writer(store, documents, lambda: 1.0)
    write, left = store.write, [meddling]

    async def meddled(changes: list[Change]) -> int:
        if left[0]:
            left[0] -= 1
            theirs = msgspec.json.encode(service(port=1000 + left[0]))
            await write(
                [Change(stored_document.KIND, "Service/shop/web", stored_document.encode(theirs, 1, "them", 1.0))]
            )
        return await write(changes)

    store.write = meddled  # type: ignore[method-assign, assignment]
    ours = await order(writer, service(port=7))
    with trio.fail_after(30):
        if meddling == 1:
            plan, _ = await writer.apply(ours)
            assert plan.outcomes[0].generation == 2
        else:
            with pytest.raises(Invalid) as raised:
                await writer.apply(ours)
            assert raised.value.status == 409
    nursery.cancel_scope.cancel()
    store.close()


async def test_followers_are_told_what_changed_and_what_went(nursery: trio.Nursery) -> None:
    store = open_store("", 1.0)
    documents = Documents(store, "cluster.local")
    writer = Writer(store, documents, lambda: 1.0)
    told: list[tuple[frozenset[Key], int]] = []
    await documents.load()
    documents.follow(lambda changed, version: told.append((changed, version)))
    nursery.start_soon(documents.run)
    web, card = ("Service", "shop", "web"), ("Service", "shop", "card")
    with trio.fail_after(30):
        _, first = await writer.apply(await order(writer, [WEB, service("card")]))
        await writer.apply(await order(writer, WEB))
        _, second = await writer.apply(await order(writer, [service(port=81), service("card")]))
        _, third = await writer.apply(Order(gone=[card], author="test", now=0.0))
    assert told == [(frozenset({web, card}), first), (frozenset({web}), second), (frozenset({card}), third)]
    assert documents.version == third and [each.key for each in documents.mesh.documents()] == [web]
    nursery.cancel_scope.cancel()
    store.close()


async def test_who_fell_behind_reads_everything_again(nursery: trio.Nursery) -> None:
    store = open_store("", 1.0)
    documents = Documents(store, "cluster.local")
    await documents.load()
    value = stored_document.encode(msgspec.json.encode(WEB), 1, "them", 1.0)
    version = await store.put(stored_document.KIND, "Service/shop/web", value)
    watch = store.watch
    refused: list[int] = []

    def once_too_old(kinds: set[str], since: int) -> object:
        if not refused:
            refused.append(since)
            raise TooOld("test")
        return watch(kinds, since)

    store.watch = once_too_old  # type: ignore[method-assign, assignment]
    told: list[frozenset[Key]] = []
    documents.follow(lambda changed, _: told.append(changed))
    nursery.start_soon(documents.run)
    with trio.fail_after(30):
        await documents.reached(version)
    assert refused and told == [frozenset({("Service", "shop", "web")})]
    nursery.cancel_scope.cancel()
    store.close()


async def test_what_a_newer_version_wrote_is_shown_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as plane:
        store = plane.control.store
        value = stored_document.encode(msgspec.json.encode(NEWER), 4, "them", 1.0)
        lantern = service() | {"kind": "Lantern"}
        changes = [
            Change(stored_document.KIND, "Service/shop/web", value),
            Change(stored_document.HISTORY, "Service/shop/web/0000000004", value),
            Change(
                stored_document.KIND,
                "Lantern/shop/web",
                stored_document.encode(msgspec.json.encode(lantern), 1, "them", 1.0),
            ),
            Change(stored_document.KIND, "odd", b"\x00"),
        ]
        with trio.fail_after(30):
            await plane.control.documents.reached(await store.write(changes))
    async with running(tmp_path) as plane:  # it starts with them, too
        found = await get(plane, path_of(WEB))
        assert found.json["document"] == NEWER and "moonPhase" in found.json["unreadable"]
        listed = (await get(plane, "/v1/resources")).json["items"]
        assert len(listed) == 3 and all(each["unreadable"] for each in listed)
        assert "moonPhase" in caplog.text
        assert ("Service", "shop", "web") in plane.control.documents.state.effective
        figures = (await plane.ask("GET", "/metrics")).body.decode()
        assert "sidecar_control_documents_unreadable 3.0" in figures
        # Others can be changed, and so can it; it goes on counting.
        assert (await put(plane, service("other"))).status == 201
        assert (await put(plane, WEB)).json["generation"] == 5
        gone = await plane.ask("DELETE", "/v1/resources/Lantern/shop/web", plane.operator)
        assert (gone.status, gone.json["generation"]) == (200, 2)
        assert "unreadable" not in (await get(plane, path_of(WEB))).json


async def test_one_that_can_not_be_read_keeps_nobody_from_checking(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        value = stored_document.encode(msgspec.json.encode(NEWER), 1, "them", 1.0)
        await plane.control.documents.reached(
            await plane.control.store.put(stored_document.KIND, "Service/shop/web", value)
        )
        body = as_yaml(service("a", addresses=["10.0.0.9"]), service("b", addresses=["10.0.0.9"]))
        checked = await plane.ask("POST", "/v1/resources:check", plane.operator, body)
        assert len(checked.json["problems"]) == 1
        replaced = await plane.ask("POST", "/v1/resources:apply", plane.operator, [WEB, service("a")], headers=JSON)
        assert results(replaced) == [("web", "configured", 2), ("a", "created", 1)]
