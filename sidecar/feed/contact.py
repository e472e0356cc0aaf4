"""Whom to trust at the control plane, and what to show there: a certificate once there is one, a token before.

Who calls it: ``feed.identity``, before each call. A join token says by itself who the control plane must be and which
root its chain must end in; a token of another kind is taken to whoever ``--control-ca`` and ``--control-id`` say. Both
are read again at each use, so that they can be replaced while the process runs. A token is never logged.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import trio
from cryptography import x509

from certs import jointoken, spiffe
from certs.bundle import Bundle, Bundles
from certs.errors import IdentityError, Refusal
from certs.facts import key_id_of
from certs.pem import PEM_BYTES, from_pem
from certs.revocation import Revocations
from certs.spiffe import SpiffeId
from certs.verify import Peer, verify_peer
from sidecar.errors import ProxyError
from sidecar.feed.control_client import ControlError, Way
from sidecar.identity import Identity
from sidecar.net.contexts import first_contact_context
from sidecar.net.tls import Judge
from sidecar.settings import Settings

TOKEN_BYTES: Final = 16 * 1024  # of the file; a Kubernetes token has 1 to 2 KiB


class Shown(msgspec.Struct, frozen=True):
    """A token that was read. ``pins`` are there for join tokens alone."""

    text: str
    control_id: SpiffeId
    pins: tuple[bytes, ...] = ()

    def __repr__(self) -> str:
        return f"Shown(for {self.control_id})"


class Contact:
    """``control_id`` is who the control plane has to be, as far as was told until now."""

    def __init__(self, settings: Settings, identity: Identity, clock: Callable[[], float]) -> None:
        self.control_id = spiffe.parse(settings.control_id)
        self._settings = settings
        self._identity = identity
        self._clock = clock

    def ours(self) -> SpiffeId:
        """Who we are to become: in the control plane's trust domain. Raises IdentityError."""
        return spiffe.workload(self.control_id.trust_domain, self._settings.namespace, self._settings.service_account)

    def remember(self, control_id: str) -> None:
        """Who it was before a restart. Raises IdentityError."""
        self.control_id = spiffe.parse(control_id)

    def known(self) -> Way | None:
        """By our own certificate; None where there is none that is good, or no TLS."""
        if self._settings.control is None or not self._settings.control.secure:
            return None
        try:
            generation = self._identity.require()
        except ProxyError:
            return None
        judge = self._identity.judge(generation, frozenset({self.control_id}))
        return Way(generation.client(), judge)

    async def first(self) -> Way:
        """By the token. Raises ControlError where it, or the file with the roots, can't be read."""
        if not self._settings.token_file:
            raise ControlError("no_token", "there is no good certificate to show, and no --token-file")
        return await trio.to_thread.run_sync(self._first)  # files may be slow

    def _first(self) -> Way:
        shown = self._read_token()
        self.control_id = shown.control_id
        assert self._settings.control is not None
        if not self._settings.control.secure:
            return Way(token=shown.text, pins=shown.pins)
        roots = self._read_roots()
        if not roots and not shown.pins:
            raise ControlError("no_trust", "--token-file does not say whom to trust, and there is no --control-ca")
        return Way(first_contact_context(), self._judge(shown, roots), shown.text)

    def _judge(self, shown: Shown, roots: tuple[x509.Certificate, ...]) -> Judge:
        def judge(chain: Sequence[x509.Certificate]) -> Peer:
            trusted = roots or pinned(chain, shown.pins)
            bundles = Bundles.of(Bundle(shown.control_id.trust_domain, trusted))
            expected = frozenset({shown.control_id})
            return verify_peer(chain, bundles, Revocations(), self._clock(), expected=expected)

        return judge

    def _read_token(self) -> Shown:
        data = _read(self._settings.token_file, "--token-file", TOKEN_BYTES).strip()
        try:
            text = data.decode("ascii")
        except UnicodeDecodeError:
            text = ""
        if not text or not text.isprintable() or " " in text:
            raise ControlError("no_token", "--token-file: there is no token in it")
        if not text.startswith(f"{jointoken.PREFIX}."):
            return Shown(text, spiffe.parse(self._settings.control_id))
        try:
            token = jointoken.parse(text)
            return Shown(text, spiffe.parse(token.control_id), token.pins)
        except (ValueError, IdentityError):
            raise ControlError("no_token", "--token-file: its join token is damaged; copy it again") from None

    def _read_roots(self) -> tuple[x509.Certificate, ...]:
        if not self._settings.control_ca:
            return ()
        try:
            roots = from_pem(_read(self._settings.control_ca, "--control-ca", PEM_BYTES))
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
        raise ControlError("no_token" if flag == "--token-file" else "no_trust", f"{flag}: {error.strerror}") from None
    if len(data) > most:
        raise ControlError("no_token" if flag == "--token-file" else "no_trust", f"{flag}: more than {most} bytes")
    return data
