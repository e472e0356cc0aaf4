"""Do we meet ourselves? Real sockets; what the kernel would say of a redirected one is said here."""

from __future__ import annotations

import errno
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

import pytest
import trio

from sidecar.addresses import ClientAddr, OriginalDst
from sidecar.net import interception_monitor as module
from sidecar.net.interception_monitor import InterceptionMonitor
from tests.support.descriptors import no_descriptors
from tests.support.ports import held_port

FAST = 0.01


class Pod:
    """A listener that takes what comes to its port for redirected, and hands it to ``monitor`` while ``redirects``."""

    def __init__(self, listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
        self.host, self.port = listener.getsockname()[:2]
        self.addresses: Mapping[str, str] = {"ipv4": self.host}
        self.told: list[str] = []
        self.others: list[socket.socket] = []
        self.asked = 0
        self.redirects = True
        self.original = OriginalDst(self.host, self.port)
        self.drift = InterceptionMonitor(self.port, self.look_up, self.told.append)
        self._listener = listener
        monkeypatch.setattr(module, "original_dst", lambda _: self.original)
        monkeypatch.setattr(module, "PATIENCE", 1.0)

    def look_up(self) -> Mapping[str, str]:
        self.asked += 1
        return self.addresses

    async def accept(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._listener)
            try:
                sock, client = self._listener.accept()
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE):
                    raise
                await trio.sleep(FAST)  # as the proxy's own listener does
                continue
            if not self.redirects or not self.drift.meets(sock, ClientAddr(*client[:2])):
                self.others.append(sock)

    async def rounds(self, more: int) -> None:
        """Until there were so many more of them."""
        until = self.drift.rounds + more
        await until_true(lambda: self.drift.rounds >= until)


async def until_true(happened: Callable[[], bool]) -> None:
    while True:  # Drift tells nobody of a round that changes nothing
        if happened():
            return
        await trio.sleep(FAST)


@contextmanager
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        yield listener


@asynccontextmanager
async def watched(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pod]:
    with listening() as listener, trio.fail_after(60):
        pod = Pod(listener, monkeypatch)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(pod.accept)
                nursery.start_soon(pod.drift.run, FAST, FAST)
                yield pod
                nursery.cancel_scope.cancel()
        finally:
            for sock in pod.others:
                sock.close()


def test_before_the_first_look_nobody_knows() -> None:
    assert "not known yet" in InterceptionMonitor(15005, dict, print).words


async def test_it_meets_itself_and_serves_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    async with watched(monkeypatch) as pod:
        await pod.drift.looked.wait()
        assert pod.drift.in_force == {"ipv4": True}
        assert not pod.drift.words and not pod.told and not pod.others


async def test_rules_that_lead_elsewhere_are_told_once_and_so_is_their_return(monkeypatch: pytest.MonkeyPatch) -> None:
    async with watched(monkeypatch) as pod:
        await pod.rounds(1)
        pod.redirects = False
        await pod.rounds(2)
        assert f"port {pod.port}" in pod.drift.words and "ipv4" in pod.drift.words
        await pod.rounds(1)
        assert pod.told == [pod.drift.words]
        pod.redirects = True
        await pod.rounds(2)
        assert not pod.drift.words
        assert len(pod.told) == 2 and "again" in pod.told[1]


@pytest.mark.parametrize("original", [None, OriginalDst("127.0.0.1", 1)])
async def test_a_connection_without_the_reserved_port_behind_it_is_not_ours(
    monkeypatch: pytest.MonkeyPatch, original: OriginalDst | None
) -> None:
    async with watched(monkeypatch) as pod:
        await pod.rounds(1)
        pod.original = original  # type: ignore[assignment]
        await pod.rounds(2)
        assert pod.drift.in_force == {"ipv4": False}
        assert pod.others


async def test_somebody_elses_connection_is_left_to_whoever_serves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with watched(monkeypatch) as pod:
        await pod.rounds(1)
        with socket.create_connection((pod.host, pod.port)):
            await pod.rounds(2)
            assert len(pod.others) == 1


async def test_nobody_listening_is_known_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 60.0)
    with held_port() as port, trio.fail_after(10):
        drift = InterceptionMonitor(port, lambda: {"ipv4": "127.0.0.1"}, lambda _: None)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drift.run, FAST, FAST)
            await drift.looked.wait()
            nursery.cancel_scope.cancel()
    assert drift.in_force == {"ipv4": False}


async def test_an_address_that_goes_is_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with watched(monkeypatch) as pod:
        await pod.rounds(1)
        pod.addresses = {"ipv4": pod.host, "ipv6": "2001:db8::1"}  # can't be bound here
        await pod.rounds(2)
        assert pod.drift.in_force == {"ipv4": True, "ipv6": False}
        pod.addresses = {}
        await pod.rounds(2)
        assert pod.drift.in_force == {} and not pod.drift.words


async def test_a_look_that_can_not_be_made_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when all descriptors are taken by connections: that says nothing of the rules, and must not end the proxy."""
    async with watched(monkeypatch) as pod:
        await pod.rounds(1)
        with no_descriptors():
            before = pod.asked
            await until_true(lambda: pod.asked >= before + 3)
        assert pod.drift.in_force == {"ipv4": True} and not pod.told
        await pod.rounds(2)
        assert pod.drift.in_force == {"ipv4": True}


async def test_addresses_that_can_not_be_asked_for_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with watched(monkeypatch) as pod:
        await pod.rounds(1)
        asked = trio.Event()

        def fails() -> Mapping[str, str]:
            asked.set()
            raise OSError(errno.EMFILE, "Too many open files")

        with monkeypatch.context() as patched:
            patched.setattr(pod.drift, "_addresses", fails)
            await asked.wait()
        await pod.rounds(2)
        assert pod.drift.in_force == {"ipv4": True} and not pod.told
