"""What holds between documents: two that contradict each other are refused, with all that came with them. Pure.

Who calls it: the control plane before it takes a change, ``sidecarctl check`` and ``sidecar --config``. A document
alone is judged by ``documents``; of several the only thing that can go wrong at a proxy is an address and port that two
of them claim: then nobody could say who is expected there, or whether it is spoken to in plaintext. So

- services share an address and port only where the same may serve them, and no place is both an app's and a sidecar's;
- a service entry shares none with a service, and in one namespace no host and port, and no address and port, with
  another entry. Entries of two namespaces may: the nearer one counts, then the first by name;
- a host of a service entry is no name of a service, nor does it cover one: a caller that does not know the service
  would speak to it in plaintext.

These are the rules of ``services`` for all of the mesh at once; what passes here is taken by every proxy, whatever its
scope. A claim is kept under its address and port, so one change among ten thousand documents is judged against its own
places.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import islice

import msgspec

from sidecar.addresses import parse_ip
from sidecar.resources.documents import Document, Key
from sidecar.resources.kinds import Service, ServiceEntry
from sidecar.resources.mesh_documents import Mesh, Place
from sidecar.resources.snapshot import Reach
from sidecar.resources.validation import Path, path_text

Where = tuple[str, int]  # an address in canonical form or a host, and a port


class Finding(msgspec.Struct, frozen=True):
    """What is wrong or odd between a document and others, and at which of its fields."""

    key: Key
    path: Path
    why: str

    def __str__(self) -> str:
        kind, namespace, name = self.key
        return f"{kind} {namespace}/{name}: {path_text(self.path)}: {self.why}"


class Claim(msgspec.Struct, frozen=True, gc=False):
    """A document's word on a place. ``identities`` None: plaintext; ``reach`` None: an address that stands for it."""

    key: Key
    path: Path
    identities: frozenset[str] | None
    reach: Reach | None


Claims = Mapping[Where, tuple[Claim, ...]]


def problems_of(mesh: Mesh, changed: Collection[Key] | None = None) -> list[Finding]:
    """All that contradicts in the mesh; or only where one of these documents, which are new in it, has a part."""
    table = mesh.remembered("claims", lambda: _table(mesh), lambda old, gone, new: _updated(old, gone, new, mesh))
    names: Iterable[Document] = mesh.of("ServiceEntry").values()  # whoever is shadowed is so by one of these
    if changed is None:
        wheres: Iterable[Where] = (where for where, claims in table.items() if len(claims) > 1)
    else:
        documents = [each for each in map(mesh.get, dict.fromkeys(changed)) if each is not None]
        wheres = dict.fromkeys(where for each in documents for where, _ in _claims(each, mesh.trust_domain))
        names = documents
    found = (conflict for where in wheres for conflict in _between(where, table[where]))
    return list(dict.fromkeys((*found, *_shadows(mesh, names))))


def _between(where: Where, claims: tuple[Claim, ...]) -> Iterator[Finding]:
    """What is wrong with the claims to one place: each against the first by kind, namespace and name."""
    if len(claims) < 2:
        return
    first, *others = sorted(claims, key=lambda each: each.key)
    place = f"{where[0]}, port {where[1]},"
    modes: dict[str, Claim] = {}
    for claim in (first, *others):
        if claim.reach is not None:
            known = modes.setdefault("reach", claim)
            if known.reach != claim.reach:
                yield Finding(
                    claim.key, claim.path, f"{place} is {known.reach} in {_title(known)} and {claim.reach} here"
                )
    stands = [each for each in (first, *others) if each.reach != "direct"]
    for claim in stands[1:]:
        known = stands[0]
        if claim.key == known.key:
            continue
        if claim.identities is None and known.identities is None:
            if claim.key[1] == known.key[1]:
                yield Finding(claim.key, claim.path, f"{place} is {_title(known)}'s already")
        elif claim.identities is None or known.identities is None:
            yield Finding(
                claim.key,
                claim.path,
                f"{place} is {_title(known)}'s as well: it can't be both plaintext and mutual TLS",
            )
        elif claim.identities != known.identities:
            yield Finding(claim.key, claim.path, f"{place} is {_title(known)}'s as well, which others may serve")


def _shadows(mesh: Mesh, documents: Iterable[Document]) -> Iterator[Finding]:
    """Hosts of entries that are names of services: of those of these documents. Names are looked up, never walked."""
    services, entries = mesh.of("Service"), mesh.of("ServiceEntry")
    for document in documents:
        if isinstance(document.spec, ServiceEntry):
            for index, host in enumerate(document.spec.hosts):
                place = _service_named(mesh, host)
                if place in services:
                    yield _shadow(document, index, "is", place)
                elif host.startswith("*"):
                    yield from (_shadow(document, index, "covers", each) for each in _covered(mesh, host))
        elif isinstance(document.spec, Service):
            place = document.key[1:]
            wide = [f"*.{end}" for end in sorted(_ends(mesh, place[0]))]
            for host, what in (*((host, "is") for host in _names(mesh, place)), *((host, "covers") for host in wide)):
                for entry in map(entries.__getitem__, mesh.entries.named(host)):
                    assert isinstance(entry.spec, ServiceEntry)
                    yield _shadow(entry, entry.spec.hosts.index(host), what, place)


