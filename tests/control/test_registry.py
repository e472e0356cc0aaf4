"""The registry as sidecars and people call it, on loopback with tokens and by real handshakes with certificates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from certs.spiffe import SpiffeId, parse
from control import rate_limits
from tests.control.overtls import ask, enrol, front
from tests.control.plane import BILLING, ORDERS, SOCKET, Clock, Plane, Reply, running

SERVICE = "/v1/services/shop/billing"
ENDPOINT = f"{SERVICE}/endpoints/one"
DIRECT = {"mode": "direct", "port": 15006}


async def define(plane: Plane, path: str = SERVICE, **more: Any) -> None:
    spec = {"ports": [{"port": 80, "name": "http"}], "serviceAccounts": ["billing"], **more}
    made = await plane.ask("PUT", path, plane.operator, spec)
    assert made.status in (200, 201), made


async def shown(plane: Plane, path: str = SERVICE) -> Any:
    found = await plane.ask("GET", path, plane.operator)
    assert found.status == 200, found
    return found.json


async def virtual_of(plane: Plane) -> list[str]:
    """The service's virtual addresses, which come a moment after its document."""
    with trio.fail_after(30):
        while not (found := (await shown(plane))["virtualAddresses"]):
            await trio.testing.wait_all_tasks_blocked(0.01)
    return list(found)


async def figure(plane: Plane, name: str) -> float:
    lines = (await plane.ask("GET", "/metrics")).body.decode().splitlines()
    (found,) = (line for line in lines if line.startswith(f"{name} "))
    return float(found.split()[1])


# -- on loopback -----------------------------------------------------------------------------------------------------


