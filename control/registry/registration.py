"""An endpoint as it is kept, and what a registration may say. Pure.

Who calls it: ``control.registry.api`` judges what a sidecar sent, the table reads what was kept. A registration says
where a workload is reached and how well it is; who it is, is never taken from it, nor what policy is to select it by:
``labels`` serve subsets only. Whatever is taken here goes to every proxy that sees the service, so it must be right by
the rules of ``sidecar.resources.compile``: one endpoint that is not would be the end of their whole configuration.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from typing import Annotated, Final

import msgspec

from control.problems import Invalid
from sidecar import value_parsers
from sidecar.resources.proxy_config import RegisteredSpec
from sidecar.resources.schema import Port, PortSpec
from sidecar.resources.snapshot import Reach

SHORTEST_TTL: Final = 3.0  # seconds; a heartbeat a second is as much as one endpoint may cost
LONGEST_TTL: Final = 300.0  # who is dead is called for that long, at most
ADDRESSES: Final = 16  # of an endpoint; a pod has one or two of each family
LABELS: Final = 32  # each goes to every proxy that sees the service
LABEL_CHARS: Final = 63  # Kubernetes' bound for values, and for names behind the prefix
LABEL_NAME_CHARS: Final = 253 + 1 + 63
DETAIL_CHARS: Final = 256  # a sentence for people, which is kept in memory
_ID: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?", re.ASCII)
_PROCESS: Final = re.compile(r"[A-Za-z0-9_-]{0,64}", re.ASCII)
_LABEL_NAME: Final = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", re.ASCII
)
_LABEL_VALUE: Final = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?", re.ASCII)


class RegisteredEndpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An endpoint. ``identity`` is the SPIFFE id that it belongs to; ``healthy`` None: nobody checks its app.

    ``registrant`` stands for the identity and the process that registered it (see :func:`registrant`); it is empty in
    entries of earlier versions, which no process speaks for any more. ``registered``: since when, in seconds since the
    epoch; ``changed``: since when its health is what it is. ``others`` are its addresses beside ``address``; ``proven``
    those from which its process has called.
    ``ttl`` in seconds.
    """

    id: str
    identity: str
    registrant: str = ""
    address: str
    others: tuple[str, ...] = ()
    proven: tuple[str, ...] = ()
    port: int | None = None
    ports: dict[str, int] = {}
    mode: Reach = "captured"
    labels: dict[str, str] = {}
    ttl: float
    healthy: bool | None = None
    detail: str = ""
    registered: float
    changed: float

    @property
    def key(self) -> str:
        """By which it is told from others of its service, also from those with the same ``id``."""
        return key_of(self.id, self.registrant)

    def meets(self, other: RegisteredEndpoint) -> bool:
        """Whether both are at one place: of one identity and one id, the later is the earlier after a restart."""
        return not self.places.isdisjoint(other.places)

    @property
    def addresses(self) -> tuple[str, ...]:
        """All of them; callers dial them in this order."""
        return (self.address, *self.others)

    @property
    def places(self) -> frozenset[tuple[object, ...]]:
        """Its addresses with its ports."""
        return frozenset((address, *self.ports_key) for address in self.addresses)

    @property
    def ports_key(self) -> tuple[object, ...]:
        """Its ports, as far as two endpoints at one address may differ in them."""
        return self.port, tuple(sorted(self.ports.items()))

    @property
    def health(self) -> str:
        """As people are told: ``healthy``, ``unhealthy``, or ``unknown``."""
        return "unknown" if self.healthy is None else "healthy" if self.healthy else "unhealthy"

    @property
    def weight(self) -> int:
        """How much room it takes in what each of its callers is told, in bytes and roughly."""
        labels = sum(map(len, self.labels)) + sum(map(len, self.labels.values()))
        return 128 + 48 * len(self.others) + labels + 8 * len(self.labels) + sum(len(name) + 8 for name in self.ports)

    def spec(self, addresses: Sequence[str]) -> RegisteredSpec:
        """As callers are told of it, at these of its addresses."""
        address, *others = addresses
        return RegisteredSpec(
            address, self.port, self.ports, self.mode, self.labels,
            since=round(self.registered, 3), also_at=others, unwell=self.healthy is False,
        )  # fmt: skip


