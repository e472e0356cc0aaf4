"""Makes what speaks with the control plane, from the settings. Called by ``membership`` with ``--control``."""

from __future__ import annotations

from collections.abc import Callable
from random import random
from time import time
from typing import Final

from sidecar.feed.caller import Caller
from sidecar.feed.contact import Contact
from sidecar.feed.control_client import ControlClient
from sidecar.feed.identity import IdentityFeed
from sidecar.feed.identity_dir import IdentityDir
from sidecar.identity import Identity
from sidecar.net.channel import Channel
from sidecar.net.resolve import Resolver
from sidecar.settings import Settings

KEPT_LINES: Final = 4  # three polls, and one for all that is told in between


def control_caller(
    settings: Settings,
    identity: Identity,
    channels: set[Channel],
    clock: Callable[[], float] = time,
    chance: Callable[[], float] = random,
) -> Caller:
    """``clock`` is the wall clock, ``chance`` in [0, 1)."""
    assert settings.control is not None
    client = ControlClient(settings.control, Resolver(own=settings.dns), channels, clock, kept=KEPT_LINES)
    return Caller(identity, Contact(settings, identity, clock), client, clock=clock, chance=chance)


def identity_feed(settings: Settings, identity: Identity, caller: Caller) -> IdentityFeed:
    """Not running yet. Raises StartError where ``--identity-dir`` can't be used."""
    directory = IdentityDir(settings.identity_dir) if settings.identity_dir else None
    return IdentityFeed(identity, caller, directory)
