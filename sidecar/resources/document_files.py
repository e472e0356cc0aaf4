"""The documents of a set of files -> one mesh, or every problem at once, each with its file and line. Pure.

Who calls it: ``sidecarctl check`` and ``apply`` (``read_config``), ``feed.config_files`` and ``sidecar check-config``
(``load_config``, which goes on to a Snapshot). The set is taken whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

import msgspec

from certs.errors import IdentityError
from certs.spiffe import workload
from sidecar.resources.conflicts import Finding, problems_of
from sidecar.resources.documents import Document, Key, Placed, bounded, placed_documents
from sidecar.resources.incremental_compile import Compiled, compile_slices
from sidecar.resources.lint import lint
from sidecar.resources.load import Loaded, notes_of
from sidecar.resources.lone_proxy import notes_alone, odd_alone, unenforceable
from sidecar.resources.mesh_documents import Mesh
from sidecar.resources.snapshot import Node, Version
from sidecar.resources.validation import path_text
from sidecar.resources.virtual_addresses import virtual_addresses
from sidecar.resources.visibility import scope_of, scoped_mesh


class Config(msgspec.Struct, frozen=True):
    """The documents of a set, as ``mesh`` and in the order in which they stand; None and nothing where there
    are problems. ``notes`` are what is only odd. Both are lines that begin with a file's name."""

    mesh: Mesh | None = None
    documents: tuple[Document, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_config(
    files: Iterable[tuple[str, bytes]],
    trust_domain: str = "cluster.local",
    odd: Callable[[Mesh], Iterable[Finding]] = lint,
) -> Config:
    """What files, each with its name and content, amount to together; ``odd`` finds what becomes a note. Never raises
    for anything that can be in them."""
    placed: list[Placed] = []
    problems: list[str] = []
    last = ""
    for name, content in files:
        found, wrong = placed_documents(content, name)
        placed += found
        problems += wrong
        last = name
    known: dict[Key, Placed] = {}
    for each in placed:
        first = known.setdefault(each.document.key, each)
        if first is not each:
            problems.append(f"{each.at()}: {each.document.title} stands in {first.at()} already")
    if problems:
        return Config(problems=bounded(problems, last))
    mesh = Mesh((each.document for each in placed), trust_domain)
    conflicts = problems_of(mesh)
    if conflicts:
        return Config(problems=bounded([_line(each, known) for each in conflicts], last))
    return Config(mesh, tuple(each.document for each in placed), (), tuple(_line(each, known) for each in odd(mesh)))


def load_config(
    files: Sequence[tuple[str, bytes]],
    me: Node,
    trust_domain: str,
    version: Version,
    alone: Mapping[str, str] | None = None,
) -> Loaded:
    """What the proxy that is ``me`` obeys by these files alone. Likewise. ``alone``: there is no control plane, so no
    identity; selectors look at these labels beside those of services; see ``lone_proxy``."""
    config = read_config(files, trust_domain, lint if alone is None else lambda mesh: odd_alone(mesh, me, alone))
    if config.mesh is None:
        return Loaded(problems=config.problems)
    named = files[0][0] if len(files) == 1 else "documents"
    try:
        identity = workload(trust_domain, me.namespace, me.service_account)
    except IdentityError as error:
        return Loaded(problems=(f"{named}: this sidecar's identity: {error.detail}",))
    labels = [] if alone is None else [alone]
    scope = scope_of(config.mesh, me.namespace, me.service_account, labels)
    if alone is not None:
        unmet = unenforceable(scope)
        if unmet:
            return Loaded(problems=tuple(f"{named}: {each}" for each in unmet))
    virtual = virtual_addresses(scope.services)  # no document names one of these
    scoped = scoped_mesh(
        config.mesh,
        identity,
        virtual_of=lambda place: virtual.get(place, ()),
        version=str(version),
        issued=0.0,
        labels=labels,
    )
    if alone is not None:
        scoped = msgspec.structs.replace(scoped, services=[])  # they can't be called without a certificate
    compiled = _drained(compile_slices(msgspec.json.encode(scoped), me, "file"))
    if compiled.snapshot is None:
        return Loaded(problems=tuple(f"{named}: {each}" for each in compiled.problems))
    mine = [f"{named}: {note}" for note in notes_of(compiled.snapshot, scope.peer_authentication)]
    if alone is not None:
        mine += [f"{named}: {note}" for note in notes_alone(config.mesh, scope)]
    return Loaded(compiled.snapshot, notes=(*config.notes, *mine))


def _line(finding: Finding, known: Mapping[Key, Placed]) -> str:
    return f"{known[finding.key].at(finding.path)}: {path_text(finding.path)}: {finding.why}"


def _drained(steps: Generator[None, None, Compiled]) -> Compiled:
    while True:
        try:
            next(steps)
        except StopIteration as done:
            found: Compiled = done.value
            return found
