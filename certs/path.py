"""From a certificate to a root of a bundle, signature by signature.

The chain is taken in the order in which it was presented, each certificate followed by its issuer, as TLS 1.2 demands
and every sender does; at each step a root of the bundle that has issued the certificate ends the path, whatever else
was presented. There is no search: a chain that was crafted for it would cost a search thousands of signatures, this
costs one for each certificate and each root of that name.

Why not ``cryptography.x509.verification``: its policies are the web's (subject names to match, an authority key
identifier and extendedKeyUsage demanded, roots held to the CA/Browser Forum's profile), it tells its refusals as text
alone, and gives no word for metrics. It still checks each link for us, by ``Certificate.verify_directly_issued_by``:
the names, the inner and the outer algorithm, the signature.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from certs.bundle import Bundle
from certs.errors import IdentityError, Refusal
from certs.facts import Facts, Raw
from certs.memory import Memory
from certs.rules import judge_authority

NOTHING = Memory(0)


def build(first: Facts, rest: Sequence[Raw], bundle: Bundle, memory: Memory = NOTHING) -> list[Facts]:
    """The path from ``first`` by way of ``rest`` to a root of the bundle, which is its last element.

    Raises IdentityError: UNKNOWN_AUTHORITY, BAD_SIGNATURE, and what ``rules.judge_authority`` has against one of them.
    """
    path = [first]
    for raw in rest:
        anchor = _anchor(path[-1], bundle, memory)
        if anchor is not None:
            return [*path, anchor]
        issuer = memory.read(raw)
        if path[-1].issuer != issuer.subject:
            raise _unknown()
        judge_authority(issuer)  # before its key is worked with
        check_signed(path[-1], issuer, memory)
        path.append(issuer)
    anchor = _anchor(path[-1], bundle, memory)
    if anchor is None:
        raise _unknown()
    return [*path, anchor]


def check_signed(child: Facts, issuer: Facts, memory: Memory = NOTHING) -> None:
    """Whether ``issuer`` has signed ``child``. Raises IdentityError(BAD_SIGNATURE)."""
    if memory.knows_signed(child, issuer):
        return
    try:
        child.certificate.verify_directly_issued_by(issuer.certificate)
    except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
        raise IdentityError(Refusal.BAD_SIGNATURE, "a certificate that its issuer has not signed") from None


def _anchor(child: Facts, bundle: Bundle, memory: Memory) -> Facts | None:
    """The root that has issued it. Raises IdentityError(BAD_SIGNATURE) where there are only namesakes."""
    failure = None
    for anchor in bundle.anchors.values():
        if anchor.subject == child.issuer:
            try:
                check_signed(child, anchor, memory)
            except IdentityError as error:
                failure = error
            else:
                return anchor
    if failure is not None:
        raise failure
    return None


def _unknown() -> IdentityError:
    return IdentityError(Refusal.UNKNOWN_AUTHORITY, "a chain that leads to no root of its trust domain's bundle")
