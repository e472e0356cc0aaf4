"""Asks the control plane, and goes on through whatever it does. What all tasks that speak with it share.

Who calls it: ``feed.certificate_renewal``, ``feed.snapshot_feed``, ``feed.registration``. What is shown is our
certificate, and where that is refused or missing the token. A failure is counted by its word, told at ever longer
distances, and followed by another try within 10 s: all is well within 20 s of its return.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from time import monotonic, time
from typing import Final

import trio

from certs.errors import IdentityError
from certs.renew import retry_after
from sidecar.feed.control_auth import ControlAuth
from sidecar.feed.control_client import Answer, ControlClient, ControlError, Way
from sidecar.feed.control_responses import Malformed
from sidecar.identity import Identity

WAIT: Final = 30.0  # s of a long poll, at most
PACE: Final = 0.5  # s between two polls at least: a control plane that answers at once, for ever, costs little
ABOUT_US: Final = ("certificate", "bundle", "crl", "snapshot")  # what is everybody's who belongs to the mesh
MOST_ASKED: Final = 10.0  # s; for longer nobody can tell us to wait
_log = logging.getLogger(__name__)


class RetryingClient:
    """``clock`` is the wall clock, ``steady`` the monotonic one, ``chance`` in [0, 1). ``errors`` are counted by (call,
    word); ``last_error`` is for people; ``refused``: why the control plane will not have us, empty where it does."""

    def __init__(
        self,
        identity: Identity,
        contact: ControlAuth,
        client: ControlClient,
        *,
        clock: Callable[[], float] = time,
        steady: Callable[[], float] = monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.errors: dict[tuple[str, str], int] = {}
        self.last_error = ""
        self.refused = ""
        self.contact = contact
        self.clock = clock
        self.steady = steady
        self.chance = chance
        self._identity = identity
        self._client = client
        self._here = trio.Event()  # there is a certificate
        identity.follow(lambda _: self._here.set())

    @property
    def skew(self) -> float | None:
        """How far the control plane's clock is ahead of ours, in seconds; None before it told."""
        return self._client.skew

    async def wait_certificate(self) -> None:
        """Until there has been one."""
        await self._here.wait()

    def left(self) -> float | None:
        """How long our certificate is good (s); None where there is none."""
        generation = self._identity.generation
        return None if generation is None else generation.credentials.not_after - self.clock()

    def patience(self) -> float:
        """How long a poll may last (s). Its connection ends with our certificate, or theirs; one that was cut each time
        would count as failing, and would be followed by the pause of those that do."""
        return min(WAIT, max(1.0, (self.left() or 0.0) / 2))

    async def pace(self, began: float, seconds: float = PACE) -> None:
        """Until so many seconds after ``began``, which is on the steady clock."""
        await trio.sleep(max(0.0, began + seconds - self.steady()))

    async def ask(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        *,
        most: int,
        wait: float = 0.0,
        once: bool = False,
        source: str = "",
    ) -> tuple[Answer, Way]:
        """By our certificate, and where that is refused by the token. ``source``: the address of this machine that the
        call has to come from. Raises ControlError."""
        way = self.contact.known()
        if way is not None:
            try:
                return await self._call(way, method, target, body, most, wait, once, source), way
            except ControlError as error:
                if not error.refused:
                    raise
                try:
                    way = await self.contact.first()
                except ControlError:
                    raise error from None
        else:
            way = await self.contact.first()
        return await self._call(way, method, target, body, most, wait, once, source), way

    async def _call(
        self, way: Way, method: str, target: str, body: bytes, most: int, wait: float, once: bool, source: str
    ) -> Answer:
        answer = await self._client.call(way, method, target, body, most=most, wait=wait, once=once, source=source)
        self.refused = ""
        return answer

    # -- going on ----------------------------------------------------------------------------------------------------

    async def persist(
        self,
        call: str,
        once: Callable[[], Awaitable[None]],
        *,
        pressing: Callable[[], float | None] = lambda: None,
        failed: Callable[[str], None] = lambda word: None,
    ) -> None:
        """Does it again and again, until it is cancelled. ``pressing``: how long there is to succeed, in seconds, None
        where that is no matter; ``failed`` is told the word of each failure."""
        failures = 0
        while True:
            after = 0.0
            try:
                await once()
                failures = 0
                continue
            except ControlError as error:
                word, detail, after = error.word, error.detail, error.retry_after
                if error.refused and call in ABOUT_US:
                    self._note_refused(detail)
            except (IdentityError, Malformed) as refused:
                word = refused.reason.word if isinstance(refused, IdentityError) else refused.word
                detail = f"what the control plane answers is refused: {refused.detail}"
            failures += 1
            self.failed(call, word, detail, failures)
            failed(word)
            pause = retry_after(failures, self.chance(), pressing())
            await trio.sleep(max(pause, min(after, MOST_ASKED)))

    def _note_refused(self, detail: str) -> None:
        if not self.refused:
            _log.error(
                "the control plane refuses this proxy as %s: that identity is revoked, or the token is void, or was "
                "made for another --namespace and --service-account; what it has got serves until it ends: %s",
                self.contact.ours(), detail,
            )  # fmt: skip
        self.refused = detail

    def failed(self, call: str, word: str, detail: str, failures: int = 1) -> None:
        """Counts it, and tells of the 1st, 2nd, 4th, 8th, ... in a row."""
        self.errors[call, word] = self.errors.get((call, word), 0) + 1
        self.last_error = f"{call}: {detail}"
        if not failures & (failures - 1):
            _log.warning("%s: %s (%d in a row)", call, detail, failures)

    def close(self) -> None:
        """Lets go of its connections."""
        self._client.close()