Process = Annotated[str, msgspec.Meta(max_length=64, pattern="^[A-Za-z0-9_-]*$")]


class Registration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``PUT .../endpoints/{id}``. ``address`` empty: where the call comes from. ``addresses`` are further
    ones: those that it may have are taken, and the answer names the others. ``process`` tells the process that
    registers from others with the same id; it draws it by chance when it starts."""

    address: str = ""
    addresses: Annotated[list[str], msgspec.Meta(max_length=ADDRESSES)] = []
    port: Port | None = None
    ports: dict[str, Port] = {}
    mode: Reach = "captured"
    labels: dict[str, str] = {}
    ttl: Annotated[str, msgspec.Meta(max_length=32)] = "15s"
    healthy: bool | None = None
    detail: str = ""
    process: Process = ""


class Heartbeat(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of ``POST .../heartbeat``. ``process`` as in the registration."""

    healthy: bool | None = None
    detail: str = ""
    process: Process = ""


def registrant(identity: str, process: str) -> str:
    """What stands for a process of an identity, in 16 hexadecimal digits."""
    return hashlib.sha256(f"{identity} {process}".encode()).hexdigest()[:16]


def key_of(endpoint_id: str, registrant: str) -> str:
    """See ``RegisteredEndpoint.key``."""
    return f"{endpoint_id}/{registrant}" if registrant else endpoint_id


def check_process(text: str) -> str:
    """The same; Invalid where it can't be a process's."""
    if not _PROCESS.fullmatch(text):
        raise Invalid("process: it is not one: letters, digits, _ and -, at most 64")
    return text


def check_id(text: str) -> None:
    """Invalid where it can't be an endpoint's."""
    if not _ID.fullmatch(text):
        raise Invalid("the endpoint's id is not one: a-z, 0-9, inner dots and hyphens, at most 63")


def check(wanted: Registration, ports: Collection[PortSpec]) -> float:
    """The ttl (s) of a registration that may stand, for a service with these ports; Invalid where it may not."""
    _check_ports(wanted, ports)
    _check_labels(wanted.labels)
    try:
        ttl = value_parsers.positive_duration(wanted.ttl)
    except ValueError as error:
        raise Invalid(f"ttl: {error}; write for example 15s") from None
    if not SHORTEST_TTL <= ttl <= LONGEST_TTL:
        raise Invalid(f"ttl: {wanted.ttl} is not from {SHORTEST_TTL:g}s to {LONGEST_TTL / 60:g}m")
    return ttl


def printable(detail: str) -> str:
    """A sentence for people as it is kept. What is not printable is shown escaped, and what is too long is cut: nobody
    goes unheard for having found many words."""
    shown = detail if detail.isprintable() else detail.encode("unicode_escape").decode("ascii")
    return shown if len(shown) <= DETAIL_CHARS else f"{shown[: DETAIL_CHARS - 3]}..."


def _check_ports(wanted: Registration, ports: Collection[PortSpec]) -> None:
    """The rules of ``sidecar.resources.compile`` for an endpoint's ports."""
    names = {port.name for port in ports if port.name}
    strange = sorted(set(wanted.ports) - names)
    if strange:
        known = ", ".join(sorted(names)) or "none of them has a name"
        raise Invalid(f"ports: {strange[0][:63]!r} is not the name of a port of this service ({known})")
    if wanted.port is not None and wanted.ports:
        raise Invalid("port and ports: one of them is enough")
    if wanted.mode == "direct":
        if wanted.port is None and not (names and names <= set(wanted.ports)):
            raise Invalid("port: a direct endpoint says at which port its sidecar listens")
    elif wanted.port is not None and len(ports) > 1:
        raise Invalid("port: it is one for several ports of the service; say ports, by their names")


def _check_labels(labels: dict[str, str]) -> None:
    if len(labels) > LABELS:
        raise Invalid(f"labels: more than {LABELS}")
    for name, value in labels.items():
        if len(name) > LABEL_NAME_CHARS or not _LABEL_NAME.fullmatch(name):
            raise Invalid(f"labels: {name[:63]!r} is not a label's name, as Kubernetes has them")
        if not _LABEL_VALUE.fullmatch(value):
            raise Invalid(f"labels: the value of {name} is not one, as Kubernetes has them")
