"""RateLimitPolicies in a running sidecar: what is refused and what it is told, kept state, connections and bytes."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.process import SidecarProcess
from tests.support.raw import Client
from tests.support.upstream import RecordingUpstream, ok, send, wait_until

GET = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n"


def document(*limits: dict[str, Any], **spec: Any) -> str:
    """A policy as JSON, which is YAML, too."""
    named = [{"name": f"limit-{number}", **limit} for number, limit in enumerate(limits)]
    return json.dumps(
        {
            "apiVersion": "sidecar/v1",
            "kind": "RateLimitPolicy",
            "metadata": {"name": "few"},
            "spec": {"limits": named, **spec},
        }
    )


def write(file: Path, text: str) -> None:
    (file.parent / "new").write_text(text)
    (file.parent / "new").rename(file)


def statuses(port: int, *paths: str) -> list[int]:
    """Of requests for these paths on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    found = []
    for path in paths:
        connection.request("GET", path)
        reply = connection.getresponse()
        reply.read()
        found.append(reply.status)
    connection.close()
    return found


class Limited:
    """A sidecar under these limits, in front of an app that records what it gets."""

    def __init__(self, tmp_path: Path, text: str, *words: str, script: Any = None) -> None:
        self.file = tmp_path / "limits.yaml"
        write(self.file, text)
        self.app = RecordingUpstream({} if script is None else {"x": script})
        self._words = words

    def __enter__(self) -> Limited:
        self.app.__enter__()
        self.sidecar = SidecarProcess(self.app.port, "--config", str(self.file), *self._words).__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.sidecar.__exit__(*error)
        self.app.__exit__(*error)

    def statuses(self, count: int) -> list[int]:
        return statuses(self.sidecar.inbound, *["/"] * count)

    def rows(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.sidecar.admin_get("/limits")[1])
        return found


def fields_of(limited: Limited, request: bytes = GET) -> tuple[int, dict[bytes, bytes], bytes]:
    with Client(limited.sidecar.inbound) as client:
        client.send(request)
        (reply,) = client.replies((b"GET",), 1)
        return reply.status, {name.lower(): value for name, value in reply.fields}, reply.body


def test_a_refusal_says_when_to_come_again_and_the_app_sees_no_byte(tmp_path: Path) -> None:
    limit = {"key": ["source.ip"], "rate": {"requests": 3, "per": "1h"}}
    with Limited(tmp_path, document(limit, xRateLimitHeaders=True)) as limited:
        assert limited.statuses(5) == [200, 200, 200, 429, 429]
        assert len(limited.app.take().requests) == 3
        status, fields, body = fields_of(limited)
        assert (status, fields[b"content-type"]) == (429, b"application/problem+json")
        assert 1 <= int(fields[b"retry-after"]) <= 1200
        assert (fields[b"ratelimit-limit"], fields[b"ratelimit-remaining"]) == (b"3", b"0")
        assert int(fields[b"retry-after"]) <= int(fields[b"ratelimit-reset"]) <= 3600
        assert fields[b"x-ratelimit-limit"] == b"3"
        assert b"few" not in body  # a stranger does not learn the limit's name
        record = json.loads(limited.sidecar.admin_get("/requests?format=json&limit=1")[1])[0]
        assert (record["flag"], record["reason"], record["rule"]) == ("RL", "rate_limited", "default/few/limit-0")
        assert record["detail"] == "beyond limit limit-0 of RateLimitPolicy default/few"
        story = json.loads(limited.sidecar.admin_get(f"/explain/{record['request_id']}")[1])
        assert story["limits"] == [
            {"policy": "default/few", "limit": "limit-0", "left": pytest.approx(0, abs=0.1), "of": 3}
        ]
        (row,) = limited.rows()
        assert (row["admitted"], row["beyond"], row["mode"], row["buckets"]) == (3, 3, "ENFORCE", 1)
        (key,) = row["limited"]
        assert (key["key"], key["size"]) == ("127.0.0.1", 3)
        assert time.time() - 60 < key["since"] <= time.time()
        metrics = limited.sidecar.admin_get("/metrics")[1]
        series = 'sidecar_rate_limit_total{decision="refused",limit="limit-0",of="requests",policy="default/few"} 3'
        assert series in metrics


