"""The text of a mesh file -> a Snapshot, or every problem at once, each with its file and line. Pure.

Who calls it: ``feed.mesh_file`` and ``sidecar check-config``. What is only odd is told in ``notes``, and taken.
"""

from __future__ import annotations

from typing import Final

import msgspec

from certs.spiffe import workload
from sidecar.resources import yaml_reader
from sidecar.resources.compile import compile_mesh
from sidecar.resources.schema import MeshFile, PeerAuthenticationSpec
from sidecar.resources.snapshot import Mode, Node, Snapshot, Version, effective
from sidecar.resources.validation import Problem, shape

MAX_BYTES: Final = 8 << 20  # 25,000 services as people write them; a larger file is refused
MAX_PROBLEMS: Final = 100  # that are told; the rest is a number


class Loaded(msgspec.Struct, frozen=True):
    """Either a Snapshot or problems, a line each that begins with the file's name; and notes, likewise."""

    snapshot: Snapshot | None = None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def load_mesh(content: bytes, file: str, me: Node, version: Version) -> Loaded:
    """What the file named ``file`` amounts to for ``me``. Never raises for anything that can be in a file."""
    if len(content) > MAX_BYTES:
        return Loaded(problems=(f"{file}: is longer than {MAX_BYTES >> 20} MiB",))
    try:
        text = yaml_reader.read(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return Loaded(problems=(f"{file}:{line}: this is no UTF-8",))
    except yaml_reader.BadText as error:
        return Loaded(problems=(f"{file}:{error.line}: {error.why}" if error.line else f"{file}: {error.why}",))
    mesh, problems = shape(MeshFile, text.root)
    if mesh is None:
        return _refused(problems, text, file)
    snapshot, problems = compile_mesh(mesh, me, version=version)
    if snapshot is None:
        return _refused(problems, text, file)
    return Loaded(snapshot, notes=tuple(f"{file}: {note}" for note in notes_of(snapshot, mesh.peer_authentication)))


def _refused(problems: list[Problem], text: yaml_reader.Text, file: str) -> Loaded:
    """The problems in the order of their lines."""
    placed = sorted(((text.line(each.path), each) for each in problems), key=lambda pair: pair[0])
    lines = [f"{file}:{line}: {each}" for line, each in placed[:MAX_PROBLEMS]]
    if len(placed) > MAX_PROBLEMS:
        lines.append(f"{file}: and {len(placed) - MAX_PROBLEMS} more problems")
    return Loaded(problems=tuple(lines))


def notes_of(snapshot: Snapshot, spec: PeerAuthenticationSpec) -> list[str]:
    """What is odd for this proxy, of which ``spec`` was written, and yet no reason to refuse it."""
    me, notes = snapshot.me, []
    if me.service and snapshot.own is None:
        notes.append(f"there is no service {me.service} in namespace {me.namespace}, which --service names")
    if snapshot.own is not None:
        ours = workload(snapshot.trust_domain, me.namespace, me.service_account)
        if ours not in snapshot.own.identities:
            notes.append(f"{ours}, as which this sidecar runs, is not among those who may serve {me.service}")
    written = {Mode(each.mode) for each in (spec.mtls, *spec.port_level_mtls.values()) if each.mode != "UNSET"}
    if me.mtls is not None:
        looser = [mode for mode in Mode if mode in written and effective(me.mtls, mode) is not mode]
        notes.extend(f"mode {mode} is looser than --mtls {me.mtls.lower()}, which stays in force" for mode in looser)
    return notes
