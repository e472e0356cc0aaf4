"""What accepted certificates say, kept for the next handshake."""

from __future__ import annotations

from itertools import pairwise
from typing import TypeVar

from certs.facts import Facts, Raw, digest_of, read

K = TypeVar("K")
V = TypeVar("V")


class Memory:
    """What the last ``size`` accepted certificates say, and who signed them: the same peers come again and again.

    It keeps what follows from bytes alone. Dates, revocation, bundles and who is expected are judged anew each time,
    and what was refused never enters, so that nobody can flush it without good certificates. About 4 KB for each;
    0 keeps nothing. Not for two threads at once.
    """

    __slots__ = ("_facts", "_signed", "_size")

    def __init__(self, size: int = 512) -> None:
        self._size = size
        self._facts: dict[bytes, Facts] = {}  # by the SHA-256 of the certificate
        self._signed: dict[tuple[bytes, bytes], None] = {}  # certificate, issuer: the signature was good

    def __len__(self) -> int:
        return len(self._facts)

    def read(self, raw: Raw) -> Facts:
        """As ``facts.read``, from memory where it is there."""
        if not self._facts:
            return read(raw)
        return self._facts.get(digest_of(raw)) or read(raw)

    def knows_signed(self, child: Facts, issuer: Facts) -> bool:
        """Whether an accepted chain has had this link."""
        return (child.digest, issuer.digest) in self._signed

    def accept(self, path: list[Facts], *, signed: bool) -> None:
        """A path was accepted, leaf first; ``signed``: its signatures were checked by us."""
        for facts in path:
            _keep(self._facts, facts.digest, facts, self._size)
        if signed:
            for child, issuer in pairwise(path):
                _keep(self._signed, (child.digest, issuer.digest), None, self._size)


def _keep(kept: dict[K, V], key: K, value: V, size: int) -> None:
    """The last in is the last out; a dictionary remembers the order."""
    kept.pop(key, None)
    kept[key] = value
    while len(kept) > size:
        del kept[next(iter(kept))]
