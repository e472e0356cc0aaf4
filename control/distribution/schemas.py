"""What the calls of distribution read and write, as frozen values. Pure."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

PROBLEMS: Final = 20


class Status(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST /v1/snapshot/status``: a version was taken, or refused for these reasons. ``held`` is the one
    that is obeyed; empty: none."""

    version: str
    accepted: bool
    problems: Annotated[list[str], msgspec.Meta(max_length=PROBLEMS)] = []
    held: str = ""
    software: Annotated[str, msgspec.Meta(max_length=64)] = ""


class RefusedShown(msgspec.Struct, frozen=True):
    """The last version that a proxy refused, when and why."""

    version: str
    at: str
    problems: tuple[str, ...]


class ProxyShown(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A proxy as operators and readers see it. ``state`` is ``in sync``, ``behind``, ``refused``, or
    ``unknown``: it has judged the newest and did not say how yet; ``held`` the version that it obeys, ``offered`` the
    newest that there is for it; ``accepted`` what it said of the one that it judged last."""

    proxy: str
    instance: str
    state: str
    address: str
    first_seen: str
    last_seen: str
    held: str = ""
    offered: str = ""
    accepted: bool | None = None
    refused: RefusedShown | None = None
    certificate_expires: str = ""
    software: str = ""


class ProxiesShown(msgspec.Struct, frozen=True, omit_defaults=True):
    """A page of them."""

    proxies: list[ProxyShown]
    continue_: str = msgspec.field(default="", name="continue")
