"""What one caller, or whoever is no caller, can cost: bounded, and told apart in the log."""

from __future__ import annotations

from contextlib import AsyncExitStack, suppress
from pathlib import Path

import h11
import pytest
import trio

from certs.keys import new_key
from certs.spiffe import SpiffeId
from control import app, rate_limits
from control.api_trust import PEER
from tests.control.plane import BILLING, ORDERS, PLAIN, SOCKET, csr, exchange, running


async def test_a_workload_that_asks_too_often_is_told_to_wait_and_others_are_not(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        plane.clock.stop()
        statuses = []
        for _ in range(rate_limits.CERTIFICATES.burst + 20):
            reply = await plane.ask("POST", "/v1/certificates", body=csr(), door=SOCKET, peer=BILLING)
            statuses.append(reply.status)
            if reply.status == 429:
                break
        assert statuses[-1] == 429 and set(statuses[:-1]) == {201}
        assert int(reply.headers["retry-after"]) >= 1
        assert len(statuses) == rate_limits.CERTIFICATES.burst + 1
        other = await plane.ask("POST", "/v1/certificates", body=csr(ORDERS), door=SOCKET, peer=ORDERS)
        assert other.status == 201
        assert plane.audit()[-2]["reason"] == "asks too often"


async def test_whoever_is_refused_too_often_waits_and_no_longer_fills_the_log(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        replies = [await plane.ask("GET", "/v1/bundle", "sct1.x") for _ in range(rate_limits.REFUSALS.burst + 30)]
        late = [reply for reply in replies if reply.status == 429]
        assert late and {reply.status for reply in replies} == {401, 429}
        assert len({reply.told for reply in late}) == 1 and "retry-after" in late[0].headers
        # A caller that is known comes through from the same address, and its line says how much was not written.
        assert (await plane.ask("POST", "/v1/tokens", plane.operator, {"role": "reader"})).status == 201
        refused = [line for line in plane.audit() if line["verdict"] == "refused"]
        assert len(refused) + plane.audit()[-1].get("unwritten", 0) <= len(replies)
        assert sum(line.get("unwritten", 0) for line in plane.audit()) + len(refused) == len(replies)


@pytest.mark.parametrize("length", [rate_limits.BODY_BYTES + 1, 10**12])
async def test_a_body_that_is_too_long_is_refused_before_it_is_read(tmp_path: Path, length: int) -> None:
    async with running(tmp_path) as plane:
        with trio.fail_after(10):
            reply = await plane.ask("POST", "/v1/tokens", plane.operator, b" " * (rate_limits.BODY_BYTES + 1))
        assert reply.status == 413
        head = f"POST /v1/tokens HTTP/1.1\r\nhost: c\r\ncontent-length: {length}\r\n\r\n"
        async with await plane.connect() as stream:
            await stream.send_all(head.encode())
            with trio.fail_after(10):
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 401 "), "who comes first, then what"


async def test_a_body_that_does_not_come_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "BODY_SECONDS", 0.2)
    async with running(tmp_path) as plane:
        async with await plane.connect() as stream:
            head = f"POST /v1/tokens HTTP/1.1\r\nhost: c\r\nauthorization: Bearer {plane.operator}\r\n"
            await stream.send_all(head.encode() + b"content-length: 10\r\n\r\n{")
            with trio.fail_after(10):
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 408 ")


async def test_a_head_that_is_too_long_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        async with await plane.connect() as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nx: " + b"a" * 40_000)
            with trio.fail_after(10):
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("door", [PLAIN, SOCKET])
@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /healthz HTTP/1.1\r\nhost: c\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\n"
        b"http2-settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: c\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    ],
    ids=["h2c", "websocket", "the preface of HTTP/2"],
)
async def test_a_connection_never_changes_its_protocol(tmp_path: Path, door: str, request_bytes: bytes) -> None:
    """Behind a proxy that stops reading requests once it has seen 101, anyone could write identity headers."""
    async with running(tmp_path) as plane:
        async with await plane.connect(door) as stream:
            await stream.send_all(request_bytes)
            with trio.fail_after(10):
                answer = bytes(await stream.receive_some())
        assert answer.startswith(b"HTTP/1.1 ") and not answer.startswith(b"HTTP/1.1 101"), answer