async def test_a_sidecar_registers_is_heard_and_goes(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        await define(plane, labels={"app": "billing"})
        token = await plane.token()
        made = await plane.ask("PUT", ENDPOINT, token, {**DIRECT, "labels": {"version": "v2"}, "healthy": True})
        assert (made.status, made.json) == (200, {"address": "127.0.0.1", "addresses": ["127.0.0.1"], "ttl": "15s"})
        beat = await plane.ask(
            "POST", f"{ENDPOINT}/heartbeat", token, {"healthy": False, "detail": "tcp: connection refused"}
        )
        assert (beat.status, beat.body) == (204, b"")
        await virtual_of(plane)
        service = await shown(plane)
        assert service["ports"] == [{"port": 80, "name": "http"}]
        assert service["serviceAccounts"] == ["billing"]
        assert service["labels"] == {"app": "billing"}
        assert service["virtualAddresses"][0].startswith("240.240.")
        assert service["virtualAddresses"][1].startswith("2001:2::")
        (endpoint,) = service["endpoints"]
        assert {key: endpoint[key] for key in ("id", "identity", "address", "port", "mode", "health", "detail")} == {
            "id": "one", "identity": str(BILLING), "address": "127.0.0.1", "port": 15006, "mode": "direct",
            "health": "unhealthy", "detail": "tcp: connection refused",
        }  # fmt: skip
        assert endpoint["labels"] == {"version": "v2"}
        assert endpoint["lastHeard"].endswith("Z")
        assert endpoint["since"] >= endpoint["registered"]
        assert "stale" not in endpoint
        assert await figure(plane, 'sidecar_control_endpoints{state="unhealthy"}') == 1
        gone = await plane.ask("DELETE", ENDPOINT, token)
        assert (gone.status, gone.body) == (204, b"")
        assert (await shown(plane))["endpoints"] == []


async def test_who_is_revoked_serves_nobody_any_more(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        await define(plane)
        token = await plane.token()
        assert (await plane.ask("PUT", ENDPOINT, token, DIRECT)).status == 200
        revoked = await plane.ask("POST", "/v1/revocations", plane.operator, {"spiffeId": str(BILLING)})
        assert revoked.status == 201
        with trio.fail_after(30):
            while (await shown(plane))["endpoints"]:  # noqa: ASYNC110  # what is shown tells nobody
                await trio.sleep(0.01)
        lifted = await plane.ask("DELETE", f"/v1/revocations/{revoked.json['id']}", plane.operator)
        assert lifted.status == 204
        assert (await plane.ask("PUT", ENDPOINT, await plane.token(), DIRECT)).status == 200
        assert len((await shown(plane))["endpoints"]) == 1


async def test_registrations_are_audited_and_heartbeats_counted(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        await define(plane)
        token = await plane.token()
        await plane.ask("PUT", ENDPOINT, token, DIRECT)
        for _ in range(3):
            await plane.ask("POST", f"{ENDPOINT}/heartbeat", token)
        other = await plane.token(ORDERS)
        await plane.ask("PUT", ENDPOINT, other, DIRECT)
        await plane.ask("DELETE", ENDPOINT, token)
        lines = [(line["what"], line["verdict"], line.get("subject", "")) for line in plane.audit()]
        assert [line for line in lines if line[0].startswith("endpoints.")] == [
            ("endpoints.put", "granted", f"shop/billing/one at 127.0.0.1 of {BILLING}"),
            ("endpoints.put", "refused", ""),
            ("endpoints.delete", "granted", f"shop/billing/one of {BILLING}"),
        ]
        calls = 'sidecar_control_calls_total{call="endpoints.%s",verdict="%s"}'
        assert await figure(plane, calls % ("heartbeat", "granted")) == 3
        assert await figure(plane, calls % ("put", "refused")) == 1


async def test_who_may_not_serve_is_refused_and_told_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        await define(plane)
        await plane.ask("PUT", ENDPOINT, await plane.token(), DIRECT)
        refused: list[Reply] = []
        for identity in (ORDERS, parse("spiffe://cluster.local/ns/bank/sa/x")):
            token = await plane.token(identity)
            refused.append(await plane.ask("PUT", ENDPOINT, token, DIRECT))
            refused.append(await plane.ask("POST", f"{ENDPOINT}/heartbeat", token, {"healthy": False}))
            refused.append(await plane.ask("DELETE", ENDPOINT, token))
        assert {reply.status for reply in refused} == {403}
        for reply in refused:
            assert set(reply.json) == {"type", "title", "status", "request_id"}
        (endpoint,) = (await shown(plane))["endpoints"]
        assert (endpoint["identity"], endpoint["health"]) == (str(BILLING), "unknown")
        reasons = {line.get("reason") for line in plane.audit() if line["status"] == 403}
        assert reasons == {"may not serve shop/billing"}


async def test_what_another_identity_or_process_registered_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        await define(plane, subjectAltNames=[str(ORDERS)])
        billing, orders = await plane.token(), await plane.token(ORDERS)
        assert (await plane.ask("PUT", ENDPOINT, billing, {**DIRECT, "process": "p1"})).status == 200
        for token, process in ((orders, "p1"), (billing, "p2"), (billing, "")):
            beat = await plane.ask("POST", f"{ENDPOINT}/heartbeat", token, {"healthy": False, "process": process})
            assert (beat.status, beat.json["type"].rpartition(":")[2]) == (404, "not-registered")
            assert (await plane.ask("DELETE", f"{ENDPOINT}?process={process}", token)).status == 204
        (endpoint,) = (await shown(plane))["endpoints"]
        assert (endpoint["identity"], endpoint["health"]) == (str(BILLING), "unknown")
        assert (await plane.ask("PUT", ENDPOINT, orders, {**DIRECT, "port": 15007, "process": "p1"})).status == 200
        other = {**DIRECT, "port": 15008, "process": "p2"}
        assert (await plane.ask("PUT", ENDPOINT, billing, other)).status == 200
        found = (await shown(plane))["endpoints"]
        assert sorted((each["id"], each["port"]) for each in found) == [("one", 15006), ("one", 15007), ("one", 15008)]
        assert (await plane.ask("DELETE", f"{ENDPOINT}?process=p1", billing)).status == 204
        assert sorted(each["port"] for each in (await shown(plane))["endpoints"]) == [15007, 15008]
        for wrong in ("a" * 65, "%20"):
            assert (await plane.ask("DELETE", f"{ENDPOINT}?process={wrong}", billing)).status == 400


@pytest.mark.parametrize(
    ("path", "body", "status", "detail"),
    [
        ("/v1/services/shop/nobody/endpoints/one", DIRECT, 404, "there is no service 'nobody' in namespace 'shop'"),
        (f"{SERVICE}/endpoints/One", DIRECT, 400, "the endpoint's id"),
        (f"{SERVICE}/endpoints/%0a", DIRECT, 400, "the endpoint's id"),
        (ENDPOINT, {"mode": "direct"}, 400, "at which port its sidecar listens"),
        (ENDPOINT, {"ports": {"grpc": 9}}, 400, "is not the name of a port"),
        (ENDPOINT, {**DIRECT, "port": 0}, 400, "$.port"),
        (ENDPOINT, {**DIRECT, "weight": 3}, 400, "unknown field"),
        (ENDPOINT, {**DIRECT, "ttl": "1s"}, 400, "ttl: 1s is not from 3s to 5m"),
        (ENDPOINT, {**DIRECT, "address": "0.0.0.0"}, 400, "address: 0.0.0.0 is nobody's address"),
        (ENDPOINT, {**DIRECT, "address": "10.1.2.3"}, 403, "no token of this workload allows it"),
        (ENDPOINT, b"[]", 400, "the body is not what this call takes"),
        (ENDPOINT, b"", 400, "the body is not what this call takes"),
    ],
)
async def test_a_workload_is_told_what_is_wrong_with_its_request(
    tmp_path: Path, path: str, body: Any, status: int, detail: str
) -> None:
    async with running(tmp_path) as plane:
        await define(plane)
        reply = await plane.ask("PUT", path, await plane.token(), body)
        assert reply.status == status, reply
        assert detail in reply.json["detail"]
        assert (await shown(plane))["endpoints"] == []


async def test_a_heartbeat_of_what_is_not_there_asks_for_a_registration(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        await define(plane)
        reply = await plane.ask("POST", f"{ENDPOINT}/heartbeat", await plane.token(), {"healthy": True})
        assert reply.status == 404
        assert reply.json["type"].endswith("not-registered")
        long = await plane.ask("PUT", ENDPOINT, await plane.token(), b" " * (rate_limits.ENDPOINT_BODY_BYTES + 1))
        assert long.status == 413


async def test_a_token_may_say_where_its_workload_is(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        await define(plane)
        await plane.token(addresses=["10.1.0.0/16", "fd00::/8"])
        plain = await plane.token()  # any token of the workload will do
        for address, status in (("10.1.2.3", 200), ("fd00:0::7", 200), ("10.2.0.1", 403), ("127.0.0.5", 200)):
            reply = await plane.ask("PUT", ENDPOINT, plain, {**DIRECT, "address": address})
            assert reply.status == status, (address, reply)
        tokens = (await plane.ask("GET", "/v1/tokens", plane.operator)).json["tokens"]
        assert [token.get("addresses", []) for token in tokens if token["role"] == "workload"] == [
            ["10.1.0.0/16", "fd00::/8"],
            [],
        ]


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({"role": "reader", "addresses": ["10.0.0.0/8"]}, "has no addresses"),
        ({"role": "operator", "addresses": ["10.0.0.0/8"]}, "has no addresses"),
        ({"namespace": "shop", "serviceAccount": "billing", "addresses": ["10.0.0.1/8"]}, "addresses: "),
        ({"namespace": "shop", "serviceAccount": "billing", "addresses": ["none"]}, "addresses: "),
        ({"namespace": "shop", "serviceAccount": "billing", "addresses": "10.0.0.0/8"}, "$.addresses"),
    ],
)
async def test_only_a_workloads_token_has_networks_and_they_are_networks(
    tmp_path: Path, body: Any, detail: str
) -> None:
    async with running(tmp_path) as plane:
        reply = await plane.ask("POST", "/v1/tokens", plane.operator, body)
        assert reply.status == 400
        assert detail in reply.json["detail"]


async def test_services_come_page_by_page_with_what_their_documents_say(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        names = [f"s{number}" for number in range(7)]
        for name in names:
            await define(plane, f"/v1/services/shop/{name}")
        await define(plane, "/v1/services/bank/vault", addresses=["10.9.9.9"], endpoints=[{"address": "10.9.0.1"}])
        reader = (await plane.ask("POST", "/v1/tokens", plane.operator, {"role": "reader"})).json["token"]
        seen, path = [], "/v1/services?limit=3"
        while path:
            page = (await plane.ask("GET", path, reader)).json
            assert len(page["items"]) <= 3
            seen += [(item["namespace"], item["name"]) for item in page["items"]]
            more = page.get("continue")
            path = f"/v1/services?limit=3&continue={more}" if more else ""
        assert seen == [("bank", "vault"), *(("shop", name) for name in names)]
        (vault,) = (await plane.ask("GET", "/v1/services?namespace=bank", reader)).json["items"]
        assert (vault["addresses"], vault["virtualAddresses"]) == (["10.9.9.9"], [])
        assert vault["endpoints"] == [{"address": "10.9.0.1", "mode": "captured", "health": "unknown"}]
        for wrong in ("limit=0", "limit=x", "continue=x"):
            assert (await plane.ask("GET", f"/v1/services?{wrong}", reader)).status == 400
        assert (await plane.ask("GET", "/v1/services/shop/nobody", reader)).status == 404


async def test_two_hundred_replicas_with_one_token_are_no_crowd_and_one_that_floods_is_told_to_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as plane:
        await define(plane)
        token = await plane.token()
        statuses: list[int] = []

        async def replica(number: int) -> None:
            path = f"{SERVICE}/endpoints/r{number}"
            statuses.append((await plane.ask("PUT", path, token, {"mode": "direct", "port": 1024 + number})).status)
            statuses.append((await plane.ask("POST", f"{path}/heartbeat", token)).status)

        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(replica, number)
        assert sorted(set(statuses)) == [200, 204]
        assert len((await shown(plane))["endpoints"]) == 200
        now = plane.clock()
        monkeypatch.setattr(Clock, "__call__", lambda self: now)
        flood = [(await plane.ask("POST", f"{SERVICE}/endpoints/r0/heartbeat", token)).status for _ in range(220)]
        assert flood.count(429) >= 20
        assert (await plane.ask("POST", f"{SERVICE}/endpoints/r1/heartbeat", token)).status == 204


async def test_a_crowd_stands_in_line_and_the_line_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "CROWD", 1)
    monkeypatch.setattr(rate_limits, "LINE", 1)
    async with running(tmp_path) as plane:
        await define(plane)
        await virtual_of(plane)
        token = await plane.token()
        real, writing, go_on = plane.control.store.write, trio.Event(), trio.Event()

        async def slow(changes: Any) -> int:
            writing.set()
            await go_on.wait()
            return await real(changes)

        monkeypatch.setattr(plane.control.store, "write", slow)
        replies: list[Reply] = []

        async def register(number: int) -> None:
            replies.append(await plane.ask("PUT", f"{SERVICE}/endpoints/r{number}", token, DIRECT))

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(register, 0)
                await writing.wait()
                nursery.start_soon(register, 1)
                nursery.start_soon(register, 2)
                while not replies:
                    await trio.testing.wait_all_tasks_blocked(0.01)
                go_on.set()
        assert [reply.status for reply in replies] == [503, 200, 200]
        assert int(replies[0].headers["retry-after"]) >= 1


# -- by real handshakes ----------------------------------------------------------------------------------------------


async def test_over_tls_the_certificate_says_who_and_the_connection_says_where(tmp_path: Path) -> None:
    async with front(tmp_path) as plane:
        await define(plane)
        papers = await enrol(plane, tmp_path)
        lie = {"x-forwarded-for": "10.6.6.6", "x-forwarded-client-cert": f"URI={ORDERS}"}
        made = await ask(plane, "PUT", ENDPOINT, DIRECT, papers=papers, headers=lie)
        assert (made.status, made.json) == (200, {"address": "127.0.0.1", "addresses": ["127.0.0.1"], "ttl": "15s"})
        (endpoint,) = (await shown(plane))["endpoints"]
        assert (endpoint["identity"], endpoint["address"]) == (str(BILLING), "127.0.0.1")
        orders = await enrol(plane, tmp_path, ORDERS)
        for method, path in (("PUT", ENDPOINT), ("POST", f"{ENDPOINT}/heartbeat"), ("DELETE", ENDPOINT)):
            body = None if method == "DELETE" else {} if method == "POST" else DIRECT
            assert (await ask(plane, method, path, body, papers=orders)).status == 403
        assert (await ask(plane, "POST", f"{ENDPOINT}/heartbeat", {}, papers=papers)).status == 204
        assert (await ask(plane, "DELETE", ENDPOINT, papers=papers)).status == 204


async def test_who_comes_from_another_machine_is_registered_there(tmp_path: Path) -> None:
    """As our own inbound tells it, which is what is believed on the socket."""
    async with running(tmp_path) as plane:
        await define(plane)

        async def put(identity: SpiffeId, peer: str, **told: Any) -> Reply:
            headers = {"x-forwarded-for": f"6.6.6.6, {peer}"}
            return await plane.ask("PUT", ENDPOINT, "", told, door=SOCKET, peer=identity, headers=headers)

        assert (await put(BILLING, "10.0.0.7")).json["address"] == "10.0.0.7"
        assert (await put(BILLING, "2001:db8::7")).json["address"] == "2001:db8::7"
        assert "loopback" in (await put(BILLING, "10.0.0.7", address="127.0.0.1")).json["detail"]
        assert (await put(BILLING, "10.0.0.7", address="10.0.0.8")).status == 403
        assert (await put(ORDERS, "10.0.0.7")).status == 403
