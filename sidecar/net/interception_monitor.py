"""Checks that the rules are in force. Reading them needs a capability, so the proxy dials itself through them.

Called by ``app`` with --interception redirect. It runs ``InterceptionMonitor.run`` and calls
``InterceptionMonitor.meets`` for each connection that the outbound listener accepts.

Theory of operation. The rules redirect a reserved port of the pod's own addresses to the outbound listener, for every
process that dials it. So every 10 s, in each family that has an address, the monitor dials that port, and the listener
has to accept a connection whose peer is the very socket that dialed. That connection is matched and closed first: it
takes no client's slot, and nothing serves it. If it does not arrive, the rules are gone or changed. One miss may be due
to an address that is just being added or removed, so a miss counts only if a second try, a moment later, misses as
well. At most SECONDS, twice PATIENCE and AGAIN pass before a change is known, 15 s in all, and 11 s if the dial is
refused. A check that can't be made, for lack of a descriptor, has no result: the last one stays.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections.abc import Callable, Mapping

import trio

from sidecar.addresses import ClientAddr
from sidecar.net.original_dst import original_dst

SECONDS = 10.0
AGAIN = 1.0
PATIENCE = 2.0  # for a connection on this machine, even if many others wait to be accepted before it
_BIND_ADDRESS_NO_PORT = 24  # IP_BIND_ADDRESS_NO_PORT, which the socket module does not name
_GONE = {errno.EADDRNOTAVAIL, errno.EINVAL}  # the address was removed since it was looked up
_log = logging.getLogger(__name__)


class InterceptionMonitor:
    """The monitor of one pod. ``port`` is the reserved one; ``addresses`` returns one address for each family, by the
    family's name; ``told`` is called with a sentence at each change for the worse or the better."""

    def __init__(self, port: int, addresses: Callable[[], Mapping[str, str]], told: Callable[[str], None]) -> None:
        self._port = port
        self._addresses = addresses
        self._told = told
        self._awaited: dict[tuple[str, int], trio.Event] = {}
        self.in_force: dict[str, bool] = {}  # by family; a family that was not tried yet is missing
        self.rounds = 0
        self.looked = trio.Event()  # the first round is over

    @property
    def words(self) -> str:
        """The problem, in a sentence; empty if the rules are in force."""
        missing = [family for family, met in self.in_force.items() if not met]
        if missing:
            return (
                f"a connection to port {self._port} of this pod's own address is not redirected here "
                f"({', '.join(missing)}): the table of rules is gone or changed; run sidecar-init"
            )
        return "" if self.rounds else "whether the rules are there is not known yet"

    def meets(self, sock: socket.socket, client: ClientAddr) -> bool:
        """Return whether this accepted connection is the monitor's own check. If so, close it."""
        met = self._awaited.get((client.host, client.port)) if self._awaited else None
        if met is None:
            return False
        original = original_dst(sock)
        if original is None or original.port != self._port:
            return False
        sock.close()
        met.set()
        return True

    async def run(self, again: float = AGAIN, every: float = SECONDS) -> None:
        """Check the rules again and again, until it is cancelled."""
        while True:
            try:
                await self._round(again)
            except OSError as error:
                _log.debug("interception: could not check the rules this time: %s", error)
                await trio.sleep(again)
            else:
                await trio.sleep(every)

    async def _round(self, again: float) -> None:
        addresses = self._addresses()
        missed = [family for family, address in addresses.items() if not await self._look(address)]
        if missed:
            await trio.sleep(again)
            addresses = self._addresses()
            missed = [family for family in missed if family in addresses and not await self._look(addresses[family])]
        self._conclude({family: family not in missed for family in addresses})

    def _conclude(self, found: dict[str, bool]) -> None:
        before, self.in_force = self.words if self.rounds else "", found
        self.rounds += 1
        self.looked.set()
        if self.words and self.words != before:
            self._told(self.words)
        elif before and not self.words:
            self._told("connections are redirected here again")

    async def _look(self, address: str) -> bool:
        """Dial, and return whether the listener accepted the connection. Raises OSError if it can't dial at all.

        The kernel chooses the port at connect, where ports in use to other destinations don't count: an app with many
        connections may leave none that could be bound. The listener can't accept the connection before its port is
        noted, since nothing waits in between.
        """
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
            sock.setsockopt(socket.SOL_IP, _BIND_ADDRESS_NO_PORT, 1)
            try:
                sock.bind((address, 0))
            except OSError as error:
                if error.errno in _GONE:
                    return False
                raise
            if sock.connect_ex((address, self._port)) not in (0, errno.EINPROGRESS):
                return False
            key = sock.getsockname()[:2]
            met = self._awaited[key] = trio.Event()
            try:
                with trio.move_on_after(PATIENCE):
                    await trio.lowlevel.wait_writable(sock)
                    if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                        await met.wait()
            finally:
                del self._awaited[key]
        return met.is_set()
