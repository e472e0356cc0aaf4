"""When the next step of a handshake may begin, and who makes room: what keeps one peer's handshakes from being
everybody's wait. Pure: the time is handed in.

Called by ``tls.handshake_scheduler`` and ``tls.acceptor``. A handshake costs what ten requests do, and whoever connects
can make us begin one. So while requests go on, a peer's handshakes have a small share of the processor, and all peers'
together a larger one; else they have all of it.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import Final, Generic, TypeVar

PEER_SHARE: Final = 0.15  # of the processor, for the handshakes of one peer while other work goes on
SHARE: Final = 0.5  # for those of all
AROUND: Final = (
    2.0  # times what the steps take is what a handshake takes: accepting, judging, recording and closing too
)
SLACK_SECONDS: Final = 0.2  # of rest need not be taken by who did nothing for so long: a few at once do no harm
FEW: Final = 8  # handshakes under way, while nobody else is at work, in whose midst there is no need for turns
FLOWING_SECONDS: Final = 0.1  # after something was forwarded: so long others are taken to be at work
_NETWORK_BYTES: Final = 8  # of an IPv6 address: a /64 is given to one network, if not to one machine

T = TypeVar("T")


def peer_of(host: str) -> str:
    """Who that is, by an IP literal, as a key: the address, and of an IPv6 address the first 64 bits."""
    if ":" not in host:
        return host
    try:
        address = ip_address(host)
    except ValueError:
        return host
    assert isinstance(address, IPv6Address)
    mapped = address.ipv4_mapped
    return address.packed[:_NETWORK_BYTES].hex() if mapped is None else str(mapped)


class RateShare:
    """Keeps to a share of the processor. Times are seconds of one clock that does not go back."""

    __slots__ = ("_share", "free_at")

    def __init__(self, share: float) -> None:
        self._share = share
        self.free_at = 0.0  # when a rest is over

    def rest(self, now: float) -> float:
        """Seconds to wait before the next step."""
        return max(0.0, self.free_at - now)

    def spent(self, began: float, seconds: float) -> None:
        """A step began then, and took so long. If it has not waited for the end of the rest, that is forgiven: what was
        done while nobody else was at work is no debt."""
        self.free_at = min(max(self.free_at, began - SLACK_SECONDS), began) + seconds * AROUND / self._share


class Activity:
    """Whether others are at work, told by a number that changes whenever something is forwarded."""

    __slots__ = ("_forwarded", "_until")

    def __init__(self) -> None:
        self._forwarded = 0
        self._until = 0.0

    def goes_on(self, now: float, forwarded: int) -> bool:
        """The number is ``forwarded`` now."""
        if forwarded != self._forwarded:
            self._forwarded = forwarded
            self._until = now + FLOWING_SECONDS
        return now < self._until


class PerPeerQueue(Generic[T]):
    """Things in the order in which they came, by peer."""

    __slots__ = ("_count", "_things")

    def __init__(self) -> None:
        self._things: dict[str, dict[T, None]] = {}  # none of them empty
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, peer: str, thing: T) -> None:
        """It is not there yet."""
        self._things.setdefault(peer, {})[thing] = None
        self._count += 1

    def discard(self, peer: str, thing: T) -> None:
        """Takes it out, if it is there."""
        things = self._things.get(peer, {})
        if thing in things:
            del things[thing]
            self._count -= 1
            if not things:
                del self._things[peer]

    def take_from_largest(self) -> T:
        """Takes the oldest of the peer that has most. Raises ValueError where there is none."""
        peer = max(self._things, key=lambda each: len(self._things[each]))
        thing = next(iter(self._things[peer]))
        self.discard(peer, thing)
        return thing
