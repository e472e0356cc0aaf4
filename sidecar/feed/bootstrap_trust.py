"""Whom to trust at a control plane of which nothing is known yet but what a token and its caller say.

Who calls it: ``feed.control_auth`` for a proxy that has no certificate (yet), ``control.ctl`` for people. A join token
says by itself who the control plane must be and which root its chain must end in; a token of another kind is taken to
whoever ``--control-ca`` and ``--control-id`` say. Files are read anew for each way. A token is never logged.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec
from cryptography import x509

from certs import jointoken, spiffe
from certs.bundle import Bundle, Bundles
from certs.errors import IdentityError, Refusal
from certs.facts import key_id_of
from certs.pem import PEM_BYTES, from_pem
from certs.revocation import Revocations
from certs.spiffe import SpiffeId
from certs.verify import Peer, verify_peer
from sidecar.control_url import ControlUrl
from sidecar.feed.control_client import ControlError, Way
from sidecar.tls.contexts import first_contact_context
from sidecar.tls.handshake import Judge

TOKEN_BYTES: Final = 16 * 1024  # of the file; a Kubernetes token has 1 to 2 KiB


class Told(Protocol):
    """What was told: by flags, as they stand in Settings. ``control_ca`` is empty where there is none."""

    @property
    def control(self) -> ControlUrl | None: ...
    @property
    def token_file(self) -> str: ...
    @property
    def control_ca(self) -> str: ...
    @property
    def control_id(self) -> str: ...


class Shown(msgspec.Struct, frozen=True):
    """A token that was read. ``pins`` are there for join tokens alone."""

    text: str
    control_id: SpiffeId
    pins: tuple[bytes, ...] = ()

    def __repr__(self) -> str:
        return f"Shown(for {self.control_id})"


def first_way(told: Told, clock: Callable[[], float]) -> tuple[Way, SpiffeId]:
    """The way by the token, and who the control plane has to be. Reads files, which may be slow.

    Raises ControlError where the token, or the file with the roots, can't be read."""
    shown = _read_token(told)
    if told.control is not None and not told.control.secure:
        return Way(token=shown.text, pins=shown.pins), shown.control_id
    roots = _read_roots(told)
    if not roots and not shown.pins:
        raise ControlError(
            "no_trust",
            f"--token-file: {told.token_file} holds no join token (sct1...), which would say whom to trust; copy it "
            "again, or name roots by --control-ca",
        )
    return Way(first_contact_context(), _judge(shown, roots, clock), shown.text), shown.control_id


def _judge(shown: Shown, roots: tuple[x509.Certificate, ...], clock: Callable[[], float]) -> Judge:
    def judge(chain: Sequence[x509.Certificate]) -> Peer:
        trusted = roots or pinned(chain, shown.pins)
        bundles = Bundles.of(Bundle(shown.control_id.trust_domain, trusted))
        expected = frozenset({shown.control_id})
        return verify_peer(chain, bundles, Revocations(), clock(), expected=expected)

    return judge


def _read_token(told: Told) -> Shown:
    data = _read(told.token_file, "--token-file", TOKEN_BYTES).strip()
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        text = ""
    if not text or not text.isprintable() or " " in text:
        raise ControlError(
            "no_token", f"--token-file: there is no token in {told.token_file}; make one (sidecarctl token create)"
        )
    if not text.startswith(f"{jointoken.PREFIX}."):
        return Shown(text, spiffe.parse(told.control_id))
    try:
        token = jointoken.parse(text)
        return Shown(text, spiffe.parse(token.control_id), token.pins)
    except (ValueError, IdentityError):
        raise ControlError(
            "no_token", f"--token-file: the join token in {told.token_file} is damaged; copy it again"
        ) from None


def _read_roots(told: Told) -> tuple[x509.Certificate, ...]:
    if not told.control_ca:
        return ()
    try:
        roots = from_pem(_read(told.control_ca, "--control-ca", PEM_BYTES))
    except IdentityError as error:
        raise ControlError("no_trust", f"--control-ca: {error.detail}") from None
    if not roots:
        raise ControlError("no_trust", "--control-ca: there is no certificate in it")
    return roots


def pinned(certificates: Sequence[x509.Certificate], pins: Sequence[bytes]) -> tuple[x509.Certificate, ...]:
    """Those whose public key is pinned. IdentityError(UNKNOWN_AUTHORITY) where there is none."""
    found = tuple(each for each in certificates if key_id_of(each) in pins)
    if not found:
        raise IdentityError(Refusal.UNKNOWN_AUTHORITY, "it shows no root that the join token names")
    return found


def _read(path: str, flag: str, most: int) -> bytes:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise ControlError(
            "no_token" if flag == "--token-file" else "no_trust", f"{flag}: {path}: {error.strerror}"
        ) from None
    if len(data) > most:
        raise ControlError(
            "no_token" if flag == "--token-file" else "no_trust", f"{flag}: {path}: more than {most} bytes"
        )
    return data