def _shadow(entry: Document, index: int, what: str, place: Place) -> Finding:
    assert isinstance(entry.spec, ServiceEntry)
    why = f"{entry.spec.hosts[index]} {what} the service {place[1]} of namespace {place[0]}"
    why += ", which nobody is to speak to in plaintext; leave that host out"
    return Finding(entry.key, ("spec", "hosts", index), why)


def _covered(mesh: Mesh, host: str) -> Iterator[Place]:
    """A service that ``*.`` and the rest stand for, where there is one."""
    end = host.removeprefix("*.")
    if end in _ends(mesh, ""):  # all services of the mesh
        yield from islice(mesh.of("Service"), 1)
        return
    namespace, _ = _service_named(mesh, host)
    if end in _ends(mesh, namespace):
        yield from (each.key[1:] for each in mesh.in_namespace("Service", namespace)[:1])


def _ends(mesh: Mesh, namespace: str) -> frozenset[str]:
    """What follows a dot in the names of a namespace's services."""
    whole = f"svc.{mesh.trust_domain}".split(".")
    found = {"svc", *(".".join(whole[index:]) for index in range(len(whole)))}
    if namespace:
        found |= {namespace, f"{namespace}.svc", f"{namespace}.svc.{mesh.trust_domain}"}
    return frozenset(found)


def _names(mesh: Mesh, place: Place) -> tuple[str, ...]:
    """As a service is named beyond its namespace."""
    short = f"{place[1]}.{place[0]}"
    return short, f"{short}.svc", mesh.host_of(place)


def _service_named(mesh: Mesh, host: str) -> Place:
    """Where the service would be that a host names, ``name.namespace``, with ``.svc`` or that and the trust domain."""
    name, _, rest = host.partition(".")
    return rest.removesuffix(f".{mesh.trust_domain}").removesuffix(".svc"), name


def _title(claim: Claim) -> str:
    kind, namespace, name = claim.key
    return f"{kind} {namespace}/{name}"


# -- the table --------------------------------------------------------------------------------------------------------


def _table(mesh: Mesh) -> Claims:
    return _updated({}, (), mesh.documents(), mesh)


def _updated(old: Claims, gone: Iterable[Document], new: Iterable[Document], mesh: Mesh) -> Claims:
    table = dict(old)
    for document in gone:
        for where, _ in _claims(document, mesh.trust_domain):
            left = tuple(each for each in table.get(where, ()) if each.key != document.key)
            if left:
                table[where] = left
            else:
                table.pop(where, None)
    for document in new:
        for where, claim in _claims(document, mesh.trust_domain):
            table[where] = (*table.get(where, ()), claim)
    return table


def _claims(document: Document, trust_domain: str) -> Iterator[tuple[Where, Claim]]:
    """Each place of the document once."""
    seen: set[tuple[Where, Reach | None]] = set()
    spec = document.spec
    if isinstance(spec, Service):
        found = _of_service(document.key, spec, trust_domain)
    elif isinstance(spec, ServiceEntry):
        found = _of_entry(document.key, spec)
    else:
        return
    for where, claim in found:
        if (where, claim.reach) not in seen:
            seen.add((where, claim.reach))
            yield where, claim


def _of_service(key: Key, spec: Service, trust_domain: str) -> Iterator[tuple[Where, Claim]]:
    accounts = (f"spiffe://{trust_domain}/ns/{key[1]}/sa/{account}" for account in spec.service_accounts)
    identities = frozenset((*accounts, *spec.subject_alt_names))
    for index, text in enumerate(spec.addresses):
        for port in spec.ports:
            yield (_address(text), port.port), Claim(key, ("spec", "addresses", index), identities, None)
    for index, each in enumerate(spec.endpoints):
        for port in spec.ports:
            dialed = each.ports.get(port.name) or each.port or port.target_port or port.port
            path: Path = ("spec", "endpoints", index)
            yield (_address(each.address), dialed), Claim(key, path, identities, each.mode)


def _of_entry(key: Key, spec: ServiceEntry) -> Iterator[tuple[Where, Claim]]:
    for name, texts in (("addresses", spec.addresses), ("hosts", spec.hosts)):
        for index, text in enumerate(texts):
            for port in spec.ports:
                yield (_address(text), port.number), Claim(key, ("spec", name, index), None, None)


def _address(text: str) -> str:
    return str(parse_ip(text) or text)
