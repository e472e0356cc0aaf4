"""What a leaf and an authority must look like, each rule a line with its source.

The rules judge facts; who chained them together and whether the dates are right is for ``certs.verify``. SP is the
SPIFFE X.509-SVID standard, GS go-spiffe's ``x509svid.Verify``, RFC is RFC 5280.
"""

from __future__ import annotations

from cryptography import x509

from certs.errors import IdentityError, Refusal
from certs.facts import Facts
from certs.spiffe import SCHEME, SpiffeId, parse


def judge_leaf(leaf: Facts) -> SpiffeId:
    """The id of what may be a leaf. Raises IdentityError, as ``verify.leaf_rules`` lists."""
    if len(leaf.uris) != 1:  # SP 2, GS; the same id twice is two
        raise IdentityError(Refusal.URI_SANS, f"{len(leaf.uris)} URI SANs instead of one")
    spiffe_id = parse(leaf.uris[0])
    if not spiffe_id.path:  # SP 4.1: the path-less id is the trust domain's authorities'
        raise IdentityError(Refusal.BAD_SPIFFE_ID, "a leaf whose id has no path")
    if leaf.authority:  # SP 4.1, GS
        raise IdentityError(Refusal.NOT_A_LEAF, "a leaf with CA true")
    usage = leaf.usage
    if usage is None:  # SP 4.3
        raise IdentityError(Refusal.BAD_KEY_USAGE, "a leaf without keyUsage")
    if usage.cert_sign or usage.crl_sign:  # SP 4.3, GS
        raise IdentityError(Refusal.NOT_A_LEAF, "a leaf with keyCertSign or cRLSign")
    if not usage.digital_signature:  # SP 4.3
        raise IdentityError(Refusal.BAD_KEY_USAGE, "a leaf without digitalSignature")
    if leaf.both_sides is False:  # SP 4.4: where it is there, it lists both
        raise IdentityError(Refusal.BAD_EXTENDED_KEY_USAGE, "extendedKeyUsage without both clientAuth and serverAuth")
    _judge_any(leaf, "a leaf")
    return spiffe_id


def judge_authority(authority: Facts) -> None:
    """Whether it may sign certificates at all. Raises IdentityError."""
    if not authority.authority:  # RFC 6.1.4 (k)
        raise IdentityError(Refusal.NOT_AN_AUTHORITY, "a signing certificate without CA true")
    if authority.usage is None or not authority.usage.cert_sign:  # SP 4.3
        raise IdentityError(Refusal.NOT_AN_AUTHORITY, "a signing certificate without keyCertSign")
    spiffe_ids = [uri for uri in authority.uris if uri.startswith(SCHEME)]
    if any(parse(uri).path for uri in spiffe_ids) or len(spiffe_ids) > 1:  # SP 3.1; other URIs are an upstream PKI's
        raise IdentityError(Refusal.BAD_SPIFFE_ID, "a signing certificate with an id that has a path, or with two")
    _judge_any(authority, "a signing certificate")


def judge_authorities(authorities: list[Facts], trust_domain: str) -> None:
    """What they allow below them: the nearest to the leaf first, the root last. Raises IdentityError."""
    for below, authority in enumerate(authorities):  # below: how many authorities stand under it (RFC 4.2.1.9)
        judge_authority(authority)
        if authority.path_length is not None and below > authority.path_length:
            raise IdentityError(Refusal.PATH_LENGTH, f"{below} authorities under one that allows fewer")
        if authority.constraints is not None:
            _judge_constraints(authority.constraints, trust_domain)


def judge_dates(path: list[Facts], now: float) -> None:
    """Whether all of them are valid now, both ends included (RFC 4.1.2.5). Raises IdentityError."""
    for place, facts in enumerate(path):
        what = "the leaf" if place == 0 else "a signing certificate"
        if now < facts.not_before:
            raise IdentityError(Refusal.NOT_YET_VALID, f"{what} is not valid before {facts.not_before - now:.0f} s")
        if now > facts.not_after:
            raise IdentityError(Refusal.EXPIRED, f"{what} has expired {now - facts.not_after:.0f} s ago")


def _judge_any(facts: Facts, what: str) -> None:
    if not facts.understood:  # RFC 4.2
        raise IdentityError(Refusal.UNKNOWN_CRITICAL, f"{what} with a critical extension that we don't know")
    if not facts.good_key:
        raise IdentityError(Refusal.BAD_KEY, f"{what} whose key is neither ECDSA P-256 to P-521 nor RSA 2048 to 8192")
    if not facts.good_signature:
        raise IdentityError(Refusal.WEAK_SIGNATURE, f"{what} that is not signed by ECDSA or RSA over SHA-2")


def _judge_constraints(constraints: x509.NameConstraints, trust_domain: str) -> None:
    """URI constraints hold for the trust domain (RFC 4.2.1.10); of other kinds we can't tell, so they are refused."""
    permitted, excluded = list(constraints.permitted_subtrees or ()), list(constraints.excluded_subtrees or ())
    if not all(isinstance(name, x509.UniformResourceIdentifier) for name in permitted + excluded):
        raise IdentityError(Refusal.NAME_CONSTRAINTS, "name constraints of another kind than URI")
    if permitted and not any(_covers(str(name.value), trust_domain) for name in permitted):
        raise IdentityError(Refusal.NAME_CONSTRAINTS, "an authority that may not name this trust domain")
    if any(_covers(str(name.value), trust_domain) for name in excluded):
        raise IdentityError(Refusal.NAME_CONSTRAINTS, "an authority that is kept from naming this trust domain")


def _covers(constraint: str, host: str) -> bool:
    """A leading dot means the names under it, and not itself; hosts are compared without case."""
    constraint = constraint.lower()
    return host.endswith(constraint) if constraint.startswith(".") else host == constraint
