"""Documents to test with, and calls about them as an operator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from tests.control.plane import Plane, Reply

JSON = {"content-type": "application/json"}
YAML = {"content-type": "application/yaml"}


def service(name: str = "web", namespace: str = "shop", port: int = 80, **spec: object) -> dict[str, Any]:
    """A service of our own kind; ``spec`` is beside its port and its account."""
    return {
        "apiVersion": "sidecar/v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"ports": [{"port": port}], "serviceAccounts": [name]} | spec,
    }


def path_of(document: Mapping[str, Any]) -> str:
    """Where the API has it."""
    metadata = document["metadata"]
    return f"/v1/resources/{document['kind']}/{metadata['namespace']}/{metadata['name']}"


async def put(plane: Plane, document: Mapping[str, Any], **headers: str) -> Reply:
    """Writes one; ``if_match`` and the like are header fields."""
    fields = JSON | {name.replace("_", "-"): value for name, value in headers.items()}
    return await plane.ask("PUT", path_of(document), plane.operator, document, headers=fields)


async def get(plane: Plane, path: str, **headers: str) -> Reply:
    """Reads."""
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return await plane.ask("GET", path, plane.operator, headers=fields)


async def apply(plane: Plane, *documents: Mapping[str, Any], query: str = "") -> Reply:
    """Writes several."""
    return await plane.ask("POST", f"/v1/resources:apply{query}", plane.operator, list(documents), headers=JSON)


async def version(plane: Plane) -> str:
    """That of all documents."""
    return str((await get(plane, "/v1/resources")).json["version"])


def results(reply: Reply) -> list[tuple[str, str, int]]:
    """(name, result, generation) of each document that was applied."""
    return [(each["name"], each["result"], each["generation"]) for each in reply.json["results"]]


def as_yaml(*documents: Mapping[str, Any]) -> bytes:
    """A file with several: JSON is YAML, too."""
    return b"\n---\n".join(msgspec.json.format(msgspec.json.encode(each)) for each in documents)
