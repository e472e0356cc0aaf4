"""Are the rules still there? They can't be read without a capability, so the proxy dials itself through them.

Called by ``app`` with --interception redirect. It runs ``InterceptionMonitor.run`` and asks
``InterceptionMonitor.meets`` of each connection that the outbound listener accepts.

Theory of operation. The rules lead a reserved port of the pod's own addresses to the outbound listener, whoever dials
it. So every 10 s, in each family that has an address to dial, we dial it, and the listener has to accept a connection
whose peer is the very socket that dialed. It is matched before anything else is done with it and closed: it takes no
place of a client's, and is served nothing. Where nobody meets us, the rules are gone or changed. One miss may be an
address that is just being given or taken away, so it counts only when a second try, a moment later, misses as well:
at most SECONDS, twice PATIENCE and AGAIN pass before it is known, 15 s in all, and 11 s where the dial is refused. A
look that can't be made, for want of a descriptor, says nothing of the rules: what was known stays.
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
PATIENCE = 2.0  # for a connection on this machine, also one that waits to be accepted among many others
_BIND_ADDRESS_NO_PORT = 24  # IP_BIND_ADDRESS_NO_PORT, which the socket module does not name
_GONE = {errno.EADDRNOTAVAIL, errno.EINVAL}  # the address was taken away since it was looked up
_log = logging.getLogger(__name__)


class InterceptionMonitor:
    """``port`` is the reserved one; ``addresses`` gives one address for each family, by its name; ``told`` gets a
    sentence at each change for the worse or the better."""

    def __init__(self, port: int, addresses: Callable[[], Mapping[str, str]], told: Callable[[str], None]) -> None:
        self._port = port
        self._addresses = addresses
        self._told = told
        self._awaited: dict[tuple[str, int], trio.Event] = {}
        self.in_force: dict[str, bool] = {}  # by family; what has not been tried yet is not there
        self.rounds = 0
        self.looked = trio.Event()  # the first round is over

    @property
    def words(self) -> str:
        """What is wrong, in a sentence; empty where all is well."""
        missing = [family for family, met in self.in_force.items() if not met]
        if missing:
            return (
                f"a connection to port {self._port} of this pod's own address is not redirected here "
                f"({', '.join(missing)}): the table of rules is gone or changed; run sidecar-init"
            )
        return "" if self.rounds else "whether the rules are there is not known yet"

    def meets(self, sock: socket.socket, client: ClientAddr) -> bool:
        """Whether this accepted connection is our own look at the rules; then it is closed."""
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
        """Looks, again and again, until it is cancelled."""
        while True:
            try:
                await self._round(again)
            except OSError as error:
                _log.debug("interception: no look at the rules this time: %s", error)
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
        """Dials, and says whether we were met. Raises OSError where it can't dial at all.

        The port is chosen at connect, where others to other destinations don't count: an app with many connections
        leaves none that could be bound. Nobody accepts it before it is written down, since nothing here waits.
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
