"""Which roots speak for which trust domain.

A leaf is judged against the bundle of its own trust domain alone: a root of domain A says nothing about domain B, even
where both are trusted (SPIFFE Trust Domain and Bundle, section 6.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from cryptography import x509

from certs import pem, spiffe
from certs.errors import IdentityError, Refusal
from certs.facts import Facts, read
from certs.rules import judge_authority


@dataclass(frozen=True, slots=True)
class Bundle:
    """The roots of one trust domain, in order and each once. An empty one trusts nobody.

    ``version`` is (epoch, n) as the control plane counts: comparable within an epoch alone. ``anchors`` is what the
    roots say, for ``certs.verify``. The constructor raises IdentityError for a root that could not sign
    (NOT_AN_AUTHORITY, BAD_KEY, WEAK_SIGNATURE, BAD_SPIFFE_ID, ...); dates are not looked at, an expired root stands,
    and is refused in use.
    """

    trust_domain: str
    roots: tuple[x509.Certificate, ...]
    version: tuple[int, int] = (0, 0)
    anchors: Mapping[bytes, Facts] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        spiffe.check_trust_domain(self.trust_domain)
        anchors: dict[bytes, Facts] = {}
        for root in self.roots:
            facts = read(root)
            judge_authority(facts)
            anchors[facts.digest] = facts
        object.__setattr__(self, "roots", tuple(facts.certificate for facts in anchors.values()))
        object.__setattr__(self, "anchors", MappingProxyType(anchors))

    @classmethod
    def from_pem(
        cls, trust_domain: str, text: str | bytes, version: tuple[int, int] = (0, 0), *, allow_empty: bool = False
    ) -> Bundle:
        """The roots in the text. Raises IdentityError: EMPTY_BUNDLE unless allowed, UNREADABLE, and as above."""
        roots = pem.from_pem(text)
        if not roots and not allow_empty:
            raise IdentityError(Refusal.EMPTY_BUNDLE, f"the bundle of {trust_domain} has no certificate")
        return cls(trust_domain, roots, version)

    def to_pem(self) -> str:
        """The roots, a block each."""
        return pem.to_pem(self.roots)


@dataclass(frozen=True, slots=True)
class Bundles:
    """Bundles by trust domain; ours, and those of domains that we federate with."""

    by_domain: Mapping[str, Bundle] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def of(cls, *bundles: Bundle) -> Bundles:
        """These bundles, the last one of a trust domain counting."""
        return cls(_by_domain(bundles))

    def get(self, trust_domain: str) -> Bundle | None:
        """The trust domain's bundle."""
        return self.by_domain.get(trust_domain)

    def replaced(self, bundle: Bundle) -> Bundles:
        """These, with this one in place of its trust domain's."""
        return Bundles(_by_domain([*self, bundle]))

    def __iter__(self) -> Iterator[Bundle]:
        return iter(self.by_domain.values())


def _by_domain(bundles: Iterable[Bundle]) -> Mapping[str, Bundle]:
    return MappingProxyType({bundle.trust_domain: bundle for bundle in bundles})
