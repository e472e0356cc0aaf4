"""What can be wrong with an identity, as one word each: metric label, the log's word, what ``explain`` names.

Imports nothing of ours. The words are part of what users see; they are listed in docs/identity.md.
"""

from __future__ import annotations

from enum import Enum


class Refusal(Enum):
    """Why a certificate, a request for one, or a list is not taken. The value is the word."""

    # A peer's certificate, or one that we were given.
    NO_CERTIFICATE = "no_certificate"
    UNREADABLE = "unreadable"  # no X.509, or outside our bounds on size and number
    URI_SANS = "uri_sans"  # none, or more than one
    BAD_SPIFFE_ID = "bad_spiffe_id"
    NOT_A_LEAF = "not_a_leaf"  # could sign certificates or lists itself
    BAD_KEY_USAGE = "bad_key_usage"
    BAD_EXTENDED_KEY_USAGE = "bad_extended_key_usage"
    UNKNOWN_CRITICAL = "unknown_critical"  # an extension that must be understood, and is not
    BAD_KEY = "bad_key"  # its kind, its size, or the wrong one
    WEAK_SIGNATURE = "weak_signature"  # its algorithm
    UNKNOWN_TRUST_DOMAIN = "unknown_trust_domain"  # no bundle, or an empty one
    UNKNOWN_AUTHORITY = "unknown_authority"
    BAD_SIGNATURE = "bad_signature"
    NOT_AN_AUTHORITY = "not_an_authority"  # it signed, and may not
    PATH_LENGTH = "path_length"
    NAME_CONSTRAINTS = "name_constraints"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    REVOKED = "revoked"
    WRONG_IDENTITY = "wrong_identity"  # a good one, but not the expected one

    # A request for a certificate.
    BAD_REQUEST = "bad_request"
    ASKS_FOR_AUTHORITY = "asks_for_authority"
    ASKS_FOR_MORE = "asks_for_more"  # names or extensions beyond its own id

    # A bundle or a revocation list.
    EMPTY_BUNDLE = "empty_bundle"
    BAD_LIST = "bad_list"
    OLDER_LIST = "older_list"

    @property
    def word(self) -> str:
        """As in metrics and logs."""
        return self.value


class IdentityError(Exception):
    """An identity that is not taken.

    ``reason`` is for machines; ``detail`` is one sentence for our own logs, free of secrets and of bytes that a peer
    chose. A peer is told neither.
    """

    def __init__(self, reason: Refusal, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail

    def __repr__(self) -> str:
        return f"IdentityError({self.reason.word}: {self.detail})"
