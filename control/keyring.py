"""Where the authority's keys lie: one file, ``authority.json`` in ``--ca-dir``, or files that were brought, or nowhere.

Who calls it: the composition root and ``control.certificate_authority``. One file holds roots, keys and how far a
rotation is, and is replaced as a whole: whenever the process dies, what is there is one state or the next, and keys and
certificates fit. The directory is for this user alone, 0700, the file 0600, and what is found in another condition is
refused rather than mended: another user may have read it (``control.secret_files``).

``root.pem`` beside it has the roots alone, for whoever has to be told them by hand (``--control-ca``).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Protocol

import msgspec
from cryptography import x509

from certs import facts, keys, pem, rules
from certs.errors import IdentityError
from certs.issue import Issuer, open_issuer
from control import ca_rotation
from control.ca_rotation import Generation, Generations, Phase
from control.secret_files import read_private, replace_file
from sidecar.errors import StartError

STATE = "authority.json"
ROOTS = "root.pem"
STATE_BYTES = 1024 * 1024
FORMAT = 1
_log = logging.getLogger(__name__)


class _Stored(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    id: str
    phase: str
    since: float
    until: float
    chain: str  # PEM: the authority that issues, then the root
    key: str


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: int
    trust_domain: str
    generations: list[_Stored]


class Keyring(Protocol):
    """Keeps generations."""

    def load(self, now: float) -> Generations:
        """Those that were saved last; none at the first start. StartError where they can't be used."""

    def save(self, generations: Generations) -> None:
        """Replaces them, all or nothing; OSError where that fails."""


class MemoryKeyring:
    """Keeps them as long as the process lives."""

    def load(self, now: float) -> Generations:
        """See ``Keyring``."""
        return ()

    def save(self, generations: Generations) -> None:
        """See ``Keyring``."""


class DirectoryKeyring:
    """Keeps them in a directory that :func:`open_directory` has checked."""

    def __init__(self, directory: Path, trust_domain: str) -> None:
        self._directory = directory
        self._trust_domain = trust_domain

    def load(self, now: float) -> Generations:
        """See ``Keyring``."""
        path = self._directory / STATE
        data = read_private(path, "--ca-dir", STATE_BYTES)
        if data is None:
            return ()
        try:
            stored = msgspec.json.decode(data, type=_File)
            if stored.format != FORMAT:
                raise StartError(f"--ca-dir: {path} was written by another version; use that one")
            if stored.trust_domain != self._trust_domain:
                raise StartError(
                    f"--trust-domain: the authority in {self._directory} is that of {stored.trust_domain}; "
                    "name that, or another --ca-dir"
                )
            generations = tuple(_open(one, stored.trust_domain, now) for one in _still_needed(stored, now))
            ca_rotation.check(generations)
        except (msgspec.DecodeError, IdentityError, ValueError) as error:
            raise StartError(
                f"--ca-dir: {path} is not an authority that can be used ({_why(error)}); put back a copy, or name an "
                "empty directory for a new one"
            ) from None
        return generations

    def save(self, generations: Generations) -> None:
        """See ``Keyring``."""
        stored = _File(
            format=FORMAT, trust_domain=self._trust_domain, generations=[_stored(one) for one in generations]
        )
        replace_file(self._directory / STATE, msgspec.json.encode(stored))
        roots = pem.to_pem(one.issuer.root for one in generations)
        replace_file(self._directory / ROOTS, roots.encode())


def _still_needed(stored: _File, now: float) -> list[_Stored]:
    """Without what has retired meanwhile, which may have expired."""
    return [one for one in stored.generations if one.phase != Phase.RETIRING.value or one.until > now]


def _stored(one: Generation) -> _Stored:
    return _Stored(
        id=one.id,
        phase=one.phase.value,
        since=one.since,
        until=one.until,
        chain=pem.to_pem(one.issuer.chain),
        key=keys.key_to_pem(one.issuer.key).decode(),
    )


def _open(one: _Stored, trust_domain: str, now: float) -> Generation:
    issuer = open_issuer(
        pem.from_pem(one.chain), keys.key_from_pem(one.key.encode()), now=now, trust_domain=trust_domain
    )
    return Generation(one.id, issuer, Phase(one.phase), one.since, one.until)


def _why(error: Exception) -> str:
    return error.detail if isinstance(error, IdentityError) else "it is cut short or was changed"


def brought(
    cert_file: str, key_file: str, trust_domain: str, now: float
) -> tuple[Issuer, tuple[x509.Certificate, ...]]:
    """The authority in two files of PEM, and the further roots that follow behind its own: trusted as well, so that
    one root can follow another. StartError where it can't be used."""
    try:
        found = pem.from_pem(Path(cert_file).read_bytes())
    except (OSError, IdentityError) as error:
        raise StartError(f"--ca-cert: {cert_file} can't be used: {_reason(error)}") from None
    try:
        key = keys.key_from_pem(Path(key_file).read_bytes())
    except (OSError, IdentityError) as error:
        raise StartError(f"--ca-key: {key_file} can't be used: {_reason(error)}") from None
    ends = next((at for at, one in enumerate(found, start=1) if one.subject == one.issuer), len(found))
    try:
        issuer = open_issuer(found[:ends], key, now=now, trust_domain=trust_domain)
        for root in found[ends:]:
            rules.judge_authority(facts.read(root))
    except IdentityError as error:
        raise StartError(f"--ca-cert: {cert_file} with the key in {key_file}: {error.detail}") from None
    if Path(key_file).stat().st_mode & 0o077:
        _log.warning("--ca-key: %s can be read by others; chmod 600 it", key_file)
    return issuer, found[ends:]


def _reason(error: OSError | IdentityError) -> str:
    return error.detail if isinstance(error, IdentityError) else str(error.strerror)
