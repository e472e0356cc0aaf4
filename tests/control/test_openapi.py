"""/openapi.json: every call is in it, and the API does as it says."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from control.openapi.document import document
from control.openapi.operation_docs import DESCRIBED
from control.routes import CALLS
from tests.control import schemathesis_run
from tests.control.plane import running


def test_every_call_is_described() -> None:
    assert set(DESCRIBED) == {call.name for call in CALLS}


def test_the_document_has_every_call_with_its_roles() -> None:
    found = {
        (operation["operationId"], method.upper(), path): operation
        for path, operations in document()["paths"].items()
        for method, operation in operations.items()
    }
    assert set(found) == {(call.name, call.method, call.path) for call in CALLS}
    for call in CALLS:
        operation = found[call.name, call.method, call.path]
        assert operation["x-roles"] == sorted(role.value for role in call.roles or ())
        assert bool(operation["security"]) == (call.roles is not None)


async def test_it_is_shown_to_whoever_reaches_the_port(tmp_path: Path) -> None:
    async with running(tmp_path) as plane:
        reply = await plane.ask("GET", "/openapi.json")
        assert reply.status == 200 and reply.body == msgspec.json.encode(document())
        assert reply.headers["content-type"] == "application/json" and reply.headers["etag"]


@pytest.mark.parametrize("role", schemathesis_run.ROLES)
def test_the_api_does_as_it_says(role: str) -> None:
    """Every check of schemathesis, a little of each call; ``make fuzz`` does a lot."""
    code, said = schemathesis_run.run(role, examples=5)
    assert code == 0, said
    assert " passed" in said
