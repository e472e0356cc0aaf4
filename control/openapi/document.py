"""The table of calls and what they take and give, as OpenAPI 3.1. Pure.

Who calls it: ``api`` once, the page of the site, and tests. Schemas are those of the structs that requests are read
into and answers made of, so they can't differ from what is done; the schema of a document is that of its kinds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from control.openapi.components import Described, Parameter, ProblemDocument
from control.openapi.operation_docs import DESCRIBED, DOCUMENT, DOCUMENTS
from control.problems import TITLES
from control.routes import CALLS, Call, Role
from sidecar import __version__
from sidecar.resources.kinds import API_VERSIONS, KINDS, Metadata

Json = dict[str, Any]
_TOLD: Final = {201: "it was made", 202: "it has begun", 204: "done", 304: "what the caller has is right"}
PROBLEM: Final = "application/problem+json"
_WHERE: Final = "#/components/schemas/{name}"
_PLACES: Final = {
    "kind": (f"one of {', '.join(KINDS)}", "Service"),
    "namespace": ("a namespace", "shop"),
    "name": ("the name in it", "web"),
    "id": ("an id, as it was given", "web-1"),
}


def document() -> Json:
    """The whole of it, as plain values."""
    structs, schemas = _schemas()
    paths: dict[str, Json] = {}
    for call in CALLS:
        paths.setdefault(call.path, {})[call.method.lower()] = _operation(call, DESCRIBED[call.name], structs)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "sidecar-control",
            "version": __version__,
            "description": "The control plane of a mesh. Who may call what is in x-roles of each call.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of ours, or of Kubernetes; on the port for sidecars a certificate, too.",
                }
            },
        },
    }


def errors(call: Call, described: Described) -> list[int]:
    """The statuses of problems that a call can have."""
    found = {500, 503, *described.problems}
    if call.roles is not None:
        found |= {401, 403, 429}
    if described.query:
        found.add(400)
    if described.body is not None:
        found |= {400, 408, 413}
    if "{" in call.path:
        found.add(404)
    return sorted(found)


def places(call: Call) -> list[str]:
    """The names of what stands in its path."""
    return re.findall(r"{(\w+)}", call.path)


def _schemas() -> tuple[dict[Any, Json], Json]:
    """References to the schemas of all types that are taken or given, and the schemas."""
    types: list[Any] = [ProblemDocument, Metadata, *KINDS.values()]
    for each in DESCRIBED.values():
        types += (found for found in (each.body, *each.gives.values()) if found is not None)
    types = [each for each in dict.fromkeys(types) if isinstance(each, type)]
    references, schemas = msgspec.json.schema_components(types, ref_template=_WHERE)
    found = dict(zip(types, references, strict=True))
    documents: Json = {"oneOf": [_document_of(kind, found) for kind in KINDS]}
    known: Json = {"$ref": _WHERE.format(name=DOCUMENT)}
    schemas |= {DOCUMENT: documents, DOCUMENTS: {"anyOf": [known, {"type": "array", "items": known, "minItems": 1}]}}
    for name in ("DocumentShown", "GenerationShown"):
        schemas[name]["properties"]["document"] = {
            "anyOf": [known, {"description": "null, or what this version can't read"}]
        }
    return found, schemas


def _document_of(kind: str, references: dict[Any, Json]) -> Json:
    spec, needed = references[KINDS[kind]], _required(KINDS[kind])
    return {
        "title": kind,
        "type": "object",
        "properties": {
            "apiVersion": {"enum": list(API_VERSIONS[kind])},
            "kind": {"const": kind},
            "metadata": references[Metadata],
            "spec": spec if needed else {"anyOf": [spec, {"type": "null"}]},
        },
        "required": ["apiVersion", "kind", "metadata", *(["spec"] if needed else [])],
        "additionalProperties": False,
    }


def _required(kind: type[msgspec.Struct]) -> bool:
    """Whether there is a field of it that has to be said."""
    return any(field.required for field in msgspec.structs.fields(kind))


def _operation(call: Call, described: Described, structs: dict[Any, Json]) -> Json:
    found: Json = {
        "operationId": call.name,
        "summary": call.does,
        "x-roles": sorted(role.value for role in Role if role in call.roles) if call.roles is not None else [],
        "security": [{"token": []}] if call.roles is not None else [],
        "parameters": [*_in_path(call), *map(_parameter, described.query)],
        "responses": dict(_responses(call, described, structs)),
    }
    if described.body is not None:
        schema = structs.get(described.body) or {"$ref": _WHERE.format(name=described.body)}
        media = ["application/json", *(["application/yaml"] if described.yaml else [])]
        found["requestBody"] = {
            "required": not described.optional,
            "content": {each: {"schema": schema, "example": described.example} for each in media},
        }
    return found


def _in_path(call: Call) -> Iterator[Json]:
    for name in places(call):
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "description": _PLACES[name][0],
            "example": _PLACES[name][1],
            "schema": {"type": "string", "minLength": 1},
        }


def _parameter(one: Parameter) -> Json:
    schema = {"type": "array", "items": one.schema} if one.many else one.schema
    return {"name": one.name, "in": one.where, "required": False, "description": one.does, "schema": schema}


def _responses(call: Call, described: Described, structs: dict[Any, Json]) -> Iterator[tuple[str, Json]]:
    headers: Json = {"x-request-id": {"required": True, "schema": {"type": "string"}}}
    for status, kind in described.gives.items():
        etag = {"etag": {"required": True, "schema": {"type": "string"}}} if described.etag and status != 304 else {}
        response: Json = {"description": _TOLD.get(status, "it is so"), "headers": headers | etag}
        if kind is not None:
            response["content"] = {described.media: {"schema": structs[kind]}}
        elif described.media != "application/json":
            response["content"] = {described.media: {}}
        yield str(status), response
    for status in errors(call, described):
        yield (
            str(status),
            {
                "description": TITLES[status],
                "headers": headers,
                "content": {PROBLEM: {"schema": structs[ProblemDocument]}},
            },
        )
