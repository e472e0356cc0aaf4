"""Makes what speaks with the control plane, from the settings. Called by ``mesh_runtime`` with ``--control``."""

from __future__ import annotations

from collections.abc import Callable
from random import getrandbits, random
from socket import gethostname
from time import time
from typing import TYPE_CHECKING, Final

from sidecar.feed.certificate_renewal import IdentityFeed
from sidecar.feed.control_auth import ControlAuth
from sidecar.feed.control_client import ControlClient
from sidecar.feed.identity_dir import IdentityDir
from sidecar.feed.retrying_client import RetryingClient
from sidecar.feed.snapshot_feed import SnapshotFeed
from sidecar.feed.snapshot_holder import SnapshotHolder
from sidecar.feed.state_dir import StateDir
from sidecar.identity import Identity
from sidecar.net.connection import Connection
from sidecar.net.local_addresses import every_outward_address
from sidecar.net.resolve import Resolver
from sidecar.registration_flags import Advertise, instance_name
from sidecar.settings import Settings

if TYPE_CHECKING:
    from sidecar.feed.registration import Registration

KEPT_LINES: Final = 4  # three polls, and one for all that is told in between


def control_caller(
    settings: Settings,
    identity: Identity,
    connections: set[Connection],
    clock: Callable[[], float] = time,
    chance: Callable[[], float] = random,
) -> RetryingClient:
    """``clock`` is the wall clock, ``chance`` in [0, 1)."""
    assert settings.control is not None
    client = ControlClient(settings.control, Resolver(own=settings.dns), connections, clock, kept=KEPT_LINES)
    return RetryingClient(identity, ControlAuth(settings, identity, clock), client, clock=clock, chance=chance)


def identity_feed(settings: Settings, identity: Identity, caller: RetryingClient) -> IdentityFeed:
    """Not running yet. Raises StartError where ``--identity-dir`` can't be used."""
    directory = IdentityDir(settings.identity_dir) if settings.identity_dir else None
    return IdentityFeed(identity, caller, directory)


def snapshot_feed(settings: Settings, caller: RetryingClient, current: SnapshotHolder, instance: str) -> SnapshotFeed:
    """Not running yet; what was kept of a Snapshot is in force. Raises StartError: ``--state-dir`` can't be used."""
    directory = StateDir(settings.state_dir) if settings.state_dir else None
    feed = SnapshotFeed(caller, current, settings.me, instance, directory)
    if directory is not None:
        feed.take_kept()
    return feed


def instance_of(settings: Settings) -> str:
    """What tells this process from others of its identity."""
    return settings.instance or instance_name(gethostname(), getrandbits(32))


def registration_of(
    settings: Settings,
    caller: RetryingClient,
    instance: str,
    connections: set[Connection],
    taken_out: Callable[[], str],
) -> Registration | None:
    """Not running yet; None where there is nothing to register. ``taken_out``: why new work is not welcome here."""
    by_file = bool(settings.mesh or settings.config)  # then our service may be in no document, and nobody asks for us
    if not settings.service or settings.advertise is None or (by_file and settings.advertise == Advertise()):
        return None
    from sidecar.feed.app_health import Health, look_of  # not before: many a sidecar has no app whose health it reports
    from sidecar.feed.registration import Place, Registration

    place = Place(
        settings.namespace, settings.service, settings.service_account, instance, f"{getrandbits(128):032x}",
        settings.interception == "redirect", settings.advertise, settings.labels,
    )  # fmt: skip
    check = settings.health
    health = None if check is None else Health(settings, look_of(check, settings, connections), random)
    # Without interception it is reached where it listens, which the control plane sees.
    named = every_outward_address if place.captured and not place.advertise.address else list[str]
    return Registration(caller, place, health, taken_out, named)
