"""Which roots speak for which trust domain.

A leaf is judged against the bundle of its own trust domain alone: a root of domain A says nothing about domain B, even
where both are trusted (SPIFFE Trust Domain and Bundle, section 6.2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from cryptography import x509


@dataclass(frozen=True, slots=True)
class Bundle:
    """The roots of one trust domain. An empty one trusts nobody.

    ``version`` is (epoch, n) as the control plane counts: comparable within an epoch alone.
    """

    trust_domain: str
    roots: tuple[x509.Certificate, ...]
    version: tuple[int, int] = (0, 0)

    @classmethod
    def from_pem(
        cls, trust_domain: str, pem: str | bytes, version: tuple[int, int] = (0, 0), *, allow_empty: bool = False
    ) -> Bundle:
        """The roots in the text, each of which must be able to sign.

        Raises IdentityError: EMPTY_BUNDLE unless ``allow_empty``, UNREADABLE, NOT_AN_AUTHORITY, BAD_KEY,
        WEAK_SIGNATURE, BAD_SPIFFE_ID. Dates are not looked at here; an expired root stands, and is refused in use.
        """
        raise NotImplementedError

    def to_pem(self) -> str:
        """The roots, a block each."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Bundles:
    """Bundles by trust domain; ours, and those of domains that we federate with."""

    by_domain: dict[str, Bundle] = field(default_factory=dict)

    @classmethod
    def of(cls, *bundles: Bundle) -> Bundles:
        """These bundles, the last one of a trust domain counting."""
        raise NotImplementedError

    def get(self, trust_domain: str) -> Bundle | None:
        """The trust domain's bundle."""
        raise NotImplementedError

    def replaced(self, bundle: Bundle) -> Bundles:
        """These, with this one in place of its trust domain's."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[Bundle]:
        raise NotImplementedError
