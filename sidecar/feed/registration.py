"""This sidecar as an endpoint of its service: registered while it serves, heard of again and again, gone in a drain.

Who calls it: ``mesh_runtime``, where there are ``--control`` and ``--service``. It registers when its listeners are
open and it has a certificate; says so again every third of its time to live, at once where its app's health has
changed; and registers anew where the control plane knows it no more. Where that is away no endpoint is dropped, and all
goes on. ``leave`` takes it out, once and for good, within a bound that no drain notices. A sidecar that is only taken
out for a while (``/healthcheck/fail``) stays, as unhealthy.

**Addresses.** A pod has several, and callers that dial one which is not registered would not find the service there. So
a captured sidecar names all of its pod's, and proves each that the control plane does not take at once by a call from
there, one at a time between heartbeats. Those that are refused leave the others registered; they are tried again now
and then, and all is registered anew when the pod's addresses have changed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Literal

import msgspec
import trio

from sidecar import value_parsers
from sidecar.feed import control_responses
from sidecar.feed.app_health import Health, HealthState
from sidecar.feed.control_client import ControlError
from sidecar.feed.control_responses import Malformed
from sidecar.feed.retrying_client import RetryingClient
from sidecar.registration_flags import Advertise, Labels

TTL: Final = 15.0  # s; the control plane may answer with another
SHORTEST: Final = 3.0  # s of it, whatever is answered: nobody can have us call without a pause
BEATS: Final = 3  # in a time to live
MOST: Final = 64 * 1024  # of an answer
LEAVE_SECONDS: Final = 1.5
PROVE_SECONDS: Final = 3.0  # for a call from one address: heartbeats wait for it
PROVE_AGAIN: Final = 60.0  # s until those that were refused are tried again
ADDRESSES: Final = 16  # that the control plane takes of one endpoint
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
    addresses: list[str]
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


class _Refused(msgspec.Struct, frozen=True):
    address: str
    why: str


class _Answer(msgspec.Struct, frozen=True):
    address: str
    ttl: str
    addresses: tuple[str, ...] = ()
    refused: tuple[_Refused, ...] = ()


class Registration:
    """``taken_out`` returns why new work is not welcome here, or nothing; ``named`` the addresses of this machine at
    which callers may find it, none where the control plane is to see that itself. ``state`` is "waiting", "registered"
    or "left"; ``addresses`` are those at which it is registered, ``refused`` the others, each with the reason."""

    def __init__(
        self,
        caller: RetryingClient,
        place: Place,
        health: Health | None,
        taken_out: Callable[[], str],
        named: Callable[[], list[str]],
    ) -> None:
        self.state: Literal["waiting", "registered", "left"] = "waiting"
        self.addresses: tuple[str, ...] = ()
        self.refused: dict[str, str] = {}
        self.beats = 0
        self.place = place
        self.health = health
        self._taken_out = taken_out
        self._name = named
        self._named: list[str] = []  # as they were registered last
        self._unproven: list[str] = []  # of these, those that a call is to come from yet
        self._prove_again = 0.0  # when those that were refused are tried again, on the steady clock
        self._failed: dict[str, str] = {}  # why a call from there failed
        self._told_refused: dict[str, str] = {}  # what the log has
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
        if self.state != "registered":
            await self._register()
            await self._caller.pace(began)  # however often it is forgotten
        elif self._unproven and began < self._due and not self._changed.is_set():
            await self._prove(self._unproven.pop(0))
        else:
            await self._beat()
            self._look_at_addresses()

    async def _register(self) -> None:
        place = self.place
        self._named, self._failed = self._addresses(), {}
        self._changed = trio.Event()
        self._asked = True
        try:
            taken = await self._put()
        except ControlError as error:
            raise _explained(error, place) from None
        self.state = "registered"
        self._due = self._caller.steady() + self._ttl / BEATS
        self._take(taken)
        self._unproven = [each for each in self._named if each in self.refused]
        if not self._unproven:
            self._tell_refused()

    async def _prove(self, address: str) -> None:
        """Registers once more, by a call from this address. Whatever comes of it, the registration stands."""
        why = f"no answer within {PROVE_SECONDS:g} s"
        with trio.move_on_after(PROVE_SECONDS):
            try:
                self._take(await self._put(address))
                why = ""
            except ControlError as error:
                why = f"a call from there failed: {error.detail}"
        self._failed.pop(address, None)
        if why:
            self._failed[address] = why
            self.refused = {each: self._failed.get(each, known) for each, known in self.refused.items()}
        if not self._unproven:
            self._tell_refused()

    async def _put(self, source: str = "") -> _Answer:
        """Raises ControlError, Malformed."""
        place, standing = self.place, self._standing()
        port = place.advertise.port if place.captured or place.advertise.port is not None else self._port
        mode: Literal["captured", "direct"] = "captured" if place.captured else "direct"
        told = _Told(
            place.advertise.address, self._named, port, mode, dict(place.labels), f"{TTL:g}s", standing.healthy,
            standing.detail, place.process,
        )  # fmt: skip
        answer, _ = await self._caller.ask("PUT", place.path, msgspec.json.encode(told), most=MOST, source=source)
        taken = control_responses.decode(answer.body, _Answer)
        try:
            self._ttl = max(SHORTEST, value_parsers.positive_duration(taken.ttl))
        except ValueError:
            raise Malformed("bad_answer", "its time to live is no duration") from None
        return taken

    def _take(self, taken: _Answer) -> None:
        """What the control plane made of it. Where a call from there failed, that is the better reason."""
        place, before = self.place, self.addresses
        self.addresses = taken.addresses or (taken.address,)
        self.refused = {each.address: self._failed.get(each.address, each.why) for each in taken.refused}
        if self.addresses != before:
            where = ", ".join(self.addresses)
            _log.info("registration: %s/%s at %s, as %s", place.namespace, place.service, where, place.instance)

    def _tell_refused(self) -> None:
        """All has been tried."""
        self._prove_again = self._caller.steady() + PROVE_AGAIN
        for address, why in self.refused.items():
            if self._told_refused.get(address) != why:
                _log.warning(
                    "registration: not registered at %s, so calls to it are not known to be for the service, and go "
                    "out in plaintext where that is taken: %s; have --control lead to the control plane by %s as well, "
                    "or name its network in a token's addresses or in --workload-networks of sidecar-control",
                    address, why, "IPv6" if ":" in address else "IPv4",
                )  # fmt: skip
        self._told_refused = dict(self.refused)

    def _addresses(self) -> list[str]:
        """As ``named``; those of before where the kernel does not answer."""
        try:
            return self._name()[:ADDRESSES]
        except OSError as error:
            _log.warning("registration: the addresses of this machine can't be read: %s", error)
            return self._named

    def _look_at_addresses(self) -> None:
        """After a heartbeat: registers anew if they have changed, and tries again those that were refused."""
        if self.state != "registered":
            return
        if self._addresses() != self._named:
            self.state = "waiting"
        elif self.refused and self._caller.steady() >= self._prove_again:
            self._prove_again = self._caller.steady() + PROVE_AGAIN
            self._unproven = [each for each in self._named if each in self.refused]

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

    def _standing(self) -> HealthState:
        why = self._taken_out()
        if why:
            return HealthState(False, why)
        return HealthState() if self.health is None else self.health.standing


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