def test_a_connection_goes_on_after_a_refusal(tmp_path: Path) -> None:
    with Limited(tmp_path, document({"match": {"paths": ["/few"]}, "rate": {"requests": 1, "per": "1h"}})) as limited:
        assert statuses(limited.sidecar.inbound, "/few", "/few", "/", "/few") == [200, 429, 200, 429]


@pytest.mark.parametrize("algorithm", ["token-bucket", "sliding-window"])
def test_the_rate_holds_within_a_twentieth(tmp_path: Path, algorithm: str) -> None:
    """40 requests a second for five seconds, of a client that asks for all it can get."""
    limit = {"rate": {"requests": 40, "per": "1s"}, "algorithm": algorithm}
    with Limited(tmp_path, document(limit)) as limited:
        admitted, idle = 0, 0.0
        connection = http.client.HTTPConnection("127.0.0.1", limited.sidecar.inbound, timeout=30)
        last = began = time.monotonic()
        while last - began < 5.0:
            connection.request("GET", "/")
            reply = connection.getresponse()
            reply.read()
            admitted += reply.status == 200
            now = time.monotonic()
            idle += max(0.0, now - last - 1 / 40)  # a busy machine: nothing was asked for meanwhile
            last = now
        connection.close()
    rate, burst = 40 * (last - began), 40  # a window that was begun when the first request came admits as many at once
    least = rate + (burst if algorithm == "token-bucket" else 0)
    assert (least - 40 * idle) * 0.95 - 2 <= admitted <= (rate + burst) * 1.05 + 2


def test_a_new_configuration_keeps_what_has_not_changed(tmp_path: Path) -> None:
    kept, other = {"rate": {"requests": 2, "per": "1h"}}, {"rate": {"requests": 50, "per": "1h"}}
    with Limited(tmp_path, document(kept, other)) as limited:
        assert limited.statuses(3) == [200, 200, 429]
        write(limited.file, document(kept, {"rate": {"requests": 60, "per": "1h"}}))
        wait_until(lambda: [row["admitted"] for row in limited.rows()] == [2, 0], "the new limits")
        assert limited.statuses(1) == [429]
        write(limited.file, document({"rate": {"requests": 4, "per": "1h"}}))
        wait_until(lambda: len(limited.rows()) == 1, "the raised limit")
        assert limited.statuses(1) == [200]
        write(limited.file, document({"rate": {"requests": 0, "per": "1h"}}))  # wrong: the last good one stays
        wait_until(lambda: any("not a whole number from 1" in line for line in limited.sidecar.errors), "the refusal")
        assert limited.statuses(4) == [200, 200, 200, 429]


def test_a_limit_in_shadow_refuses_nothing_and_says_so(tmp_path: Path) -> None:
    with Limited(tmp_path, document({"rate": {"requests": 1, "per": "1h"}}, mode="SHADOW")) as limited:
        assert limited.statuses(3) == [200, 200, 200]
        assert [(row["admitted"], row["beyond"], row["mode"]) for row in limited.rows()] == [(1, 2, "SHADOW")]
        assert 'decision="shadowed"' in limited.sidecar.admin_get("/metrics")[1]


def test_a_would_be_request_is_charged_nothing(tmp_path: Path) -> None:
    with Limited(tmp_path, document({"key": ["source.ip"], "rate": {"requests": 1, "per": "1h"}})) as limited:

        def asked(address: str) -> dict[str, Any]:
            status, page = limited.sidecar.admin_get(f"/explain?path=/&ip={address}", "POST")
            assert status == 200, page
            found: dict[str, Any] = json.loads(page)
            return found

        for _ in range(3):
            told = asked("127.0.0.1")
            assert (told["allowed"], told["limits"][0]["left"]) == (True, 1.0)
        assert limited.statuses(1) == [200]
        told = asked("127.0.0.1")
        assert (told["allowed"], told["status"], told["decided_by"]) == (False, 429, "RateLimitPolicy")
        assert asked("192.0.2.9")["allowed"] is True


# -- outbound ----------------------------------------------------------------------------------------------------------


