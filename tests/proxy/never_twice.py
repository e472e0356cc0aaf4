"""A load of POSTs for apps that kill their connections at every stage of an exchange: does a POST ever reach an app
twice?

Each request has an id. An app counts an id when the first bytes come, before it fails. Called by ``test_never_twice``.
"""

from __future__ import annotations

import socket
from collections import Counter
from contextlib import suppress
from random import Random

import trio

from sidecar.policy.retry import DEFAULT, RetryPolicy, compile_retry
from sidecar.resources.virtual_service import HTTPRetry
from tests.proxy.routed import OK, App, Routed, reset_at_close, status, until

CLIENTS = 24
BODY = b"x" * 3000
PER_TRY = 0.1
# What an app does with a connection or a request; each is drawn equally often but the slow ones.
STAGES = (
    "reset unread", "reset in the head", "close in the head", "reset in the body", "close in the body",
    "reset for an answer", "close for an answer", "reset in the answer's head", "close in the answer's head",
    "reset in the answer's body", "answer and reset", "answer and close", "503", "503 and reset", "409", "hang",
    "answer", "answer", "answer",
)  # fmt: skip
KEEN = compile_retry(HTTPRetry(3, retry_on="5xx,gateway-error,reset,retriable-4xx,connect-failure", backoff="1ms"))
POLICIES = (DEFAULT, KEEN)


class Killer(App):
    """An app that fails each request at a stage that is drawn. ``reached`` counts the ids that came."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.reached: Counter[bytes] = Counter()
        self.stages: Counter[str] = Counter()
        self._chance = Random(seed)

    async def _connected(self, stream: trio.SocketStream) -> None:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while await self._one(stream):
                pass
        except trio.BrokenResourceError:
            return
        finally:
            stream.socket.close()

    async def _one(self, stream: trio.SocketStream) -> bool:
        """Take one request; return whether the next one may follow."""
        stage = self._chance.choice(STAGES)
        self.stages[stage] += 1
        if stage.startswith("reset"):
            reset_at_close(stream)
        if stage == "reset unread":  # what the kernel has by now is dropped with the connection
            await trio.sleep(0.002 * self._chance.random())
            with suppress(BlockingIOError), socket.fromfd(stream.socket.fileno(), socket.AF_INET, 1) as same:
                self._count(same.recv(200, socket.MSG_DONTWAIT | socket.MSG_PEEK))
            return False
        data = await stream.receive_some(200)
        if not data:
            return False
        self._count(data)
        if "in the head" in stage:
            return False
        if "in the body" not in stage:
            while len(data.partition(b"\r\n\r\n")[2]) < len(BODY):
                more = await stream.receive_some(65_536)
                if not more:
                    return False
                data += more
        elif self._chance.random() < 0.5:
            await stream.receive_some(1000)
        if "answer's head" in stage:
            await stream.send_all(OK[:20])
            return False
        if "answer's body" in stage:
            await stream.send_all(OK[:-1])
            return False
        if "for an answer" in stage or "in the body" in stage:
            return False
        if stage == "hang":
            await trio.sleep(3 * PER_TRY)
            return False
        await stream.send_all(status(int(stage[:3])) if stage[:3].isdigit() else OK)
        if stage.endswith("and reset"):
            reset_at_close(stream)
        return " and " not in stage

    def _count(self, data: bytes) -> None:
        if data:
            self.reached[data.partition(b"X-Id: ")[2][:8]] += 1


async def post(count: int, retry: RetryPolicy, *, seed: int = 1) -> tuple[Counter[bytes], Counter[str], Counter[int]]:
    """Send so many POSTs, over keep-alive connections as long as these last. Return how often each id reached an app,
    how often each stage came about, and the statuses of the replies."""
    apps = [Killer(seed + number) for number in range(3)]
    proxy = Routed(apps, retry, per_try=PER_TRY)
    proxy.cluster.set_budget(None)
    statuses: Counter[int] = Counter()
    ids = iter(range(count))

    async def client() -> None:
        stream: trio.SocketStream | None = None
        for number in ids:
            if stream is None:
                stream = await trio.open_tcp_stream("127.0.0.1", proxy.port)
            head = b"POST / HTTP/1.1\r\nX-Id: %08d\r\nHost: web\r\nContent-Length: %d\r\n\r\n" % (number, len(BODY))
            code, closes = 0, True
            try:
                await stream.send_all(head + BODY)
                code, closes = await _reply(stream)
            except trio.BrokenResourceError:
                pass
            statuses[code] += 1
            if closes:
                await stream.aclose()
                stream = None
        if stream is not None:
            await stream.aclose()

    async with proxy.running():
        async with trio.open_nursery() as nursery:
            for _ in range(CLIENTS):
                nursery.start_soon(client)
        await until(lambda: sum(statuses.values()) == count)
    reached: Counter[bytes] = Counter()
    stages: Counter[str] = Counter()
    for app in apps:
        reached += app.reached
        stages += app.stages
    return reached, stages, statuses


async def _reply(stream: trio.SocketStream) -> tuple[int, bool]:
    """Return the status of a reply, and whether the connection ends with it."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = await stream.receive_some(65_536)
        if not more:
            return 0, True
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    lower = head.lower()
    size = int(lower.partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
    while len(body) < size:
        more = await stream.receive_some(65_536)
        if not more:
            return int(head[9:12]), True
        body += more
    return int(head[9:12]), b"connection: close" in lower


def never_twice(count: int) -> str:
    """Send so many POSTs, half of them by each policy; return what was seen. Raises AssertionError."""
    words = []
    for retry in POLICIES:
        reached, stages, statuses = trio.run(_bounded, count // len(POLICIES), retry)
        twice = [name for name, times in reached.items() if times > 1]
        assert b"" not in reached and all(len(name) == 8 for name in reached)
        assert not twice, f"reached an app twice: {twice[:5]}, of {len(twice)}"
        assert set(stages) == set(STAGES), f"did not come about: {set(STAGES) - set(stages)}"
        assert sum(statuses.values()) == count // len(POLICIES)
        assert {200, 503, 504} <= set(statuses), statuses
        words.append(f"{dict(sorted(statuses.items()))}")
    return f"{count} POSTs, connections killed at {len(set(STAGES))} stages: none reached an app twice; {words}"


async def _bounded(count: int, retry: RetryPolicy) -> tuple[Counter[bytes], Counter[str], Counter[int]]:
    with trio.fail_after(30 + count / 20):
        return await post(count, retry)
