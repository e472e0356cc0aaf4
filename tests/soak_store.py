"""``sidecar-control`` killed while callers write: what was acknowledged is there, and nothing is half done.

Who calls it: ``tests.soak``; ``tests/control/test_store_crash.py`` in short. The callers make tokens, take some of them
away, revoke serial numbers, and apply two documents at a time that say the same. At a random instant (seeded) the
process is killed and started again on what it left; then it is asked.
"""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

from tests.support.control_process import ControlProcess

LONGEST = 0.6  # seconds until the kill


class Books:
    """What callers were told."""

    def __init__(self) -> None:
        self.tokens: set[str] = set()
        self.gone: set[str] = set()
        self.revoked: set[str] = set()
        self.turn = 0  # of the documents
        self._lock = threading.Lock()
        self.writes = 0

    def count(self) -> None:
        """One more was acknowledged."""
        with self._lock:
            self.writes += 1


class Caller:
    """One connection, which works until the control plane is gone."""

    def __init__(self, control: ControlProcess) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", control.port, timeout=30)
        token = (control.directory / "ca" / "operator-token").read_text().strip()
        self._headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """A call that is granted; the answer. OSError or HTTPException where nobody answers, or not to the end."""
        self._connection.request(method, path, None if body is None else json.dumps(body), self._headers)
        reply = self._connection.getresponse()
        data = reply.read()
        if reply.status == 429:
            time.sleep(0.05)
            return self.ask(method, path, body)
        assert reply.status < 300, (method, path, reply.status, data)
        return json.loads(data) if data else None

    def until_it_is_gone(self, work: Callable[[], None]) -> None:
        """Again and again."""
        with self, suppress(OSError, http.client.HTTPException):
            while True:
                work()

    def __enter__(self) -> Caller:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()


Work = Callable[[Caller, Books, random.Random], None]


def _tokens(caller: Caller, books: Books, chance: random.Random) -> None:
    wanted = {"role": "workload", "namespace": "shop", "serviceAccount": "web", "ttl": "1h"}
    made = caller.ask("POST", "/v1/tokens", wanted)["id"]
    books.tokens.add(made)
    books.count()
    if chance.random() < 0.7:
        books.tokens.discard(made)  # in between it may be there or not
        caller.ask("DELETE", f"/v1/tokens/{made}")
        books.gone.add(made)
        books.count()


def _revocations(caller: Caller, books: Books, chance: random.Random) -> None:
    serial = f"{chance.getrandbits(100) | 1:x}"
    caller.ask("POST", "/v1/revocations", {"serial": serial})
    books.revoked.add(serial)
    books.count()


def _documents(caller: Caller, books: Books, chance: random.Random) -> None:
    turn = max(books.turn, int(caller.ask("GET", f"{_PAIR}/first")["document"]["metadata"]["labels"]["turn"])) + 1
    caller.ask("POST", "/v1/resources:apply", pair(turn))
    books.turn = turn
    books.count()


_PAIR = "/v1/resources/Service/shop"


def pair(turn: int) -> list[object]:
    """Two documents that say the same."""
    return [
        {
            "apiVersion": "sidecar/v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": "shop", "labels": {"turn": str(turn)}},
            "spec": {"ports": [{"port": 80, "name": "http"}], "serviceAccounts": [name]},
        }
        for name in ("first", "second")
    ]


def _compare(caller: Caller, books: Books) -> None:
    held = {token["id"] for token in _all(caller, "/v1/tokens", "tokens")}
    assert books.tokens <= held, f"tokens that were made are gone: {books.tokens - held}"
    assert not books.gone & held, f"tokens that were made void are good: {books.gone & held}"
    revoked = {entry["serial"] for entry in _all(caller, "/v1/revocations", "revocations")}
    assert books.revoked <= revoked, f"revocations are gone: {books.revoked - revoked}"
    first, second = (caller.ask("GET", f"{_PAIR}/{name}") for name in ("first", "second"))
    turns = [each["document"]["metadata"]["labels"]["turn"] for each in (first, second)]
    assert turns[0] == turns[1], f"an apply is half done: {turns}"
    assert first["generation"] == second["generation"] and books.turn <= int(turns[0]) <= books.turn + 1
    books.turn = int(turns[0])


def _all(caller: Caller, path: str, name: str) -> list[Any]:
    found: list[Any] = []
    more = ""
    while True:
        page = caller.ask("GET", path + (f"?continue={more}" if more else ""))
        found += page.get(name) or page.get("items") or []
        more = page.get("continue", "")
        if not more:
            return found


_WORKS = (_tokens, _tokens, _revocations, _revocations, _documents)


def _working(control: ControlProcess, work: Work, books: Books, seed: float) -> threading.Thread:
    caller, chance = Caller(control), random.Random(seed)
    thread = threading.Thread(target=caller.until_it_is_gone, args=(lambda: work(caller, books, chance),))
    thread.start()
    return thread


def kills(times: int, seed: int = 1) -> str:
    """So many; returns what was seen. Raises AssertionError."""
    chance, books = random.Random(seed), Books()
    with ControlProcess(86400.0) as control:
        with Caller(control) as caller:
            caller.ask("POST", "/v1/resources:apply", pair(0))
        for _ in range(times):
            threads = [_working(control, work, books, chance.random()) for work in _WORKS]
            time.sleep(chance.uniform(0.0, LONGEST))  # the instant is what is tried
            control.kill()
            for one in threads:
                one.join(60)
                assert not one.is_alive(), "a caller waits for ever"
            control.start()
            with Caller(control) as caller:
                _compare(caller, books)
    return f"{times} kills under {books.writes} acknowledged writes: none lost, none half done"
