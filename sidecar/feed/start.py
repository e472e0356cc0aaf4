"""Makes the feed of identity from the settings. Called by ``membership`` where ``--control`` was given."""

from __future__ import annotations

from collections.abc import Callable
from random import random
from time import time

from sidecar.feed.contact import Contact
from sidecar.feed.control_client import ControlClient
from sidecar.feed.identity import IdentityFeed
from sidecar.feed.identity_dir import IdentityDir
from sidecar.identity import Identity
from sidecar.net.channel import Channel
from sidecar.net.resolve import Resolver
from sidecar.settings import Settings


def identity_feed(
    settings: Settings,
    identity: Identity,
    channels: set[Channel],
    clock: Callable[[], float] = time,
    chance: Callable[[], float] = random,
) -> IdentityFeed:
    """Not running yet. ``clock`` is the wall clock, ``chance`` in [0, 1).

    Raises StartError where ``--identity-dir`` can't be used.
    """
    assert settings.control is not None
    directory = IdentityDir(settings.identity_dir) if settings.identity_dir else None
    client = ControlClient(settings.control, Resolver(own=settings.dns), channels, clock)
    return IdentityFeed(identity, Contact(settings, identity, clock), client, directory, clock=clock, chance=chance)
