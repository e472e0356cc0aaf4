"""JSON Schemas of the documents, for editors: made of the same structs that documents are read by. Pure.

Who calls it: the generator of the site, and the control plane's description of its API. A schema says what has which
form; what the forms mean together is for ``documents`` to judge.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from sidecar.resources.field_docs import ABOUT
from sidecar.resources.kinds import API_VERSIONS, KINDS, Metadata
from sidecar.resources.unsupported import SET_BY_SERVERS

DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"

Json = dict[str, Any]


def schema_of(kind: str, definitions: str = "#/$defs/{name}") -> Json:
    """The schema of one kind of document, with what it refers to."""
    (metadata, spec), parts = _parts([Metadata, KINDS[kind]], definitions)
    required = ["spec"] if parts[kind].get("required") else []
    return {
        "$schema": DRAFT,
        "title": kind,
        "description": parts[kind]["description"],
        "type": "object",
        "properties": {
            "apiVersion": {"enum": list(API_VERSIONS[kind])},
            "kind": {"const": kind},
            "metadata": metadata,
            "spec": spec,
            "status": {"description": "left aside: a server adds it to what it shows"},
        },
        "required": ["apiVersion", "kind", "metadata", *required],
        "additionalProperties": False,
        "$defs": parts,
    }


def schema_of_all() -> Json:
    """The schema of a document of any kind: an editor needs only this one."""
    found = {kind: schema_of(kind) for kind in KINDS}
    parts = {name: part for each in found.values() for name, part in each["$defs"].items()}
    documents = {f"{kind}Document": _without(each, "$schema", "$defs") for kind, each in found.items()}
    return {
        "$schema": DRAFT,
        "title": "Documents of a mesh",
        "oneOf": [{"$ref": f"#/$defs/{name}"} for name in documents],
        "$defs": {**documents, **parts},
    }


def _parts(structs: list[type], definitions: str) -> tuple[list[Json], Json]:
    """What refers to each, and all that they consist of, by name."""
    refs, parts = msgspec.json.schema_components(structs, ref_template=definitions)
    named = {struct.__name__: struct for struct in ABOUT}
    for name, part in parts.items():
        part.pop("description", None)  # of the parts: they are for who reads the code
        if name in KINDS:
            part["description"] = _sentence(named[name])
        for field, about in ABOUT[named[name]].items():
            part["properties"][field]["description"] = about
    metadata = parts["Metadata"]["properties"]
    metadata |= {name: {"description": "left aside: a server sets it"} for name in sorted(SET_BY_SERVERS)}
    return list(refs), parts


def _sentence(struct: type) -> str:
    """The first paragraph of what is said of a struct, as one line without marks."""
    first = (struct.__doc__ or "").partition("\n\n")[0]
    return " ".join(first.split()).replace("``", "")


def _without(value: Json, *names: str) -> Json:
    return {name: each for name, each in value.items() if name not in names}
