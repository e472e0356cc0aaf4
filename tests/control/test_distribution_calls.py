"""Snapshots, statuses and proxies as callers see them, over the doors of a control plane."""

from __future__ import annotations

import logging
from collections.abc import Generator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from certs import facts, pem
from certs.spiffe import SpiffeId, workload
from control.distribution import api
from sidecar.feed import state_dir
from sidecar.resources.incremental_compile import Compiled, compile_slices
from sidecar.resources.proxy_config import ProxyConfig
from sidecar.resources.snapshot import Node
from tests.control.documents import apply, service
from tests.control.plane import BILLING, ORDERS, SOCKET, Plane, Reply, csr, running


async def put(plane: Plane, name: str = "web", **spec: object) -> None:
    """A service with these fields, which is told to whoever asks by then."""
    body = {"ports": [{"port": 80}], "serviceAccounts": ["web"], "addresses": ["240.0.0.9"], **spec}
    member = await plane.control.rounds.member(workload("cluster.local", "shop", "somebody"))
    reply = await plane.ask("PUT", f"/v1/services/shop/{name}", plane.operator, body)
    assert reply.status in (200, 201), reply
    with trio.fail_after(30):
        while member.published.version.n < plane.control.documents.version:
            await member.published.changed.wait()


async def poll(plane: Plane, query: str = "", peer: SpiffeId = BILLING, **more: Any) -> Reply:
    with trio.fail_after(30):
        return await plane.ask("GET", f"/v1/snapshot?instance=one{query}", door=SOCKET, peer=peer, **more)


async def status(
    plane: Plane, version: str, accepted: bool, *problems: str, held: str = "", instance: str = "one"
) -> None:
    body = {"version": version, "accepted": accepted, "problems": problems, "held": held, "software": "0.1.0"}
    reply = await plane.ask("POST", f"/v1/snapshot/status?instance={instance}", body=body, door=SOCKET, peer=BILLING)
    assert reply.status == 204, reply


async def proxies(plane: Plane, query: str = "") -> list[dict[str, Any]]:
    reply = await plane.ask("GET", f"/v1/proxies{query}", plane.operator)
    assert reply.status == 200, reply
    found: list[dict[str, Any]] = reply.json["proxies"]
    return found


async def changed(plane: Plane, version: str, address: str) -> Reply:
    """Another version than that, made by another address of the service."""
    await put(plane, addresses=[address])
    return await poll(plane, f"&version={version}&wait=30s")


