"""The rules of an AuthorizationPolicy, as frozen structs: what documents, the wire and the engine share. Pure.

Names and meaning are Istio's (``security.istio.io/v1``). ``kinds`` has the document, ``proxy_config`` the form in which
the control plane sends it, ``policy.rbac`` what is compiled from it.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Action = Literal["ALLOW", "DENY", "AUDIT"]


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, rename="camel"):
    """A mapping whose every field is known."""


class Source(_Part, frozen=True):
    """Who calls. All fields that are given must match; of each one value must, and of a ``not`` twin none may."""

    principals: list[str] = []
    not_principals: list[str] = []
    namespaces: list[str] = []
    not_namespaces: list[str] = []
    service_accounts: list[str] = []
    not_service_accounts: list[str] = []
    ip_blocks: list[str] = []
    not_ip_blocks: list[str] = []
    remote_ip_blocks: list[str] = []
    not_remote_ip_blocks: list[str] = []


class Operation(_Part, frozen=True):
    """What is called; likewise."""

    hosts: list[str] = []
    not_hosts: list[str] = []
    ports: list[str] = []
    not_ports: list[str] = []
    methods: list[str] = []
    not_methods: list[str] = []
    paths: list[str] = []
    not_paths: list[str] = []


class Condition(_Part, frozen=True):
    """An attribute that has one of ``values`` and none of ``not_values``."""

    key: str
    values: list[str] = []
    not_values: list[str] = []


class From(_Part, frozen=True):
    """A source, one of several."""

    source: Source


class To(_Part, frozen=True):
    """An operation, one of several."""

    operation: Operation


class Rule(_Part, frozen=True):
    """It matches what comes from one of ``from``, to one of ``to``, under all of ``when``. A list that is left out
    matches all."""

    from_: list[From] | None = msgspec.field(name="from", default=None)
    to: list[To] | None = None
    when: list[Condition] | None = None


class PolicySpec(_Part, frozen=True):
    """A policy that holds at one proxy. ``dry_run``: it is judged, counted and logged, and refuses nothing."""

    name: str
    namespace: str
    action: Action = "ALLOW"
    rules: list[Rule] = []
    dry_run: bool = False

    @property
    def title(self) -> str:
        """``NAMESPACE/NAME``, as records and refusals name it."""
        return f"{self.namespace}/{self.name}"
