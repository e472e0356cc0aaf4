"""What proxies say of themselves: which version each holds, and what was wrong with the one that it refused. Pure.

Who calls it: ``control.distribution.api``, at each poll and each status. A proxy is an identity and an instance,
which it names itself, so that a replica that misbehaves can be found; so their number is bounded, for each identity
and in all, and who has been silent longest goes first.

**What is withheld.** A version that a proxy refused is not offered to it again, whatever its next polls say that they
hold; one that names no version has judged nothing yet, and gets what there is. A proxy that holds a version which is
newer than ours, in our own epoch, would not take ours (nothing older is taken): it is told once, so that it can say so
itself, and then waits for another one like everybody.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from control.distribution.schemas import Status
from control.version import Version

MOST: Final = 10_000  # in all; with full refusals some 60 MB
OF_ONE_IDENTITY: Final = 1_000  # replicas
STATES: Final = ("in sync", "behind", "refused", "unknown")
GONE_SECONDS: Final = 3600.0
PROBLEM_CHARS: Final = 300


class Refusal(msgspec.Struct, frozen=True):
    """A version that was refused, when (seconds since the epoch) and why."""

    version: Version
    at: float
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """How a call came: from which address, and until when the certificate is good that it showed (0: it showed
    none)."""

    address: str
    certificate_ends: float


@dataclass(frozen=True, slots=True)
class Proxy:
    """One of them. Times in seconds since the epoch. ``judged``: the newest version that it took or refused;
    ``offered``: the newest that was sent to it; ``refusal``: its last, also after it took another version."""

    identity: str
    namespace: str
    instance: str
    seen: Seen
    first_seen: float
    last_seen: float
    judged: Version | None = None
    held: Version | None = None
    offered: Version | None = None
    accepted: bool | None = None  # what it judged last; None: it did not say so to us
    refusal: Refusal | None = None
    withheld: Version | None = None
    ahead: bool = False  # it holds a newer one than there is
    software: str = ""

    @property
    def name(self) -> str:
        """By which they are ordered."""
        return f"{self.identity} {self.instance}"

    def state(self, newest: Version | None) -> str:
        """One of STATES; ``newest`` is what there is for its identity, None: nobody asks. ``unknown`` is who has judged
        the newest, and has not said how: to this process, which remembers nothing of those before it."""
        if self.accepted is False and self.refusal is not None and self.refusal.version == newest:
            return "refused"
        if newest is None or newest not in (self.held, self.judged):
            return "behind"
        return "in sync" if self.held == newest else "unknown"


class Proxies:
    """All of them."""

    def __init__(self, most: int = MOST, of_one_identity: int = OF_ONE_IDENTITY) -> None:
        self._most, self._of_one = most, of_one_identity
        self._proxies: OrderedDict[tuple[str, str], Proxy] = OrderedDict()  # who was heard last is at the end
        self._count: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._proxies)

    def __iter__(self) -> Iterator[Proxy]:
        return iter(self._proxies.values())

    def heard(self, identity: str, namespace: str, instance: str, seen: Seen, now: float) -> Proxy:
        """A call of it came."""
        known = self._proxies.get((identity, instance))
        if known is not None:
            return self._keep(replace(known, seen=seen, last_seen=now))
        self._make_room(identity)
        self._count[identity] += 1
        proxy = Proxy(identity, namespace, instance, seen, first_seen=now, last_seen=now)
        self._proxies[identity, instance] = proxy
        return proxy

    def polled(self, proxy: Proxy, judged: Version | None) -> Proxy:
        """It asks, and says what it judged last; how it judged that is for a status to say."""
        if judged is None:
            return self._keep(replace(proxy, judged=None, withheld=None))
        known = proxy.judged
        if known is not None and known.epoch == judged.epoch and judged <= known:
            return proxy  # it was on its way when the status came
        return self._keep(replace(proxy, judged=judged, accepted=None))

    def said(self, proxy: Proxy, version: Version, held: Version | None, status: Status, now: float) -> Proxy:
        """It took a version, or refused it."""
        told = replace(proxy, judged=version, held=held, accepted=status.accepted, software=printable(status.software))
        if not status.accepted:
            problems = tuple(printable(each) for each in status.problems)
            told = replace(told, refusal=Refusal(version, now, problems), withheld=version)
        elif told.withheld == version:
            told = replace(told, withheld=None)
        return self._keep(told)

    def sent(self, proxy: Proxy, version: Version, ahead: bool) -> Proxy:
        """A version goes out to it; ``ahead``: it holds a newer one, and is not sent this one again."""
        return self._keep(replace(proxy, offered=version, ahead=ahead, withheld=version if ahead else proxy.withheld))

    def current(self, proxy: Proxy) -> Proxy:
        """The same as it is known now; what is given where it was forgotten meanwhile."""
        return self._proxies.get((proxy.identity, proxy.instance), proxy)

    def forget_gone(self, now: float) -> None:
        """Those that were not heard for an hour."""
        while self._proxies:
            oldest = next(iter(self._proxies.values()))
            if now - oldest.last_seen < GONE_SECONDS:
                return
            self._remove(oldest)

    def _keep(self, proxy: Proxy) -> Proxy:
        """Replaces what is known of it, unless it had to go meanwhile."""
        key = proxy.identity, proxy.instance
        if key in self._proxies:
            self._proxies[key] = proxy
            self._proxies.move_to_end(key)
        return proxy

    def _make_room(self, identity: str) -> None:
        if self._count[identity] >= self._of_one:
            self._remove(next(each for each in self._proxies.values() if each.identity == identity))
        elif len(self._proxies) >= self._most:
            self._remove(next(iter(self._proxies.values())))

    def _remove(self, proxy: Proxy) -> None:
        del self._proxies[proxy.identity, proxy.instance]
        self._count[proxy.identity] -= 1
        if not self._count[proxy.identity]:
            del self._count[proxy.identity]


def printable(text: str) -> str:
    """As it is shown to people: what could be taken for something else on a terminal is escaped, what is long is
    cut."""
    cut = text[:PROBLEM_CHARS]
    return cut if cut.isprintable() else cut.encode("unicode_escape").decode("ascii")[:PROBLEM_CHARS]
