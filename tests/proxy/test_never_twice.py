"""A POST never reaches an app twice, unless the operator says that it may."""

from __future__ import annotations

import trio

from sidecar.policy.retry import compile_retry
from sidecar.resources.virtual_service import HTTPRetry
from tests.proxy.never_twice import never_twice, post


def test_a_post_never_reaches_an_app_twice() -> None:
    print(never_twice(10_000))


async def test_the_load_would_show_it() -> None:
    """On a route whose requests may be repeated, the same load reaches apps twice."""
    named = compile_retry(HTTPRetry(3, retry_on="5xx", backoff="1ms"), repeatable=True)
    with trio.fail_after(60):
        reached, _, _ = await post(300, named)
    assert sum(times > 1 for times in reached.values()) > 50