async def test_identity_headers_count_on_the_socket_alone_on_a_connection_that_is_kept(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        element = f'By={plane.control.control_id};Hash={"0" * 64};Subject="";URI={BILLING}'
        for door, expected in ((PLAIN, 401), (SOCKET, 200)):
            async with await plane.connect(door) as stream:
                for name in ("x-forwarded-client-cert", "X-Forwarded-Client-Cert"):
                    fields = [("host", "c"), (name, element)]
                    assert (await exchange(stream, "GET", "/v1/bundle", fields)).status == expected
                twin = [("host", "c"), ("x_forwarded_client_cert", element)]
                assert (await exchange(stream, "GET", "/v1/bundle", twin)).status == 401
        assert PEER not in str(plane.seen)


async def test_replicas_of_one_identity_do_not_stand_in_each_others_way(tmp_path: Path) -> None:
    """Each certificate may ask as often as anybody; all of them together have a bound of their own."""
    async with running(tmp_path) as plane:
        plane.clock.stop()

        async def ask(replica: int) -> int:
            reply = await plane.ask("GET", "/v1/bundle", door=SOCKET, peer=BILLING, fingerprint=f"{replica:064x}")
            return reply.status

        first = [await ask(1) for _ in range(rate_limits.CALLS.burst + 1)]
        assert first == [200] * rate_limits.CALLS.burst + [429]
        assert [await ask(replica) for replica in range(2, 20)] == [200] * 18


async def test_nobody_has_all_of_the_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends bodies slowly holds its own share, and others are served."""
    monkeypatch.setattr(rate_limits, "OF_ONE_CALLER", 3)
    async with running(tmp_path) as plane:
        reader = (await plane.ask("POST", "/v1/tokens", plane.operator, {"role": "reader"})).json["token"]
        head = f"POST /v1/tokens HTTP/1.1\r\nhost: c\r\nauthorization: Bearer {plane.operator}\r\n"
        head += "content-length: 10\r\n\r\n{"
        streams = []
        for _ in range(3):
            streams.append(await plane.connect())
            await streams[-1].send_all(head.encode())
        with trio.fail_after(30):
            while (await plane.ask("GET", "/v1/tokens", plane.operator)).status != 503:
                pass  # the three are on their way in
            refused = await plane.ask("GET", "/v1/tokens", plane.operator)
            assert refused.status == 503 and refused.headers["retry-after"] == "1"
            assert (await plane.ask("GET", "/v1/bundle", reader)).status == 200
            for stream in streams:
                await stream.aclose()
            while (await plane.ask("GET", "/v1/tokens", plane.operator)).status != 200:
                pass  # and on their way out


async def test_long_bodies_wait_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limits, "BODY_SECONDS", 0.2)
    async with running(tmp_path) as plane:
        path = "/v1/resources:check"
        head = (
            f"POST {path} HTTP/1.1\r\nhost: c\r\nauthorization: Bearer {plane.operator}\r\ncontent-length: 10\r\n\r\n"
        )
        streams = []
        for _ in range(rate_limits.LONG):
            streams.append(await plane.connect())
            await streams[-1].send_all(head.encode())
        with trio.fail_after(30):
            while (await plane.ask("POST", path, plane.operator, b"{}")).status != 503:
                pass
            for stream in streams:
                await stream.aclose()
            while (await plane.ask("POST", path, plane.operator, b"{}")).status != 200:
                pass


async def test_one_identity_has_so_many_good_certificates_and_others_have_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("control.certificate_authority.MOST_CERTIFICATES", 3)
    async with running(tmp_path) as plane:
        token = await plane.token()

        async def asked(token: str, identity: SpiffeId = BILLING) -> int:
            reply = await plane.ask("POST", "/v1/certificates", token, csr(identity, new_key()))
            return reply.status

        assert [await asked(token) for _ in range(4)] == [201, 201, 201, 429]
        assert await asked(await plane.token(ORDERS), ORDERS) == 201
        assert plane.audit()[-3]["reason"] == f"{BILLING} has 3 good certificates"
        plane.clock.ahead = 25 * 3600  # all of them have ended
        assert await asked(await plane.token()) == 201


@pytest.mark.parametrize("sent", [b"", b"GET /heal", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"])
async def test_a_connection_whose_client_is_gone_takes_no_room(tmp_path: Path, sent: bytes) -> None:
    """Whoever only looks whether the port is open, every second, would fill all of it."""
    async with running(tmp_path) as plane:
        for _ in range(10):
            async with await plane.connect() as stream:
                if sent:
                    await stream.send_all(sent)
                if sent.endswith(b"\r\n\r\n"):
                    assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
        with trio.fail_after(30):
            while b"sidecar_control_connections 1.0\n" not in (await plane.ask("GET", "/metrics")).body:
                await trio.lowlevel.checkpoint()


async def test_whoever_fills_the_port_on_loopback_keeps_no_sidecar_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody on this machine can connect there, without a token."""
    monkeypatch.setattr(app, "most_on_loopback", lambda descriptors: 3)
    async with running(tmp_path) as plane, AsyncExitStack() as stack:
        idle = [await stack.enter_async_context(await plane.connect()) for _ in range(5)]
        with trio.fail_after(30):
            gone = [each for each in idle[3:] if not await each.receive_some()]
        assert len(gone) == 2
        assert (await plane.ask("GET", "/healthz", door=SOCKET)).status == 200
        await idle[0].aclose()
        with trio.fail_after(30):
            while True:
                with suppress(trio.BrokenResourceError, h11.RemoteProtocolError):
                    assert (await plane.ask("GET", "/healthz")).status == 200
                    break