async def test_a_snapshot_is_for_who_asks_and_its_version_is_its_etag(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        await put(plane)
        reply = await poll(plane)
        mesh = msgspec.json.decode(reply.body, type=ProxyConfig)
        assert (reply.status, reply.headers["etag"]) == (200, f'"{mesh.version}"')
        assert (mesh.proxy, [each.name for each in mesh.services]) == (str(BILLING), ["web"])
        for same in (f"&version={mesh.version}", f"&version={mesh.version}&wait=50ms"):
            assert (await poll(plane, same)).status == 304
        assert (await poll(plane, headers={"if-none-match": f'"{mesh.version}"'})).status == 304
        assert (await poll(plane, headers={"if-none-match": f'W/"1.1", "{mesh.version}"'})).status == 304
        assert (await poll(plane, headers={"if-none-match": '"1.1", junk'})).status == 200


async def test_what_no_proxy_would_take_is_not_sent_and_the_operator_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert api.MOST_BYTES == state_dir.MOST
    async with running(tmp_path) as plane:
        await put(plane)
        whole = await poll(plane)
        monkeypatch.setattr(api, "MOST_BYTES", len(whole.body) - 1)
        for _ in range(3):
            reply = await poll(plane)
            assert (reply.status, reply.json["type"]) == (413, "urn:sidecar:problem:too-long")
        (told,) = (each.getMessage() for each in caplog.records if "nothing new reaches it" in each.getMessage())
        assert str(BILLING) in told and "Sidecar document" in told
        monkeypatch.setattr(api, "MOST_BYTES", len(whole.body))
        assert (await poll(plane)).body == whole.body


async def test_a_change_ends_the_wait_of_those_that_see_it(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        await put(plane)
        version = (await poll(plane)).json["version"]
        replies: list[Reply] = []

        async def wait() -> None:
            replies.append(await poll(plane, f"&version={version}&wait=30s"))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(wait)
            with trio.fail_after(30):
                while not plane.control.waiters.waiting:  # noqa: ASYNC110
                    await trio.sleep(0.01)
            await put(plane, addresses=["240.0.0.1"])
        assert replies[0].json["services"][0]["addresses"] == ["240.0.0.1"]


async def test_what_was_refused_is_offered_again_only_when_it_changes(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        await put(plane)
        good = (await poll(plane)).json["version"]
        await status(plane, good, True, held=good)
        bad = (await changed(plane, good, "240.0.0.1")).json["version"]
        await status(plane, bad, False, "services[0]: no", held=good)
        assert (await poll(plane, f"&version={good}&wait=50ms")).status == 304, "it was offered to a later poll"
        assert (await poll(plane, f"&version={bad}&wait=50ms")).status == 304
        (shown,) = await proxies(plane)
        assert (shown["state"], shown["held"], shown["offered"], shown["accepted"]) == ("refused", good, bad, False)
        assert shown["refused"]["version"] == bad and shown["refused"]["problems"] == ["services[0]: no"]
        assert shown["software"] == "0.1.0" and shown["instance"] == "one"

        again = (await changed(plane, bad, "240.0.0.2")).json["version"]
        await status(plane, again, True, held=again)
        (shown,) = await proxies(plane)
        assert (shown["state"], shown["held"], shown["accepted"]) == ("in sync", again, True)
        assert shown["refused"]["version"] == bad
        # Whoever has judged nothing yet gets what there is: a process that began anew.
        await status(plane, again, False, "out of memory", held="")
        assert (await poll(plane)).json["version"] == again


async def test_another_epoch_is_answered_at_once_with_ours(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        for version in ("1.1", "1.999999999", "99999999999999.1"):
            assert (await poll(plane, f"&version={version}&wait=30s")).status == 200


async def test_a_proxy_that_is_ahead_is_told_once_and_said_loudly_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as plane:
        await put(plane)
        ours = (await poll(plane)).json["version"]
        ahead = f"{ours.partition('.')[0]}.999999"
        caplog.set_level(logging.ERROR, "control.distribution.api")
        assert (await poll(plane, f"&version={ahead}&wait=30s")).json["version"] == ours
        assert (await poll(plane, f"&version={ahead}&wait=50ms")).status == 304, "it would ask again and again"
        assert (await changed(plane, ahead, "240.0.0.1")).json["version"] != ours
        assert [ahead in record.getMessage() for record in caplog.records] == [True]
        figures = (await plane.ask("GET", "/metrics")).body.decode()
        assert "sidecar_control_proxies_ahead_total 1.0" in figures


async def test_figures_tell_of_rounds_and_of_proxies(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        await put(plane)
        version = (await poll(plane)).json["version"]
        await status(plane, version, True, held=version)
        await changed(plane, version, "240.0.0.1")
        figures = (await plane.ask("GET", "/metrics")).body.decode()
        for line in (
            'sidecar_control_proxies{state="behind"} 1.0', "sidecar_control_snapshots_sent_total 2.0",
            "sidecar_control_publish_seconds_count 2.0",
        ):  # fmt: skip
            assert line in figures


async def test_proxies_are_shown_with_their_certificate_page_by_page(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        issued = await plane.ask("POST", "/v1/certificates", await plane.token(), csr())
        fingerprint = facts.digest_of(pem.from_pem(issued.json["chain"])[0]).hex()
        for number in range(3):
            path = f"/v1/snapshot?instance=i{number}"
            await plane.ask("GET", path, door=SOCKET, peer=BILLING, fingerprint=fingerprint)
        await plane.ask("GET", "/v1/snapshot", door=SOCKET, peer=ORDERS)
        everyone = await proxies(plane)
        assert [each["instance"] for each in everyone] == ["i0", "i1", "i2", ""]
        assert [each.get("certificateExpires") for each in everyone] == [issued.json["expires"]] * 3 + [None]
        assert all(each["lastSeen"] >= each["firstSeen"] and each["address"] for each in everyone)

        first = await plane.ask("GET", "/v1/proxies?limit=3", plane.operator)
        second = await plane.ask("GET", f"/v1/proxies?limit=3&continue={first.json['continue']}", plane.operator)
        assert first.json["proxies"] + second.json["proxies"] == everyone and "continue" not in second.json
        assert await proxies(plane, "?namespace=shop") == everyone and await proxies(plane, "?namespace=pay") == []
        plane.clock.ahead = 3601
        assert await proxies(plane) == []


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("&schema=2.0", "schema: this control plane speaks 1.4, and no 2"),
        ("&schema=one", "schema: "),
        ("&version=7", "version: "),
        ("&wait=soon", "wait: "),
        ("&instance=A_b", "instance: "),
    ],
)
async def test_a_question_that_is_none_is_told(tmp_path: Path, query: str, told: str) -> None:
    async with running(tmp_path) as plane:
        reply = await plane.ask("GET", f"/v1/snapshot?{query[1:]}", door=SOCKET, peer=BILLING)
        assert reply.status == 400 and reply.json["detail"].startswith(told)


@pytest.mark.parametrize(
    ("asked", "answered"), [("1.0", "1.0"), ("1.1", "1.1"), ("1.2", "1.2"), ("1.3", "1.3"), ("1.999", "1.4")]
)
async def test_the_answer_is_in_the_older_of_two_minors(tmp_path: Path, asked: str, answered: str) -> None:
    async with running(tmp_path) as plane:
        assert (await poll(plane, f"&schema={asked}")).json["schema"] == answered


@pytest.mark.parametrize(
    "body",
    [{}, {"version": "1.1"}, {"version": "", "accepted": True}, {"version": "x", "accepted": True},
     {"version": "1.1", "accepted": False, "problems": ["why"] * 21}, {"version": "1.1", "accepted": True, "more": 1}],
)  # fmt: skip
async def test_a_status_that_is_none_is_told(tmp_path: Path, body: object) -> None:
    async with running(tmp_path) as plane:
        reply = await plane.ask("POST", "/v1/snapshot/status", body=body, door=SOCKET, peer=BILLING)
        assert reply.status == 400 and await proxies(plane) == []


async def test_a_long_snapshot_goes_out_part_by_part_and_whole(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        found = [{"address": f"10.0.{number // 250}.{number % 250}", "port": 8080} for number in range(1000)]
        for number in range(10):
            await put(plane, f"s{number}", endpoints=found)
        reply = await poll(plane)
        assert int(reply.headers["content-length"]) == len(reply.body) > 256 * 1024
        assert sum(len(each.endpoints) for each in msgspec.json.decode(reply.body, type=ProxyConfig).services) == 10_000


def whole(steps: Generator[None, None, Compiled]) -> Compiled:
    while True:
        try:
            next(steps)
        except StopIteration as done:
            found: Compiled = done.value
            return found


async def test_a_policy_that_was_applied_is_in_the_snapshot_of_whom_it_selects(tmp_path: Path) -> None:
    """All the way: an operator's apply, the answer to the proxy, and what the proxy makes of it."""
    policy: dict[str, Any] = {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "viewer", "namespace": "shop"},
        "spec": {
            "selector": {"matchLabels": {"app": "billing"}},
            "rules": [{"from": [{"source": {"principals": ["cluster.local/ns/shop/sa/orders"]}}]}],
        },
    }
    labeled = service("billing")
    labeled["metadata"]["labels"] = {"app": "billing"}
    async with running(tmp_path) as plane:
        before = (await poll(plane)).json["version"]
        assert (await apply(plane, labeled, policy)).status == 200
        reply = await poll(plane, f"&schema=1.2&version={before}&wait=30s")
        assert reply.json["authorization"] == [
            {"name": "viewer", "namespace": "shop", "rules": policy["spec"]["rules"]}
        ]
        compiled = whole(compile_slices(reply.body, Node("shop", service_account="billing"), "control"))
        assert compiled.snapshot is not None
        assert [each.title for each in compiled.snapshot.policies] == ["shop/viewer"]
        assert "authorization" not in (await poll(plane, peer=ORDERS)).json
        wrong = {**policy, "spec": {"rules": [{"to": [{"operation": {"ports": ["web"], "paths": ["/{x}"]}}]}]}}
        refused = await apply(plane, wrong)
        assert refused.status == 422
        assert refused.body.count(b'"path":"spec.rules[0].to[0].operation') == 2
