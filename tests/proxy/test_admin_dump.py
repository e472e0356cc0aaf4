"""What the process says of itself: /server_info, /listeners, /clusters, /config_dump, /certs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sidecar.addresses import Address
from sidecar.admin.context import Listening
from sidecar.errors import ProxyError, Reason
from sidecar.net.connection import Connection
from sidecar.net.connection_pool import Limits, Pool
from sidecar.option_table import OPTIONS
from sidecar.settings import in_force
from sidecar.telemetry.metrics import Counters
from sidecar.upstream.pool_stats import PoolsShown
from sidecar.upstream.pool_stats import shown as together
from tests.proxy.adminport import Port, get, port

GIVEN = in_force({"upstream": "127.0.0.1:8080", "max_waiting": "7"}, {"SIDECAR_IDLE_TIMEOUT": "5m"})


async def shown(admin: Port, path: str) -> Any:
    reply = await admin.ask(get(path))
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    return json.loads(reply.body)


async def test_server_info_names_each_flag_and_where_it_came_from() -> None:
    async with port(in_force=GIVEN) as admin:
        info = await shown(admin, "/server_info")
        assert (info["version"], info["state"]) == (admin.context.version, "LIVE")
        admin.process.state = "draining"
        assert (await shown(admin, "/server_info"))["state"] == "DRAINING"
    assert info["uptime_seconds"] > 0
    assert set(info["flags"]) == {option.flag for option in OPTIONS}
    assert info["flags"]["--upstream"] == {"value": "127.0.0.1:8080", "source": "flag"}
    assert info["flags"]["--idle-timeout"] == {"value": "5m", "source": "environment"}
    assert info["flags"]["--connect-timeout"] == {"value": "5s", "source": "default"}


async def test_listeners_as_text_and_json() -> None:
    async with port() as admin:
        admin.process.listeners.append(Listening("admin", Address("127.0.0.1", 15000)))
        assert (await admin.ask(get("/listeners"))).body == b"inbound::[::]:15006\nadmin::127.0.0.1:15000\n"
        found = await shown(admin, "/listeners?format=json")
    assert found[0] == {"name": "inbound", "host": "::", "port": 15006, "accepting": True}


async def no_server(seconds: float) -> Connection:
    raise ProxyError(Reason.CONNECT_FAILED, "127.0.0.1:8080: connection refused")


def limits_of(most: int) -> Limits:
    return Limits(most, 0, 1.0, 55.0)


def shown_of(one: Pool) -> PoolsShown:
    return together([one], limits_of(one.limit))


def pool(limit: int) -> Pool:
    return Pool(no_server, limits_of(limit), Counters())


async def test_clusters_tell_what_is_open_and_what_failed_last() -> None:
    pools = {"outbound|b:80": pool(1), "inbound|http|a:80": pool(8)}
    pools["outbound|b:80"].open = 1  # all that it may have
    for each in pools.values():
        with pytest.raises(ProxyError):
            await each.acquire()
    async with port(clusters=lambda: {name: shown_of(each) for name, each in pools.items()}) as admin:
        app, other = await shown(admin, "/clusters?format=json")
        text = (await admin.ask(get("/clusters"))).body.decode()
    assert (app["name"], app["open"], app["max_connections"]) == ("inbound|http|a:80", 0, 8)
    assert (app["failures"], app["last_failure"]) == (1, "connect_failed: 127.0.0.1:8080: connection refused")
    assert 0 <= app["last_failure_seconds_ago"] < 10
    assert (other["open"], other["waiting"], other["max_waiting"], other["wait_seconds"]) == (1, 0, 0, 1.0)
    assert other["last_failure"] == "pool_full: 0 requests wait for a connection already"
    assert "outbound|b:80::max_connections::1\n" in text
    assert "inbound|http|a:80::last_failure::connect_failed: 127.0.0.1:8080: connection refused\n" in text


async def test_a_cluster_that_never_failed_says_so() -> None:
    async with port(clusters=lambda: {"outbound|b:80": shown_of(pool(1))}) as admin:
        assert b"outbound|b:80::last_failure::-\n" in (await admin.ask(get("/clusters"))).body
        (cluster,) = await shown(admin, "/clusters?format=json")
    assert cluster["last_failure"] is cluster["last_failure_seconds_ago"] is None


async def test_config_dump_has_settings_listeners_timeouts_and_limits() -> None:
    async with port(in_force=GIVEN) as admin:
        dump = await shown(admin, "/config_dump")
    assert dump["settings"]["--upstream"] == "127.0.0.1:8080"
    assert dump["timeouts"] == {
        "--request-head-timeout": "10s",
        "--idle-timeout": "5m",
        "--stream-idle-timeout": "5m",
        "--connect-timeout": "5s",
        "--pool-idle-timeout": "55s",
    }
    assert (dump["limits"]["--max-waiting"], dump["limits"]["--max-app-connections"]) == ("7", "1024")
    assert dump["listeners"]["configured"]["--inbound"] == "15006"
    assert dump["listeners"]["bound"][0]["port"] == 15006
    everywhere = {**dump["settings"], **dump["listeners"]["configured"]}
    assert set(everywhere) == {option.flag for option in OPTIONS}


async def test_a_flag_whose_bytes_are_no_text_is_shown_all_the_same() -> None:
    async with port(in_force=in_force({"access_log_file": "/var/log/\udcff"}, {})) as admin:
        flags = (await shown(admin, "/server_info"))["flags"]
    assert flags["--access-log-file"]["value"] == "/var/log/\udcff"


async def test_there_are_no_certificates_so_far() -> None:
    async with port() as admin:
        assert await shown(admin, "/certs") == {"certificates": []}
