"""/stats: the numbers of /metrics as lines for people, and a filter that nobody can make slow."""

from __future__ import annotations

import json
import re
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.admin.stats import LONGEST_FILTER, compile_filter
from sidecar.errors import Reason
from sidecar.telemetry.record import Record
from tests.proxy.adminport import Port, get, port


def serve_one(admin: Port) -> None:
    record = Record("inbound", "HTTP/1.1", "10.0.0.9:1", 1.0, 1.0)
    record.status, record.duration, record.reason = 503, 0.01, Reason.CONNECT_FAILED
    admin.process.telemetry.finish(record)


async def lines(admin: Port, query: str) -> list[str]:
    reply = await admin.ask(get(f"/stats{query}"))
    assert (reply.status, reply.headers["content-type"]) == (200, "text/plain; charset=utf-8"), reply.body
    return reply.body.decode().splitlines()


async def test_each_number_is_a_line() -> None:
    async with port() as admin:
        serve_one(admin)
        found = await lines(admin, "")
    assert "sidecar_pool_hits_total: 0" in found
    assert 'sidecar_errors_total{direction="inbound",reason="connect_failed"}: 1' in found
    (requests,) = [line for line in found if line.startswith("istio_requests_total")]
    assert 'response_code="503"' in requests
    assert 'response_flags="UF"' in requests
    assert requests.endswith("}: 1")
    assert '="unknown"' not in "".join(found)
    assert all(re.fullmatch(r"[a-z_]+(\{[a-z_]+=.*\})?: -?[0-9.e+-]+", line) for line in found), found
    assert not [line for line in found if "_bucket" in line]


async def test_usedonly_leaves_zeros_out_and_buckets_puts_buckets_in() -> None:
    async with port() as admin:
        serve_one(admin)
        used = await lines(admin, "?usedonly")
        assert used
        assert not [line for line in used if line.endswith(": 0")]
        assert [line for line in await lines(admin, "?buckets") if "_bucket{" in line and 'le="+Inf"' in line]


async def test_as_json() -> None:
    async with port() as admin:
        serve_one(admin)
        reply = await admin.ask(get("/stats?format=json&filter=^sidecar_errors.*inbound.*connect_failed"))
        assert reply.headers["content-type"] == "application/json"
        assert json.loads(reply.body) == {
            "stats": [{"name": 'sidecar_errors_total{direction="inbound",reason="connect_failed"}', "value": 1}]
        }


async def test_a_filter_is_for_names_with_their_labels() -> None:
    async with port() as admin:
        serve_one(admin)
        assert await lines(admin, "?filter=inbound.*connect_failed") == [
            'sidecar_errors_total{direction="inbound",reason="connect_failed"}: 1'
        ]
        pools = await lines(admin, "?filter=^sidecar_pool.*_total$")
        assert len(pools) > 2
        assert all(line.startswith("sidecar_pool_") for line in pools)
        assert await lines(admin, "?filter=nothing_like_it") == []


@pytest.mark.parametrize(
    "query", ["?filter=a%2B", "?filter=(a)", "?filter=[a]", "?filter=a*", "?filter=%5Cd", "?filter=a%3F", "?nothing=1"]
)
async def test_what_is_not_understood_is_refused(query: str) -> None:
    async with port() as admin:
        assert (await admin.ask(get(f"/stats{query}"))).status == 400


pieces = st.text("ab_", max_size=3)
filters = st.builds(
    lambda start, middle, end: start + ".*".join(middle) + end,
    st.sampled_from(["", "^"]),
    st.lists(pieces, min_size=1, max_size=4),
    st.sampled_from(["", "$"]),
)


@given(st.lists(filters, min_size=1, max_size=3).map("|".join), st.text("ab_", max_size=12))
def test_it_means_what_a_regular_expression_means(text: str, name: str) -> None:
    matches = compile_filter(text)
    for tried in (name, name[::-1], name):
        assert matches(tried) == (re.search(text, tried) is not None)


@pytest.mark.parametrize("text", [".*a" * 85, "a|" * 127, "^" + ".*" * 100 + "b$"])
def test_no_filter_is_slow(text: str) -> None:
    """A line of 100,000 bytes that a backtracking search would not be done with in a lifetime."""
    assert len(text) <= LONGEST_FILTER
    matches = compile_filter(text.strip("|"))
    began = perf_counter()
    matches("a" * 100_000)
    assert perf_counter() - began < 10


def test_a_filter_has_a_length() -> None:
    with pytest.raises(ValueError, match="256"):
        compile_filter("a" * 257)
