"""Fairness of handshakes: when the next step may begin, and which handshake makes room, so that one peer's handshakes
do not delay all others. Pure: the time is passed in.

Called by ``tls.handshake_scheduler`` and ``tls.acceptor``. A handshake costs what ten requests do, and any peer that
connects can make the proxy begin one. So while other traffic goes on, a peer's handshakes have a small share of the
processor, and those of all peers together a larger one; otherwise they may use all of it.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import Final, Generic, TypeVar

PEER_SHARE: Final = 0.15  # of the processor, for the handshakes of one peer while other work goes on
SHARE: Final = 0.5  # for the handshakes of all peers
AROUND: Final = (
    2.0  # a handshake takes so many times what its steps take: accepting, judging, recording and closing, too
)
SLACK_SECONDS: Final = 0.2  # of unused allowance carried over, so short bursts run unthrottled
FEW: Final = 8  # up to this many concurrent handshakes, and without other traffic, skip scheduling
FLOWING_SECONDS: Final = 0.1  # after something was forwarded, other traffic is assumed for so long
_NETWORK_BYTES: Final = 8  # of an IPv6 address: a /64 belongs to one network, if not to one machine

T = TypeVar("T")


def peer_of(host: str) -> str:
    """Return the key of the peer at an IP literal: the IPv4 address, or the first 64 bits of an IPv6 address."""
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
    """A limit to a share of the processor. Times are seconds of one monotonic clock."""

    __slots__ = ("_share", "free_at")

    def __init__(self, share: float) -> None:
        self._share = share
        self.free_at = 0.0  # when the rest ends

    def rest(self, now: float) -> float:
        """Return the seconds to wait before the next step."""
        return max(0.0, self.free_at - now)

    def spent(self, began: float, seconds: float) -> None:
        """Charge a step that began at ``began`` and took ``seconds``. A step that began before the end of the rest
        cancels the remaining rest: work done without other traffic is no debt."""
        self.free_at = min(max(self.free_at, began - SLACK_SECONDS), began) + seconds * AROUND / self._share


class Activity:
    """The detector of other traffic, by a number that changes whenever something is forwarded."""

    __slots__ = ("_forwarded", "_until")

    def __init__(self) -> None:
        self._forwarded = 0
        self._until = 0.0

    def goes_on(self, now: float, forwarded: int) -> bool:
        """Return whether there is other traffic. ``forwarded`` is the number's current value."""
        if forwarded != self._forwarded:
            self._forwarded = forwarded
            self._until = now + FLOWING_SECONDS
        return now < self._until


class PerPeerQueue(Generic[T]):
    """A queue of things for each peer, in order of arrival."""

    __slots__ = ("_count", "_things")

    def __init__(self) -> None:
        self._things: dict[str, dict[T, None]] = {}  # none of them empty
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, peer: str, thing: T) -> None:
        """Add a thing that is not in the queue yet."""
        self._things.setdefault(peer, {})[thing] = None
        self._count += 1

    def discard(self, peer: str, thing: T) -> None:
        """Remove the thing if it is in the queue."""
        things = self._things.get(peer, {})
        if thing in things:
            del things[thing]
            self._count -= 1
            if not things:
                del self._things[peer]

    def take_from_largest(self) -> T:
        """Remove and return the oldest thing of the peer that has most. Raises ValueError if there is none."""
        peer = max(self._things, key=lambda each: len(self._things[each]))
        thing = next(iter(self._things[peer]))
        self.discard(peer, thing)
        return thing
