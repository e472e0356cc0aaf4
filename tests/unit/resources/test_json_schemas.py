"""An editor's schema takes and refuses the forms that documents' own rules do; the pages tell the truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest

from docs.generate import DOCS
from sidecar.resources.document_files import read_config
from sidecar.resources.field_docs import ABOUT
from sidecar.resources.json_schemas import schema_of, schema_of_all
from sidecar.resources.kinds import API_VERSIONS, KINDS
from sidecar.resources.unsupported import KNOWN
from sidecar.resources.yaml_reader import read_all
from tests.unit.resources.test_documents import value

PAGE = (DOCS / "resources.md").read_text()
EXAMPLE = PAGE.partition("```yaml\n")[2].partition("```")[0]


def refused(schema: dict[str, Any], document: object) -> bool:
    validator = jsonschema.Draft202012Validator(schema)
    return not validator.is_valid(json.loads(json.dumps(document)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_is_one_and_takes_every_version_of_its_kind(kind: str) -> None:
    for schema in (schema_of(kind), schema_of_all()):
        jsonschema.Draft202012Validator.check_schema(schema)
        for version in API_VERSIONS[kind]:
            assert not refused(schema, {**value(kind), "apiVersion": version, "status": {"x": 1}})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "change",
    [
        {"apiVersion": "v9"},
        {"kind": "Gateway"},
        {"metadata": {}},
        {"metadata": {"name": "a", "nmae": "b"}},
        {"metadata": {"name": 1}},
        {"spec": {"unheard": 1}},
        {"spec": []},
        {"extra": 1},
    ],
    ids=str,
)
def test_a_schema_refuses_what_is_of_another_form(kind: str, change: dict[str, Any]) -> None:
    for schema in (schema_of(kind), schema_of_all()):
        assert refused(schema, {**value(kind), **change})


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("Service", {"ports": [{"port": 0}]}),
        ("Service", {"ports": [{"port": "80"}]}),
        ("Service", {"ports": [{"port": 80}], "selector": {}}),
        ("PeerAuthentication", {"mtls": {"mode": "LOOSE"}}),
        ("ServiceEntry", {"hosts": ["a"]}),
        ("ServiceEntry", {"hosts": ["a"], "ports": [], "location": "MESH_INTERNAL"}),
        ("WorkloadEntry", {"address": "10.0.0.1", "weight": 0}),
        ("Sidecar", {"egress": [{}]}),
        ("Sidecar", {"ingress": []}),
    ],
)
def test_a_schema_knows_the_fields_of_its_kind(kind: str, spec: dict[str, Any]) -> None:
    assert refused(schema_of(kind), {**value(kind), "spec": spec})
    assert refused(schema_of_all(), {**value(kind), "spec": spec})


def test_every_field_has_its_meaning() -> None:
    for struct, meanings in ABOUT.items():
        assert set(meanings) == {field.encode_name for field in msgspec.structs.fields(struct)}, struct
    assert set(KNOWN) <= set(ABOUT)


def test_the_reference_names_every_field_and_all_that_is_not_taken() -> None:
    page = (DOCS / "reference" / "resources.md").read_text()
    for kind, struct in KINDS.items():
        assert f"\n## {kind}\n" in page
        assert all(f"`spec.{field.encode_name}`" in page for field in msgspec.structs.fields(struct))
    for fields in KNOWN.values():
        assert all(f"{name.replace('=', ': ')}`" in page for name in fields)


def test_the_example_of_the_page_is_taken_as_it_stands() -> None:
    found = read_config([("documents.yaml", EXAMPLE.encode())])
    assert found.problems == ()
    assert {document.kind for document in found.documents} == set(KINDS) - {"WorkloadEntry"}
    told = [each.partition(": ")[0] for each in found.notes]
    assert told == ["documents.yaml:38"], "the front's service is not among them"
    for text in read_all(EXAMPLE):
        assert not refused(schema_of_all(), text.root)


def test_the_problems_of_the_page_are_those_that_are_told() -> None:
    bad = EXAMPLE.replace("targetPort: 8080", "targetPort: web").replace("  egress:", "  ingress: []\n  egress:")
    bad = bad.replace("  resolution: DNS", "  resolution: DNS\n  location: MESH_INTERNAL")
    found = read_config([("documents.yaml", bad.encode())])
    assert "\n".join(found.problems) in PAGE


def test_the_schemas_are_beside_the_page() -> None:
    for name in ("all", *KINDS):
        jsonschema.Draft202012Validator.check_schema(
            json.loads(Path(DOCS, "reference", "schemas", f"{name}.json").read_text())
        )