def test_what_the_app_asks_of_others_is_limited_by_host_through_the_explicit_proxy(tmp_path: Path) -> None:
    limit = {"match": {"hosts": ["127.0.0.1"]}, "rate": {"requests": 2, "per": "1h"}}
    with (
        RecordingUpstream() as partner,
        Limited(tmp_path, document(limit, direction="OUTBOUND")) as limited,
        Client(limited.sidecar.outbound) as client,
    ):
        names = ["127.0.0.1", "localhost", "127.0.0.1", "127.0.0.1"]
        urls = [f"http://{name}:{partner.port}/" for name in names]
        assert statuses(limited.sidecar.outbound, *urls) == [200, 200, 200, 429]
        client.send(b"GET %b HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % (urls[0].encode(), partner.port))
        (reply,) = client.replies((b"GET",), 1)
        assert b"RateLimitPolicy default/few" in reply.body  # the app learns which limit of its own it is
        with Client(limited.sidecar.outbound) as tunnel:
            tunnel.send(b"CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % (partner.port, partner.port))
            assert tunnel.replies((b"CONNECT",), 1)[0].status == 429
        assert limited.statuses(3) == [200, 200, 200]  # inbound is another direction


# -- connections and bytes ---------------------------------------------------------------------------------------------


def answered(port: int) -> bool:
    with Client(port) as client:
        client.send(GET)
        return bool(client.replies((b"GET",), 1))


def test_connections_beyond_the_maximum_are_reset_and_recorded(tmp_path: Path) -> None:
    with Limited(tmp_path, document({"key": ["source.ip"], "connections": {"max": 2}})) as limited:
        port = limited.sidecar.inbound
        with Client(port) as first, Client(port) as second:
            for client in (first, second):
                client.send(GET)
                assert client.replies((b"GET",), 1)[0].status == 200
            with Client(port) as third:
                third.send(GET)
                assert third.replies((b"GET",), 1) == []
            record = json.loads(limited.sidecar.admin_get("/requests?format=json&limit=1")[1])[0]
            assert (record["flag"], record["reason"], record["protocol"]) == ("RL", "rate_limited", "TCP")
            assert record["detail"].endswith("2 connections are open already")
            (row,) = limited.rows()
            assert [key["key"] for key in row["limited"]] == ["127.0.0.1"]
        wait_until(lambda: answered(port), "room after the end of one")
        (row,) = limited.rows()
        assert row["of"] == "connections"
        assert row["beyond"] >= 1


def test_connections_in_a_second_are_bounded(tmp_path: Path) -> None:
    with Limited(tmp_path, document({"connections": {"perSecond": 10}})) as limited:
        began = time.monotonic()
        admitted = sum(answered(limited.sidecar.inbound) for _ in range(60))
        elapsed = time.monotonic() - began
        assert 10 <= admitted <= 10 + 10 * elapsed + 1
        assert admitted < 60


def taken(port: int, size: int) -> float:
    """Seconds that a download of so many bytes took, from its first byte on."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.settimeout(30)
        sock.sendall(b"GET /script/x HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n")
        got = len(sock.recv(65_536))
        began = time.monotonic()
        while got < size:
            data = sock.recv(65_536)
            assert data
            got += len(data)
        return time.monotonic() - began


BODY = bytes(400_000)


@pytest.mark.parametrize("protocol", ["http", "tcp"])
def test_bytes_sent_are_slowed_down_and_none_is_lost(tmp_path: Path, protocol: str) -> None:
    limit = {"key": ["source.ip"], "bytesPerSecond": {"sent": 200_000}}
    with Limited(tmp_path, document(limit), "--protocol", protocol, script=(send(ok(BODY)),)) as limited:
        assert taken(limited.sidecar.inbound, len(BODY)) >= (len(BODY) - 65_536) / 200_000 * 0.9


@pytest.mark.parametrize("protocol", ["http", "tcp"])
def test_bytes_received_are_slowed_down_and_none_is_lost(tmp_path: Path, protocol: str) -> None:
    limit = {"bytesPerSecond": {"received": 200_000}}
    with Limited(tmp_path, document(limit), "--protocol", protocol) as limited:
        with Client(limited.sidecar.inbound) as client:
            began = time.monotonic()
            client.send(b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY)
            assert client.replies((b"POST",), 1)[0].status == 200
            assert time.monotonic() - began >= len(BODY) / 200_000 * 0.8
        (request,) = limited.app.take().requests
        assert request.body == BODY


def test_many_uploads_that_share_a_rate_all_arrive(tmp_path: Path) -> None:
    """Each gets less than --body-min-rate, since the proxy itself holds it back: that is no slow client."""
    limit = {"bytesPerSecond": {"received": 120_000}}
    flags = ("--body-min-rate", "40000/1s")
    with Limited(tmp_path, document(limit), *flags) as limited, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(limited.sidecar.inbound)) for _ in range(8)]
        part = BODY[:75_000]
        for client in clients:
            client.send(b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: %d\r\n\r\n" % len(part) + part)
        assert [client.replies((b"POST",), 1)[0].status for client in clients] == [200] * 8
        assert [len(each.body) for each in limited.app.take().requests] == [len(part)] * 8


def test_a_source_that_is_held_back_does_not_hold_up_another(tmp_path: Path) -> None:
    limit = {"match": {"sources": ["127.0.0.2"]}, "bytesPerSecond": {"sent": 4096}}
    with Limited(tmp_path, document(limit), script=(send(ok(BODY)),)) as limited, socket.socket() as slow:
        slow.bind(("127.0.0.2", 0))
        slow.connect(("127.0.0.1", limited.sidecar.inbound))
        slow.sendall(b"GET /script/x HTTP/1.1\r\nHost: app\r\n\r\n")
        assert slow.recv(100)
        began = time.monotonic()
        assert taken(limited.sidecar.inbound, len(BODY)) < 50  # 98 s at the rate of the other
        assert time.monotonic() - began < 50
        slow.settimeout(0.0)
        assert len(slow.recv(1 << 20, socket.MSG_PEEK)) < len(BODY) / 2


def test_http_inside_a_tunnel_is_limited_by_where_the_tunnel_leads(tmp_path: Path) -> None:
    limit = {"match": {"hosts": ["127.0.0.1"]}, "rate": {"requests": 3, "per": "1h"}}
    with (
        RecordingUpstream(strict=False) as partner,
        Limited(tmp_path, document(limit, direction="OUTBOUND")) as limited,
        socket.create_connection(("127.0.0.1", limited.sidecar.outbound), 30) as tunnel,
    ):
        there = b"127.0.0.1:%d" % partner.port
        tunnel.sendall(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (there, there))
        assert tunnel.recv(4096).startswith(b"HTTP/1.1 200 ")
        connection = http.client.HTTPConnection("other.example")
        connection.sock = tunnel
        found = []
        for _ in range(4):
            connection.request("GET", "/")
            reply = connection.getresponse()
            reply.read()
            found.append(reply.status)
        assert found == [200, 200, 429, 429]  # CONNECT is a request, too


def test_connections_of_a_key_are_counted_apart_from_its_rate(tmp_path: Path) -> None:
    """A key whose bucket made room still has the connections that it has."""
    limit = {"key": ["source.ip"], "connections": {"max": 1, "perSecond": 50}, "maxKeys": 1}
    with Limited(tmp_path, document(limit)) as limited, contextlib.ExitStack() as stack:

        def connected(source: str) -> bool:
            sock = stack.enter_context(socket.socket())
            sock.bind((source, 0))
            sock.connect(("127.0.0.1", limited.sidecar.inbound))
            try:
                sock.sendall(GET)
                return sock.recv(100).startswith(b"HTTP/1.1 200")
            except ConnectionError:
                return False

        assert connected("127.0.0.2")
        time.sleep(0.3)  # its bucket is full again
        assert connected("127.0.0.3")
        assert not connected("127.0.0.2")


def test_a_document_that_is_wrong_starts_nothing(tmp_path: Path) -> None:
    file = tmp_path / "limits.yaml"
    write(file, document({"rate": {"requests": 0, "per": "soon"}}))
    with SidecarProcess(1, "--config", str(file), wait_ready=False) as sidecar:
        assert sidecar.wait_exit() == 2
    assert [line.partition("limits[0].")[2] for line in sidecar.errors if "limits[0]." in line] == [
        "rate.requests: 0 is not a whole number from 1 to 1000000000",
    ]
