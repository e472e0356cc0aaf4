"""A document is taken as the field writes it, or every problem of it is told, each with its line."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.resources import documents
from sidecar.resources.documents import parse, plain, read_documents
from sidecar.resources.kinds import API_VERSIONS, KINDS
from sidecar.resources.unsupported import KNOWN, OTHER_KINDS
from sidecar.resources.validation import shape
from tests.unit.resources.docs import entry, read, service
from tests.unit.resources.specs import SPECS, WEB


def value(kind: str, version: str = "") -> dict[str, Any]:
    if kind == "Service":
        return WEB
    return {
        "apiVersion": version or API_VERSIONS[kind][0],
        "kind": kind,
        "metadata": {"name": "a.b", "namespace": "shop"},
        "spec": SPECS[kind],
    }


def wrong(text: str) -> list[str]:
    """The problems of one document, without its file's name."""
    found = read(text)
    assert found.mesh is None
    return [each.removeprefix("f0.yaml:") for each in found.problems]


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_of_a_kind_is_taken_and_shown_again(kind: str) -> None:
    document, problems = parse(value(kind))
    assert problems == [] and document is not None
    assert document.key == (kind, "shop", value(kind)["metadata"]["name"])
    shown = plain(document)
    fields = {field.encode_name for field in msgspec.structs.fields(KINDS[kind])} - {"workloadSelector"}
    assert fields - set(value(kind)["spec"]) == set(), "the test leaves no field out"
    json.dumps(shown)
    assert parse(shown) == (document, [])
    assert parse(json.loads(json.dumps(shown))) == (document, [])


@pytest.mark.parametrize(("kind", "version"), [(kind, each) for kind, them in API_VERSIONS.items() for each in them])
def test_every_version_of_the_field_is_taken(kind: str, version: str) -> None:
    document, problems = parse(value(kind, version))
    assert problems == [] and document is not None and document.api_version == version


def test_what_a_server_adds_is_left_aside_and_notes_are_kept() -> None:
    shown = {
        **WEB,
        "metadata": {
            **WEB["metadata"],
            "uid": "1", "resourceVersion": "7", "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 2,
            "managedFields": [{}], "selfLink": "/x", "annotations": {"example.com/who": "ö"},
        },
        "status": {"anything": [1]},
    }  # fmt: skip
    document, problems = parse(shown)
    assert problems == [] and document is not None
    assert document.metadata.annotations == {"example.com/who": "ö"}
    assert set(plain(document)) == {"apiVersion", "kind", "metadata", "spec"}


def test_several_documents_stand_in_one_file_as_yaml_or_json() -> None:
    text = "# nothing\n---\n" + service("a/x") + "---\n" + entry("a/y", "y.example") + "...\n"
    assert [each.document.title for each in read_documents(text.encode(), "f").documents] == [
        "Service a/x",
        "ServiceEntry a/y",
    ]
    found = read_documents(json.dumps(WEB, indent=2).encode(), "f.json")
    assert [each.document for each in found.documents] == [parse(WEB)[0]]
    assert found.documents[0].at(("spec", "ports", 0, "name")) == "f.json:15"


def test_all_problems_of_all_documents_are_told_in_the_order_of_their_lines() -> None:
    text = "\n".join(
        [
            "apiVersion: networking.istio.io/v1",
            "kind: Gateway",
            "metadata: {name: a}",
            "---",
            "kind: Service",
            "metadata: {name: A, namespce: x}",
            "spec: {ports: 80}",
            "extra: 1",
            "---",
            "- 7",
            "---",
            "apiVersion: sidecar/v1",
            "kind: Service",
            "metadata: {name: Web, namespace: a_b, labels: {'/': x, a: '-'}}",
            "spec:",
            "  ports: [{port: 80}, {port: 80}]",
            "  serviceAccounts: []",
        ]
    )
    assert wrong(text) == [
        "2: kind: Gateway is not supported yet",
        "5: apiVersion is missing",
        "6: metadata.namespce: is not a field here; there are name, namespace, labels, annotations",
        "7: spec.ports: 80 is not a list",
        "8: extra: is not a field here; there are apiVersion, kind, metadata, spec",
        "10: a list is not a document; one has apiVersion, kind, metadata and spec",
        "14: metadata.labels./: '/' is no key of a label",
        "14: metadata.labels.a: '-' is no value of a label (letters, digits, inner - _ . , at most 63)",
        "14: metadata.name: 'Web' is not a DNS label (a-z, 0-9 and inner hyphens, at most 63)",
        "14: metadata.namespace: 'a_b' is not a DNS label (a-z, 0-9 and inner hyphens, at most 63)",
        "16: spec.ports[0]: name is missing; where there are several ports each has one",
        "16: spec.ports[1].port: 80 is there already",
        "16: spec.ports[1]: name is missing; where there are several ports each has one",
    ]


@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_kinds_that_people_have_are_named(kind: str) -> None:
    (problem,) = wrong(f"apiVersion: x/v1\nkind: {kind}\nmetadata: {{name: a}}\nspec: {{}}\n")
    assert problem.startswith("2: kind: ") and ("not supported yet" in problem or "Kubernetes" in problem)


