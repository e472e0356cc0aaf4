"""A body that is sent again is the same to the last byte, however it came and whatever ended the attempt before; and
clients that leave at any moment leave nothing in progress."""

from __future__ import annotations

import hashlib
from collections import Counter
from itertools import pairwise
from random import Random

import trio

from sidecar.policy.retry import compile_retry
from sidecar.resources.virtual_service import HTTPRetry
from tests.proxy.routed import App, Routed, field, reset_at_close, status

KEEN = compile_retry(HTTPRetry(3, retry_on="5xx,connect-failure,reset", backoff="4ms"))
PER_TRY, TOTAL = 0.1, 0.5
CLIENTS, REQUESTS = 12, 40
KILLED_BY = (
    "answer",
    "answer",
    "answer",
    "503",
    "503 at once",
    "503 in the body",
    "reset",
    "reset in the body",
    "hang",
)


class Digester(App):
    """An app that reads bodies of both framings, and answers with their digests, unless it fails."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.chance = Random(seed)
        self.stages: Counter[str] = Counter()

    async def _connected(self, stream: trio.SocketStream) -> None:
        try:
            while await self._one(stream):
                pass
        except (trio.BrokenResourceError, EOFError):
            return
        finally:
            stream.socket.close()

    async def _one(self, stream: trio.SocketStream) -> bool:
        data = b""
        while b"\r\n\r\n" not in data:
            data += await _more(stream)
        head, _, data = data.partition(b"\r\n\r\n")
        stage = self.chance.choice(KILLED_BY)
        self.stages[stage] += 1
        if stage == "503 at once":
            await stream.send_all(status(503))
            return False
        if field(head, b"expect"):
            await stream.send_all(b"HTTP/1.1 100 Continue\r\n\r\n")
        if "in the body" in stage:
            if not data:
                await _more(stream)
            if stage.startswith("reset"):
                reset_at_close(stream)
            else:
                await stream.send_all(status(503))
            return False
        if field(head, b"transfer-encoding"):
            body = b""
            while True:
                while b"\r\n" not in data:
                    data += await _more(stream)
                line, _, data = data.partition(b"\r\n")
                size = int(line, 16)
                while len(data) < size + 2 and size:
                    data += await _more(stream)
                if not size:
                    break
                body, data = body + data[:size], data[size + 2 :]
            while b"\r\n" not in data or (data[:2] != b"\r\n" and b"\r\n\r\n" not in data):
                data += await _more(stream)
        else:
            size = int(field(head, b"content-length") or 0)
            while len(data) < size:
                data += await _more(stream)
            body = data[:size]
        if stage == "reset":
            reset_at_close(stream)
            return False
        if stage == "hang":
            await trio.sleep(3 * PER_TRY)
            return False
        if stage == "503":
            await stream.send_all(status(503))
            return False
        digest = hashlib.sha256(body).hexdigest().encode()
        await stream.send_all(b"HTTP/1.1 103 Early\r\n\r\n" + status(200, body=b"%d %b" % (len(body), digest)))
        return True


async def _more(stream: trio.SocketStream) -> bytes:
    data = await stream.receive_some(65_536)
    if not data:
        raise EOFError
    return bytes(data)


async def _put(proxy: Routed, chance: Random, seen: Counter[str]) -> None:
    """Send one PUT, in pieces, and hold the answer against it; or leave at some moment."""
    body = chance.randbytes(chance.choice((1, 10, 3000, 60_000, 65_000, 150_000)))
    chunked, expects, leaves = chance.random() < 0.5, chance.random() < 0.2, chance.random() < 0.2
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
    head = [b"PUT /x HTTP/1.1", b"Host: web", b"Connection: close", framing]
    head += [b"Expect: 100-continue"] if expects else []
    stream = await trio.open_tcp_stream("127.0.0.1", proxy.port)
    reply = b""
    with trio.move_on_after(0.12 * chance.random() if leaves else 10) as scope:
        try:
            await stream.send_all(b"\r\n".join(head) + b"\r\n\r\n")
            if expects:
                reply += await stream.receive_some(65_536)
            if not expects or reply.startswith(b"HTTP/1.1 100"):
                pieces = sorted({0, len(body), *(chance.randrange(len(body)) for _ in range(chance.randrange(4)))})
                for one, other in pairwise(pieces):
                    piece = body[one:other]
                    await stream.send_all(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                    await trio.sleep(0.004 * chance.random())
                if chunked:
                    await stream.send_all(b"0\r\nX-Trailer: 1\r\n\r\n")
        except trio.BrokenResourceError:
            pass  # an early answer ends the connection
        try:
            async for data in stream:
                reply += data
        except trio.BrokenResourceError:
            pass
    await trio.aclose_forcefully(stream)
    if scope.cancelled_caught:
        assert leaves, "the request hung"
        seen["left"] += 1
        return
    final = [part for part in reply.split(b"HTTP/1.1 ") if part and not part.startswith(b"1")]
    assert len(final) <= 1, "two replies"
    code = final[0][:3].decode() if final else "none"
    seen[code] += 1
    if code == "200":
        digest = hashlib.sha256(body).hexdigest().encode()
        assert final[0].endswith(b"%d %b" % (len(body), digest)), "the app got another body"


async def test_a_body_that_is_sent_again_is_the_same() -> None:
    apps = [Digester(number) for number in range(3)]
    proxy = Routed(apps, KEEN, per_try=PER_TRY, total=TOTAL)
    seen: Counter[str] = Counter()

    async def client(number: int) -> None:
        chance = Random(number)
        for _ in range(REQUESTS):
            await _put(proxy, chance, seen)

    with trio.fail_after(120):
        async with proxy.running(), trio.open_nursery() as nursery:  # nothing is left in progress behind it
            for number in range(CLIENTS):
                nursery.start_soon(client, number)
    assert sum(seen.values()) == CLIENTS * REQUESTS
    assert {"200", "503", "left"} <= set(seen), seen
    retried = [record for record in proxy.records if record.attempts > 1 and record.status == 200]
    assert len(retried) > 20
    for record in proxy.records:
        assert len(record.all_tries) == record.attempts or not record.attempts, record
    assert all(app.stages.keys() == set(KILLED_BY) for app in apps)
