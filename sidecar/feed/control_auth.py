"""Whom to trust at the control plane, and what to show there: a certificate once there is one, a token before.

Who calls it: ``feed.certificate_renewal``, before each call. What a token says of whom to trust is read in
``feed.bootstrap_trust``, at each use, so that it can be replaced while the process runs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import trio

from certs import spiffe
from certs.spiffe import SpiffeId
from sidecar.errors import ProxyError
from sidecar.feed.bootstrap_trust import first_way
from sidecar.feed.control_client import ControlError, Way
from sidecar.identity import Identity
from sidecar.settings import Settings


class ControlAuth:
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

    def learn(self) -> None:
        """Who it is by the token, before anything was asked; nothing where that can't be read. Blocks."""
        with suppress(ControlError):
            _, self.control_id = first_way(self._settings, self._clock)

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
        way, self.control_id = await trio.to_thread.run_sync(first_way, self._settings, self._clock)
        return way
