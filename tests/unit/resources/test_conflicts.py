"""Documents that contradict are refused together; what passes compiles at every proxy, whatever it sees."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certs.spiffe import workload
from sidecar.resources.compile import compile_mesh
from sidecar.resources.conflicts import problems_of
from sidecar.resources.documents import Document
from sidecar.resources.incremental_compile import compile_slices
from sidecar.resources.kinds import EntryPort, Metadata, Service, ServiceEntry
from sidecar.resources.mesh_documents import Mesh
from sidecar.resources.schema import EndpointSpec, MeshFile, PortSpec
from sidecar.resources.snapshot import Node, Version
from sidecar.resources.visibility import scoped_mesh
from tests.unit.resources.docs import entry, mesh, read, service

ONE = "addresses: [10.0.0.1]"
AT = "endpoints: [{address: 10.0.0.1}]"


PLAIN = "the service x of namespace a, which nobody is to speak to in plaintext; leave that host out"


@pytest.mark.parametrize(
    ("first", "second", "why"),
    [
        (service("a/x", more=ONE), service("a/y", more=ONE),
         "spec.addresses[0]: 10.0.0.1, port 80, is Service a/x's as well, which others may serve"),
        (service("a/x", more=ONE), service("b/x", more="addresses: ['::ffff:10.0.0.1']"),
         "spec.addresses[0]: 10.0.0.1, port 80, is Service a/x's as well, which others may serve"),
        (service("a/x", more=ONE), service("a/y", "x", more=ONE), None),  # the same may serve both
        (service("a/x", more=ONE), service("a/y", more=ONE, ports="{port: 81}"), None),
        (service("a/x", more=AT), service("a/y", more=ONE),
         "spec.addresses[0]: 10.0.0.1, port 80, is Service a/x's as well, which others may serve"),
        (service("a/x", more=AT), service("a/y", more="endpoints: [{address: 10.0.0.2}, {address: 10.0.0.1}]"),
         "spec.endpoints[1]: 10.0.0.1, port 80, is Service a/x's as well, which others may serve"),
        (service("a/x", more=AT), service("a/y", more="endpoints: [{address: 10.0.0.1, mode: direct, port: 80}]"),
         "spec.endpoints[0]: 10.0.0.1, port 80, is captured in Service a/x and direct here"),
        (service("a/x", more="endpoints: [{address: 10.0.0.1, mode: direct, port: 9}]"),
         service("a/y", more="endpoints: [{address: 10.0.0.1, mode: direct, port: 9}]"), None),  # told apart by name
        (service("a/x", more=ONE), entry("b/e", "e.example", ONE, "{number: 80, name: http}"),
         "spec.addresses[0]: 10.0.0.1, port 80, is Service a/x's as well: it can't be both plaintext and mutual TLS"),
        (service("a/x", more=ONE), entry("b/e", "e.example", ONE), None),  # another port
        (entry("a/e", "e.example"), entry("a/f", "f.example, e.example"),
         "spec.hosts[1]: e.example, port 443, is ServiceEntry a/e's already"),
        (entry("a/e", "e.example"), entry("b/f", "e.example"), None),  # the nearer one counts
        (entry("a/e", "e.example"), entry("a/f", "e.example", port="{number: 80, name: http}"), None),
        (entry("a/e", "e.example", ONE), entry("a/f", "f.example", ONE),
         "spec.addresses[0]: 10.0.0.1, port 443, is ServiceEntry a/e's already"),
        (service("a/x"), entry("b/e", "x.a"), f"spec.hosts[0]: x.a is {PLAIN}"),
        (service("a/x"), entry("b/e", "e.example, x.a.svc"), f"spec.hosts[1]: x.a.svc is {PLAIN}"),
        (service("a/x"), entry("a/e", "x.a.svc.cluster.local"), f"spec.hosts[0]: x.a.svc.cluster.local is {PLAIN}"),
        (service("a/x"), entry("b/e", "'*.cluster.local'"), f"spec.hosts[0]: *.cluster.local covers {PLAIN}"),
        (service("a/x"), entry("b/e", "'*.a'"), f"spec.hosts[0]: *.a covers {PLAIN}"),
        (service("a/x"), entry("b/e", "'*.svc'"), f"spec.hosts[0]: *.svc covers {PLAIN}"),
        (service("a/x"), entry("b/e", "'*.a.svc.cluster.local'"),
         f"spec.hosts[0]: *.a.svc.cluster.local covers {PLAIN}"),
        (service("a/x"), entry("b/e", "'*.local'"), f"spec.hosts[0]: *.local covers {PLAIN}"),
        (service("a/x"), entry("b/e", "'*.b.svc.cluster.local', '*.a.cluster.local'"), None),
        (service("a/x"), entry("b/e", "x.b, x.a.example, '*.b', '*.x.a'"), None),
    ],
)  # fmt: skip
def test_two_documents(first: str, second: str, why: str | None) -> None:
    for texts, file in (
        ([first, second], "f1.yaml:4"),
        ([second + first], "f0.yaml:4"),
        ([first + second], "f0.yaml:9"),
    ):
        found = read(*texts)
        if why is None:
            assert (found.problems, len(found.documents)) == ((), 2)
            continue
        assert (found.mesh, found.problems) == (None, (f"{file}: {why}",))


@pytest.mark.parametrize("host", ["x.a", "x.a.svc.cluster.local", "'*.a'", "'*.a.svc'", "'*.svc.cluster.local'"])
def test_a_service_does_not_take_a_name_that_is_spoken_to_in_plaintext(host: str) -> None:
    before = mesh(entry("b/e", f"e.example, {host}"))
    (new,) = read(service("a/x")).documents
    found = problems_of(before.with_(new), {new.key})
    assert [(each.key, each.path) for each in found] == [(("ServiceEntry", "b", "e"), ("spec", "hosts", 1))]
    assert PLAIN in found[0].why


def test_a_change_is_judged_against_its_own_places() -> None:
    def one(name: str, address: str, port: int = 80) -> Document:
        return Document(
            "sidecar/v1", "Service", Metadata(name, "a"), Service([PortSpec(port)], [name], addresses=[address])
        )

    at = Mesh([one("x", "10.0.0.1"), one("y", "10.0.0.2")])
    assert problems_of(at) == []
    worse = at.with_(one("y", "10.0.0.1"))
    assert [each.key for each in problems_of(worse)] == [("Service", "a", "y")]
    assert problems_of(worse, [("Service", "a", "y")]) == problems_of(worse)
    assert str(problems_of(worse)[0]).startswith("Service a/y: spec.addresses[0]: 10.0.0.1, port 80, is")
    assert problems_of(worse, [("Service", "a", "gone")]) == []
    assert problems_of(at) == [], "a mesh stays as it was"
    assert problems_of(worse.with_(one("x", "10.0.0.3"))) == []
    assert problems_of(worse.without(("Service", "a", "x"))) == []
    moved = worse.changed([one("x", "10.0.0.2"), one("x", "10.0.0.4"), one("z", "10.0.0.2")], [("Service", "a", "y")])
    assert problems_of(moved) == []
    assert len(problems_of(moved.with_(one("q", "10.0.0.4")).with_(one("r", "10.0.0.2")))) == 2


ADDRESSES = st.sampled_from(["10.0.0.1", "10.0.0.2", "::ffff:10.0.0.1"])
PORTS = st.sampled_from([80, 81])
ENDPOINTS = st.builds(
    EndpointSpec, ADDRESSES, port=PORTS, mode=st.sampled_from(["captured", "direct"])
)  # fmt: skip
SERVICES = st.builds(
    Service,
    st.builds(PortSpec, PORTS).map(lambda port: [port]),
    st.sampled_from([["p"], ["q"], ["p", "q"]]),
    addresses=st.lists(ADDRESSES, max_size=1),
    endpoints=st.lists(ENDPOINTS, max_size=2),
    export_to=st.sampled_from([[], ["*"]]),
)
ENTRIES = st.builds(
    ServiceEntry,
    st.sampled_from([["e.example"], ["f.example", "*.example"]]),
    st.builds(EntryPort, PORTS, st.just("tls")).map(lambda port: [port]),
    addresses=st.lists(ADDRESSES, max_size=1),
    export_to=st.sampled_from([[], ["*"]]),
)
METADATA = st.builds(Metadata, st.sampled_from(["x", "y", "z"]), st.sampled_from(["a", "b"]))
DOCUMENTS = st.builds(Document, st.just("sidecar/v1"), st.just("Service"), METADATA, SERVICES) | st.builds(
    Document, st.just("networking.istio.io/v1"), st.just("ServiceEntry"), METADATA, ENTRIES
)


def compiles(at: Mesh, account: str) -> bool:
    """Whether the proxy of this account takes what it sees, and its services hold together by the strictest rules."""
    scoped = scoped_mesh(at, workload("cluster.local", "a", account), version="0.1", issued=0.0)
    steps = compile_slices(msgspec.json.encode(scoped), Node("a", "", account), "file")
    while True:
        try:
            next(steps)
        except StopIteration as done:
            taken = done.value.snapshot is not None
            break
    strict, _ = compile_mesh(MeshFile(services=[*scoped.services]), Node("a", "", account), version=Version())
    return taken and strict is not None


def alone(document: Document) -> bool:
    """Whether the document is right by itself, as ``parse`` would say."""
    from sidecar.resources.documents import parse, plain

    return parse(plain(document))[0] is not None


@settings(deadline=None)
@given(st.lists(DOCUMENTS.filter(alone), max_size=4))
def test_what_is_accepted_compiles_at_every_proxy(documents: list[Document]) -> None:
    at = Mesh(documents)
    if not problems_of(at):
        assert all(compiles(at, account) for account in ("p", "q", "other"))


@settings(deadline=None)
@given(st.lists(DOCUMENTS, max_size=5), st.lists(DOCUMENTS, max_size=3))
def test_a_mesh_that_grew_is_judged_as_one_that_was_made(first: list[Document], then: list[Document]) -> None:
    grown = Mesh(first)
    before = problems_of(grown)
    for document in then:
        grown = grown.with_(document)
        problems_of(grown)
    made = Mesh(grown.documents())
    assert set(problems_of(grown)) == set(problems_of(made))
    changed = {document.key for document in then}
    assert set(problems_of(grown, changed)) <= set(problems_of(grown))
    if not before:
        assert set(problems_of(grown)) <= set(problems_of(grown, changed)), "only what changed can have made it worse"
