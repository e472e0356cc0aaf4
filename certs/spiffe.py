"""SPIFFE ids: read strictly, so that two different texts are never one identity, nor one text two.

The rules are go-spiffe's (``spiffeid``, version 2), which are narrower than the standard's: the scheme is spelled
``spiffe``, a trust domain is lower case, nothing is percent-encoded, nothing is normalized. What a rule refuses is an
error, never mended.

Source: SPIFFE-ID standard section 2, go-spiffe ``spiffeid/{id,path,charset}.go``, Kubernetes' rules for the names of
namespaces and service accounts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from certs.errors import IdentityError, Refusal

ID_BYTES: Final = 2048  # what the standard makes everyone support; more is refused
TRUST_DOMAIN_BYTES: Final = 255
SCHEME: Final = "spiffe://"

_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9._-]++")
_SEGMENT: Final = re.compile(r"[A-Za-z0-9._-]++")
_LABEL: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_WORKLOAD: Final = re.compile(r"/ns/([^/]++)/sa/([^/]++)")
_SUBDOMAIN_CHARS: Final = 253


@dataclass(frozen=True, slots=True, order=True)
class SpiffeId:
    """An id that is known to be well-formed. ``path`` is empty (the trust domain itself) or starts with a slash.

    Made by :func:`parse` and :func:`workload`; the constructor checks as they do, and raises
    IdentityError(BAD_SPIFFE_ID).
    """

    trust_domain: str
    path: str = ""

    def __post_init__(self) -> None:
        check_trust_domain(self.trust_domain)
        _check_path(self.path)
        if len(SCHEME) + len(self.trust_domain) + len(self.path) > ID_BYTES:
            raise _bad(f"it is longer than {ID_BYTES} bytes")

    def __str__(self) -> str:
        return SCHEME + self.trust_domain + self.path

    def workload(self) -> tuple[str, str] | None:
        """(namespace, service account), or None where the path does not have that form. The inverse of workload()."""
        match = _WORKLOAD.fullmatch(self.path)
        if match is None or not _is_label(match[1]) or not _is_subdomain(match[2]):
            return None
        return match[1], match[2]


def parse(text: str) -> SpiffeId:
    """The id that the text is. Raises IdentityError(BAD_SPIFFE_ID); the text is never repeated in the error."""
    if not text.startswith(SCHEME):
        raise _bad("it does not start with spiffe://")
    if len(text) > ID_BYTES:
        raise _bad(f"it is longer than {ID_BYTES} bytes")
    trust_domain, slash, path = text[len(SCHEME) :].partition("/")
    return SpiffeId(trust_domain, slash + path)


def trust_domain_id(trust_domain: str) -> SpiffeId:
    """The id of the trust domain itself, which its authorities carry. Raises IdentityError(BAD_SPIFFE_ID)."""
    return SpiffeId(trust_domain)


def workload(trust_domain: str, namespace: str, service_account: str) -> SpiffeId:
    """``spiffe://TD/ns/N/sa/S``, as Istio has it.

    The namespace is a DNS label and the service account a DNS subdomain, as in Kubernetes, so that neither can bring a
    slash, an empty or a dot segment with it. Raises IdentityError(BAD_SPIFFE_ID).
    """
    if not _is_label(namespace):
        raise _bad("its namespace is no DNS label (a-z, 0-9 and inner hyphens, at most 63)")
    if not _is_subdomain(service_account):
        raise _bad("its service account is no DNS subdomain (labels joined by dots, at most 253)")
    return SpiffeId(trust_domain, f"/ns/{namespace}/sa/{service_account}")


def check_trust_domain(name: str) -> None:
    """Raises IdentityError(BAD_SPIFFE_ID) unless this can be a trust domain's name."""
    if not name:
        raise _bad("it has no trust domain")
    if len(name) > TRUST_DOMAIN_BYTES:
        raise _bad(f"its trust domain is longer than {TRUST_DOMAIN_BYTES} bytes")
    if not _TRUST_DOMAIN.fullmatch(name):
        raise _bad("its trust domain has characters other than a-z, 0-9, dot, hyphen and underscore")


def _check_path(path: str) -> None:
    if not path:
        return
    first, *segments = path.split("/")
    if first:
        raise _bad("its path does not start with a slash")
    if not segments[-1]:
        raise _bad("it ends with a slash")
    for segment in segments:
        if not segment:
            raise _bad("its path has an empty segment")
        if segment in (".", ".."):
            raise _bad("its path has a dot segment")
        if not _SEGMENT.fullmatch(segment):
            raise _bad("its path has characters other than letters, digits, dot, hyphen and underscore")


def _is_label(text: str) -> bool:
    return _LABEL.fullmatch(text) is not None


def _is_subdomain(text: str) -> bool:
    return len(text) <= _SUBDOMAIN_CHARS and all(map(_is_label, text.split(".")))


def _bad(why: str) -> IdentityError:
    return IdentityError(Refusal.BAD_SPIFFE_ID, f"not a SPIFFE id: {why}")
