"""Is the app well? Looked at by the sidecar beside it, as ``--health`` says, and told by ``feed.registration``.

Who calls it: ``mesh_runtime``, where there is ``--health``. What becomes of looks is decided by :func:`judged`, which
is pure: the first one counts at once, since a caller that is sent here meets what it found; from then on it takes as
many in a row as the thresholds say.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
import trio

from sidecar.addresses import Address
from sidecar.errors import ProxyError
from sidecar.health_check import look_at_port, look_by_command
from sidecar.net.connection import Connection
from sidecar.net.dial import source_for
from sidecar.net.local_addresses import outward_addresses
from sidecar.net.resolve import Resolver
from sidecar.registration_flags import HealthCheck
from sidecar.settings import Settings

JITTER: Final = 0.1  # of the interval: replicas that began together don't all look at once
_log = logging.getLogger(__name__)

Look = Callable[[], Awaitable[str]]


class HealthState(msgspec.Struct, frozen=True):
    """``healthy`` None: nobody has looked yet. ``detail``: what the look that counts found; ``against``: how many looks
    in a row have found otherwise since."""

    healthy: bool | None = None
    detail: str = ""
    against: int = 0


def judged(before: HealthState, problem: str, healthy_after: int, unhealthy_after: int) -> HealthState:
    """How it stands after another look, which found this problem, or (empty) none."""
    well = not problem
    if before.healthy is None or well == before.healthy:
        return HealthState(well, problem)
    against = before.against + 1
    if against >= (healthy_after if well else unhealthy_after):
        return HealthState(well, problem)
    return msgspec.structs.replace(before, against=against)


class Health:
    """``look`` finds what is wrong; ``changed`` is called whenever it stands otherwise; ``chance`` in [0, 1).
    ``looked``: there has been a look."""

    def __init__(self, settings: Settings, look: Look, chance: Callable[[], float]) -> None:
        self.standing = HealthState()
        self.changed: Callable[[], None] = lambda: None
        self.looked = trio.Event()
        self._look = look
        self._interval = settings.health_interval
        self._thresholds = settings.health_healthy, settings.health_unhealthy
        self._chance = chance

    async def run(self) -> None:
        """Looks again and again, until it is cancelled."""
        while True:
            self._note(await self._look())
            await trio.sleep(self._interval * (1.0 - JITTER * self._chance()))

    def _note(self, problem: str) -> None:
        before = self.standing
        self.standing = judged(before, problem, *self._thresholds)
        self.looked.set()
        if self.standing.healthy != before.healthy:
            if self.standing.healthy:
                _log.info("health: the app is well")
            else:
                _log.warning("health: the app is not well: %s", problem)
            self.changed()


def look_of(check: HealthCheck, settings: Settings, connections: set[Connection]) -> Look:
    """How to look, as the flags say. With interception the app is reached at the address that its callers dial, from
    the source that the rules let through."""
    seconds = settings.health_timeout
    resolver = Resolver(own=settings.dns)

    async def by_command() -> str:
        return await look_by_command(check.command, seconds=seconds)

    async def upstream() -> str:
        target = settings.upstream
        assert target is not None
        try:
            addresses = await resolver.resolve(target.host)
        except ProxyError as error:
            return error.reason.word
        return await look_at_port(addresses, _port(check, target), check.path, connections, seconds=seconds)

    async def captured() -> str:
        try:
            address = next(iter(outward_addresses().values()), "")
        except OSError:
            address = ""
        if not address:
            return "this machine has no address for callers"
        assert check.port is not None  # held by ``settings``
        source = source_for(address)
        return await look_at_port([address], check.port, check.path, connections, seconds=seconds, source=source)

    if check.kind == "exec":
        return by_command
    return captured if settings.interception == "redirect" else upstream


def _port(check: HealthCheck, upstream: Address) -> int:
    return upstream.port if check.port is None else check.port
