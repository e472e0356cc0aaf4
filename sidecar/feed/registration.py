"""This sidecar as an endpoint of its service: registered while it serves, heard of again and again, gone in a drain.

Who calls it: ``membership``, where there are ``--control`` and ``--service``. It registers when its listeners are open
and it has a certificate; says so again every third of its time to live, at once where its app's health has changed; and
registers anew where the control plane knows it no more. Where that is away nobody is dropped, and all goes on.
``leave`` takes it out, once and for good, within a bound that no drain notices. Who is only taken out for a while
(``/healthcheck/fail``) stays, as unhealthy.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Literal

import msgspec
import trio

from sidecar import values
from sidecar.feed import answers
from sidecar.feed.answers import Malformed
from sidecar.feed.caller import Caller
from sidecar.feed.control_client import ControlError
from sidecar.feed.health import Health, Standing
from sidecar.registering import Advertise, Labels

TTL: Final = 15.0  # s; the control plane may answer with another
SHORTEST: Final = 3.0  # s of it, whatever is answered: nobody can have us call without a pause
BEATS: Final = 3  # in a time to live
MOST: Final = 64 * 1024  # of an answer
LEAVE_SECONDS: Final = 1.5
_log = logging.getLogger(__name__)


class Place(msgspec.Struct, frozen=True):
    """As what it is registered. ``captured``: callers dial the app, and the rules lead them here. ``process`` tells
    this process from others with the same ``instance``."""

    namespace: str
    service: str
    service_account: str
    instance: str
    process: str
    captured: bool
    advertise: Advertise
    labels: Labels = ()

    @property
    def path(self) -> str:
        return f"/v1/services/{self.namespace}/{self.service}/endpoints/{self.instance}"


class _Told(msgspec.Struct, frozen=True):
    """Of PUT."""

    address: str
    port: int | None
    mode: Literal["captured", "direct"]
    labels: dict[str, str]
    ttl: str
    healthy: bool | None
    detail: str
    process: str


class _Beat(msgspec.Struct, frozen=True):
    """Of POST .../heartbeat."""

    healthy: bool | None
    detail: str
    process: str


class _Answer(msgspec.Struct, frozen=True):
    address: str
    ttl: str


class Registration:
    """``taken_out`` says why new work is not welcome here, or nothing. ``state`` is "waiting", "registered" or "left";
    ``address``: as it is registered."""

    def __init__(self, caller: Caller, place: Place, health: Health | None, taken_out: Callable[[], str]) -> None:
        self.state: Literal["waiting", "registered", "left"] = "waiting"
        self.address = ""
        self.beats = 0
        self.place = place
        self.health = health
        self._taken_out = taken_out
        self._caller = caller
        self._port: int | None = None  # of the inbound listener
        self._open = trio.Event()
        self._changed = trio.Event()
        self._scope = trio.CancelScope()
        self._asked = False
        self._ttl = TTL
        self._due = 0.0  # of the next heartbeat, on the steady clock
        if health is not None:
            health.changed = self.change

    def open(self, port: int) -> None:
        """The listeners are open, inbound at this port."""
        self._port = port
        self._open.set()

    def change(self) -> None:
        """What is to be told is another."""
        self._changed.set()

    async def run(self) -> None:
        """Until it is cancelled, or has left."""
        with self._scope:
            await self._open.wait()
            await self._caller.wait_certificate()
            if self.health is not None:
                await self.health.looked.wait()
            await self._caller.persist("registration", self._once)

    async def leave(self) -> None:
        """Takes it out; at most LEAVE_SECONDS."""
        self._scope.cancel()
        asked, self._asked = self._asked, False
        self.state = "left"
        if not asked:
            return
        with trio.move_on_after(LEAVE_SECONDS) as patience:
            try:
                await self._caller.ask("DELETE", f"{self.place.path}?process={self.place.process}", most=MOST)
                _log.info("registration: taken out of %s", self.place.service)
            except ControlError as error:
                self._caller.failed("registration", error.word, f"it can't be taken out: {error.detail}")
        if patience.cancelled_caught:
            self._caller.failed("registration", "timeout", "it can't be taken out in time; it will age out")

    # -- one step ----------------------------------------------------------------------------------------------------

    async def _once(self) -> None:
        began = self._caller.steady()
        if self.state == "registered":
            await self._beat()
        else:
            await self._register()
            await self._caller.pace(began)  # however often it is forgotten

    async def _register(self) -> None:
        place, standing = self.place, self._standing()
        self._changed = trio.Event()
        port = place.advertise.port if place.captured or place.advertise.port is not None else self._port
        mode: Literal["captured", "direct"] = "captured" if place.captured else "direct"
        told = _Told(
            place.advertise.address, port, mode, dict(place.labels), f"{TTL:g}s", standing.healthy, standing.detail,
            place.process,
        )  # fmt: skip
        self._asked = True
        try:
            answer, _ = await self._caller.ask("PUT", place.path, msgspec.json.encode(told), most=MOST)
        except ControlError as error:
            raise _explained(error, place) from None
        taken = answers.decode(answer.body, _Answer)
        try:
            self._ttl = max(SHORTEST, values.positive_duration(taken.ttl))
        except ValueError:
            raise Malformed("bad_answer", "its time to live is no duration") from None
        self.state = "registered"
        self.address = taken.address
        self._due = self._caller.steady() + self._ttl / BEATS
        _log.info("registration: %s/%s at %s, as %s", place.namespace, place.service, taken.address, place.instance)

    async def _beat(self) -> None:
        with trio.move_on_after(max(0.0, self._due - self._caller.steady())):
            await self._changed.wait()
        standing = self._standing()
        self._changed = trio.Event()
        body = msgspec.json.encode(_Beat(standing.healthy, standing.detail, self.place.process))
        try:
            await self._caller.ask("POST", f"{self.place.path}/heartbeat", body, most=MOST)
        except ControlError as error:
            self._changed.set()  # whatever is to be told, it is not told yet
            if error.status == 404:
                _log.info("registration: the control plane does not know it any more; registering again")
                self.state = "waiting"
                return
            raise
        self.beats += 1
        self._due = self._caller.steady() + self._ttl / BEATS

    def _standing(self) -> Standing:
        why = self._taken_out()
        if why:
            return Standing(False, why)
        return Standing() if self.health is None else self.health.standing


def _explained(error: ControlError, place: Place) -> ControlError:
    """The same, with what to do about it."""
    what = {
        400: "it can't be registered like that; look at --advertise, --labels and the service's ports",
        403: f"{place.service_account} may not serve {place.namespace}/{place.service}, or not at that address; its "
        "serviceAccounts list who may, and a token's addresses where",
        404: f"there is no service {place.namespace}/{place.service}; make it (sidecarctl apply), or look at --service "
        "and --namespace",
    }.get(error.status)
    if what is None:
        return error
    return ControlError(error.word, what, retry_after=error.retry_after, status=error.status)
