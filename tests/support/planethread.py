"""A control plane that a test holds in its hands (``tests.proxy.fickle``), in a thread: for proxies as processes."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import trio

from tests.proxy.fickle import Fickle, Reply, plane_at


class PlaneThread:
    """``do`` has something done where the plane runs. A context manager; ``flags`` are for a proxy that joins."""

    def __init__(self, ttl: float = 600.0) -> None:
        self._ttl = ttl
        self._directory = tempfile.TemporaryDirectory(prefix="plane-")
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: trio.run(self._run), daemon=True, name="plane")
        self.plane: Fickle

    def __enter__(self) -> PlaneThread:
        self._thread.start()
        assert self._started.wait(30)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.do(self._over.set)
        self._thread.join(30)
        self._directory.cleanup()

    async def _run(self) -> None:
        self._over = trio.Event()
        self._token = trio.lowlevel.current_trio_token()
        async with plane_at(Path(self._directory.name)) as self.plane:
            self.plane.ttl = self._ttl
            self._started.set()
            await self._over.wait()

    @property
    def flags(self) -> tuple[str, ...]:
        return (
            "--control", f"http://127.0.0.1:{self.plane.port}", "--token-file", str(self.plane.token_file),
            "--namespace", "shop", "--service-account", "billing",
        )  # fmt: skip

    def do(self, what: Callable[[], Any]) -> None:
        """Done when this returns."""
        trio.from_thread.run_sync(what, trio_token=self._token)

    def answer(self, wrong: Mapping[str, Callable[[bytes], Reply]]) -> None:
        """From now on this is what is answered, by path, also to those who wait."""

        def change() -> None:
            self.plane.wrong.update(wrong)
            self.plane.publish()

        self.do(change)

    def send(self, version: str, body: bytes) -> None:
        """From now on this is the caller's Snapshot."""

        def change() -> None:
            self.plane.mesh_version, self.plane.mesh = version, body
            self.plane.publish()

        self.do(change)
