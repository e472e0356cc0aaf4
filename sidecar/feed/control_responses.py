"""What the control plane answers, judged: JSON to certificates, roots and lists, or an error with a word. Pure.

Who calls it: ``feed.certificate_renewal`` and ``feed.identity_dir``. Nothing here is believed for having come over a
good connection: a certificate is checked against our key, our id and the roots that we hold, a list against its signer,
and within an epoch nothing older than what we hold is taken.
"""

from __future__ import annotations

import re
from typing import Final, TypeVar

import msgspec

from certs.bundle import Bundle
from certs.errors import IdentityError, Refusal
from certs.pem import from_pem
from certs.revocation import RevocationList, Revocations, read_crl

SHORTEST_LEFT: Final = 5.0  # s of a new certificate; less could not be renewed in time
AUTHORITIES: Final = 16  # lists at once; in the middle of a rotation there are two to four
_VERSION: Final = re.compile(r"([0-9]{1,15})\.([0-9]{1,15})", re.ASCII)
_T = TypeVar("_T")

Version = tuple[int, int]


class CertificateAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """Of POST /v1/certificates."""

    chain: str
    bundle: str
    bundle_version: str


class BundleAnswer(msgspec.Struct, frozen=True, rename="camel"):
    """Of GET /v1/bundle."""

    trust_domain: str
    version: str
    bundle: str


class ListText(msgspec.Struct, frozen=True):
    """One authority's list, and the chain of whoever signed it."""

    crl: str
    chain: str


class ListsAnswer(msgspec.Struct, frozen=True):
    """Of GET /v1/crl."""

    version: str
    lists: tuple[ListText, ...]


class Malformed(Exception):
    """No answer of that kind; ``word`` is for metrics."""

    def __init__(self, word: str, detail: str) -> None:
        super().__init__(detail)
        self.word = word
        self.detail = detail


def decode(body: bytes, kind: type[_T]) -> _T:
    """The body as one of these. What it has beyond that is not looked at. Raises Malformed."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Malformed("bad_answer", "the answer is not what this call gives") from None


def version(text: str) -> Version:
    """(epoch, n) of ``EPOCH.N``. Raises Malformed."""
    found = _VERSION.fullmatch(text)
    if found is None:
        raise Malformed("bad_answer", "the answer's version is none")
    return int(found[1]), int(found[2])


def older(new: Version, held: Version | None) -> bool:
    """Whether ``new`` must not be taken: a lower number of the same epoch."""
    return held is not None and new[0] == held[0] and new[1] < held[1]


def revocations(answer: ListsAnswer, held: Revocations, bundle: Bundle, now: float) -> Revocations:
    """All lists of the answer, or none of them. A list that we hold and that is not told any more stays until it is
    overdue. Raises IdentityError with what is wrong with the first bad one."""
    if len(answer.lists) > AUTHORITIES:
        raise IdentityError(Refusal.BAD_LIST, f"lists of more than {AUTHORITIES} authorities")
    found: dict[bytes, RevocationList] = {}
    kept = Revocations(tuple(each for each in held.lists if not each.overdue(now)))
    for text in answer.lists:
        one = read_crl(text.crl, from_pem(text.chain), bundle, now)
        held.replaced(one)  # raises where ours is newer
        found[one.issuer_key] = one
    for one in found.values():
        kept = kept.replaced(one)
    return kept