def test_a_kind_that_nobody_has_and_a_version_of_another_kind() -> None:
    kinds = ", ".join(KINDS)
    assert wrong("apiVersion: v1\nkind: Servce\nmetadata: {name: a}") == [
        f"2: kind: 'Servce' is not a kind; there are {kinds}"
    ]
    assert wrong("apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {}") == [
        "1: apiVersion: v1 is Kubernetes' Service; ours is sidecar/v1, and says in serviceAccounts who may serve it"
    ]
    assert wrong("apiVersion: security.istio.io/v2\nkind: PeerAuthentication\nmetadata: {name: a}") == [
        "1: apiVersion: 'security.istio.io/v2' is not one of those of PeerAuthentication: security.istio.io/v1, "
        "security.istio.io/v1beta1"
    ]
    assert wrong("apiVersion: 1\nkind: [a]") == [
        "1: apiVersion: 1 is not text; put it in quotes",
        "1: metadata is missing; it has the name",
        "2: kind: a list is not text; put it in quotes",
    ]


KNOWN_FIELDS = [(struct, field) for struct, fields in KNOWN.items() for field in fields]


@pytest.mark.parametrize(("struct", "field"), KNOWN_FIELDS)
def test_what_is_known_and_not_supported_is_an_error_that_names_it(struct: Any, field: str) -> None:
    name, _, text = field.partition("=")
    found, problems = shape(struct, {name: text or 1}, KNOWN)
    assert found is None or text, "a value may be right by its form, and wrong by its word"
    if found is None:
        assert KNOWN[struct][field] in next(each.why for each in problems if each.path == (name,))


def test_annotations_have_bounds_and_are_text() -> None:
    document, problems = parse(
        {**WEB, "metadata": {"name": "a", "annotations": {"k": "x" * (256 << 10), "": "\ud800"}}}
    )
    assert document is None
    assert [each.why for each in problems] == [
        "'' is no key of an annotation",
        "has a character that no text can have",
        "are longer than 256 KiB",
    ]


def test_a_set_is_refused_whole_where_a_document_is_there_twice() -> None:
    found = read(service("a/x") + entry("a/x", "x.example"), "\n" + service("a/x"))
    assert (found.mesh, found.documents) == (None, ())
    assert found.problems == ("f1.yaml:2: Service a/x stands in f0.yaml:1 already",)


def test_problems_and_sizes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    found = read("---\n".join(["kind: x\n"] * 80))
    assert len(found.problems) == documents.MAX_PROBLEMS + 1
    assert found.problems[-1] == "f0.yaml: and 140 more problems"
    monkeypatch.setattr(documents, "MAX_BYTES", 1 << 20)
    assert read_documents(b" " * ((1 << 20) + 1), "f").problems == ("f: is longer than 1 MiB",)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "f: there is nothing in it"),
        (b"---\n---\n# x\n", "f: there is nothing in it"),
        (b"a: 1\n---\nb: \xff", "f:3: this is no UTF-8"),
        (b"a: 1\n---\nb: [", "f:4: this is no YAML: did not find expected node content"),
        (b"a: &x 1\n---\nb: *x", "f:3: *x stands for nothing that ends before it"),
    ],
)
def test_what_can_not_be_read_is_one_line(content: bytes, problem: str) -> None:
    found = read_documents(content, "f")
    assert found.documents == ()
    assert found.problems[0].rpartition(": ")[0] == problem.rpartition(": ")[0]


@pytest.mark.parametrize(
    "content", [b"!%b a", b"*%b", b"- &%b 1\n- &%b 1", b"'%b': 1\n'%b': 1\n"], ids=["tag", "alias", "anchor", "key"]
)
def test_what_is_long_is_not_repeated(content: bytes) -> None:
    long = b"x" * 100_000
    found = read_documents(content % ((long,) * content.count(b"%b")), "f")
    assert found.problems and max(map(len, found.problems)) < 200


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.data())
def test_no_value_makes_it_raise(kind: str, data: st.DataObject) -> None:
    """A good document with one field of it, at any depth, replaced by anything."""
    document = json.loads(json.dumps(value(kind)))
    at: Any = document
    while True:
        key = data.draw(st.sampled_from(sorted(at)) if isinstance(at, dict) else st.integers(0, len(at) - 1))
        inner = at[key]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            at[key] = data.draw(VALUES)
            break
        at = inner
    found, problems = parse(document)
    assert (found is None) == bool(problems)
    if found is not None:
        assert parse(plain(found)) == (found, [])
        msgspec.json.encode(plain(found))


@settings(deadline=None)
@given(st.binary(max_size=200) | st.text(alphabet="ab:-{}[]&*!|>'\"\n #,~1\t", max_size=80).map(str.encode))
def test_no_bytes_make_it_raise(content: bytes) -> None:
    found = read_documents(content, "f")
    assert found.documents or found.problems
