"""Routes between sidecars that speak mutual TLS: which version a request reaches, how often it is tried, what is made
of it before; and what of a change is felt by requests in progress.

What operators write first (a canary, a shift, A/B, retries, faults) is here twice: in the words of this file, and as it
stands in a directory of samples beside the repository, if there is one; see ``unit.resources.test_samples``.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.mesh.versions import Endpoints, Versions, message, within
from tests.support.ports import held_port
from tests.support.raw import Client
from tests.support.upstream import hold, send, until, wait_until
from tests.unit.resources.test_samples import SAMPLES

BOTH = (("v1", "v1.0"), ("v2", "v1.1"))
LET_GO = threading.Event()
SCRIPTS = {
    "busy": (send(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"),),
    "broken": (send(b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n"),),
    "hang": (hold,),
    "late": (until(LET_GO), send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")),
}  # fmt: skip
SUBSETS = """\
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: HOST-versions}
spec:
  host: HOST
  subsets:
  - {name: v1, labels: {version: v1.0}}
  - {name: v2, labels: {version: v1.1}}
  - {name: v3, labels: {version: v1.2}}
"""


def virtual_service(host: str, http: str) -> str:
    """A VirtualService for this host with these rules."""
    return (
        f"---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {host}}}\n"
        f"spec: {{hosts: [{host}], http: {http}}}\n"
    )


CANARY = """[
  {match: [{headers: {x-canary: {exact: "true"}}}], route: [{destination: {host: books, subset: v2}}]},
  {route: [{destination: {host: books, subset: v1}, weight: 90}, {destination: {host: books, subset: v2}, weight: 10}]},
]"""
SHIFT = """[
  {route: [{destination: {host: books, subset: v1}, weight: 50}, {destination: {host: books, subset: v2}, weight: 50}]},
]"""
BY_USER_AGENT = """[
  {match: [{headers: {user-agent: {regex: ".*iPhone.*Safari.*"}}}], route: [{destination: {host: till, subset: v2}}]},
  {match: [{headers: {x-test-user: {exact: "true"}}}], route: [{destination: {host: till, subset: v2}}]},
  {route: [{destination: {host: till, subset: v1}}]},
]"""
RETRIES = """[
  {timeout: 10s, route: [{destination: {host: stock}}],
   retries: {attempts: 3, perTryTimeout: 2s, retryOn: "gateway-error,connect-failure,refused-stream"}},
]"""
FAULTS = """[
  {route: [{destination: {host: stars}}],
   fault: {delay: {percentage: {value: 10}, fixedDelay: 50ms}, abort: {percentage: {value: 5}, httpStatus: 500}}},
]"""
OWN = {
    "canary": ("books", virtual_service("books", CANARY) + SUBSETS.replace("HOST", "books")),
    "shift-50-50": ("books", virtual_service("books", SHIFT) + SUBSETS.replace("HOST", "books")),
    "ab-by-user-agent": ("till", virtual_service("till", BY_USER_AGENT) + SUBSETS.replace("HOST", "till")),
    "retries": ("stock", virtual_service("stock", RETRIES)),
    "faults": ("stars", virtual_service("stars", FAULTS)),
}
SAMPLED = {  # the host of each, and what it leaves to other documents
    "canary": ("catalog-service", ""),
    "shift-50-50": ("catalog-service", SUBSETS.replace("HOST", "catalog-service")),
    "ab-by-user-agent": ("checkout-service", SUBSETS.replace("HOST", "checkout-service")),
    "retries": ("inventory", ""),
    "faults": ("ratings", ""),
}
SERVICES = ("books", "till", "stock", "stars", *{host for host, _ in SAMPLED.values()})


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Versions]:
    with Versions(tmp_path_factory.mktemp("versions"), SERVICES, SCRIPTS) as running:
        yield running


class Example:
    """One of the documents by name, in the words of ``source``."""

    def __init__(self, mesh: Versions, source: str) -> None:
        self.mesh = mesh
        self.sampled = source == "samples"

    def obeyed(self, name: str, *endpoints: tuple[str | int, str]) -> str:
        """Have the caller follow it; return the host that it is for."""
        if self.sampled:
            host, more = SAMPLED[name]
            text = (SAMPLES.parent / "mission" / f"{name}.yaml").read_text() + more
        else:
            host, text = OWN[name]
        self.mesh.obey(text, {host: endpoints or BOTH})
        self.mesh.seen()
        return host


@pytest.fixture(params=["own", "samples"])
def example(request: pytest.FixtureRequest, mesh: Versions) -> Example:
    if request.param == "samples" and not (SAMPLES.parent / "mission").is_dir():
        pytest.skip(f"no samples: {SAMPLES.parent} has no directory mission; ISTIO_SAMPLES says where samples are")
    return Example(mesh, request.param)


# -- what operators write first ---------------------------------------------------------------------------------------


def test_a_canary_has_its_tenth_and_those_that_ask_for_it(example: Example) -> None:
    mesh, host = example.mesh, example.obeyed("canary")
    assert {reply.status for reply in mesh.many(host, 2000, 100)} == {200}
    counts = Counter(name for name, _ in mesh.seen())
    assert counts.total() == 2000 and within(counts["v2"], 2000, 0.1), counts
    for field, number in (("X-Canary: true", 0), ("X-Canary: True", 1), ("X-Canary: ", 1)):
        assert {mesh.ask(host, f"/{host}/{number}", field).status for _ in range(60)} == {200}
        names = Counter(name for name, _ in mesh.seen())
        assert set(names) == {"v2"} if not number else names["v1"] > 30, (field, names)
    mesh.recorded(host)
    web, caller = mesh.papers["web"].spiffe_id, mesh.papers["caller"].spiffe_id
    for number in (0, 1):
        records = [each for each in mesh.caller.log_records() if each["path"] == f"/{host}/{number}"]
        assert {each["route_name"] for each in records} == {f"default/{host}/http[{number}]"}
        assert {each["upstream_peer_uri_san"] for each in records} == {web}
    for called in mesh.webs.values():
        wait_until(lambda at=called: len(at.log_records()) > 100, "records of the callee")  # type: ignore[misc]
        assert {each["downstream_peer_uri_san"] for each in called.log_records()} == {caller}, "its peer"


def test_half_of_the_requests_go_to_each_version(example: Example) -> None:
    mesh, host = example.mesh, example.obeyed("shift-50-50")
    assert {reply.status for reply in mesh.many(host, 2000, 100)} == {200}
    counts = Counter(name for name, _ in mesh.seen())
    assert counts.total() == 2000 and within(counts["v2"], 2000, 0.5), counts


def test_a_browser_and_a_test_user_have_another_version(example: Example) -> None:
    mesh, host = example.mesh, example.obeyed("ab-by-user-agent")
    phone = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 Version/18.1 Safari/604.1"
    for fields, version in (
        ((f"User-Agent: {phone}",), "v2"),
        (("User-Agent: iPhone Safari",), "v2"),
        (("User-Agent: iphone safari",), "v1"),
        (("User-Agent: Safari, and iPhone",), "v1"),
        (("User-Agent: curl/8.5.0",), "v1"),
        (("User-Agent: curl/8.5.0", "X-Test-User: true"), "v2"),
        (("X-Test-User: truee",), "v1"),
        (("X-Test-User: false", "x-test-user: true"), "v2"),
        ((), "v1"),
    ):
        for _ in range(5):
            assert mesh.ask(host, "/", *fields).status == 200
        assert [name for name, _ in mesh.seen()] == [version] * 5, fields


def test_retries_are_as_many_as_written_and_never_of_a_post(example: Example) -> None:
    mesh, host = example.mesh, example.obeyed("retries")
    status, record = mesh.recorded(host, "/script/busy")
    counts = sorted(request.get(b"x-envoy-attempt-count") for _, request in mesh.seen())
    assert (status, counts) == (503, [[b"1"], [b"2"], [b"3"], [b"4"]])
    assert (record["attempts"], record["response_flags"]) == (4, "URX")
    for target, method, body in (("/script/busy", "POST", b"x"), ("/script/broken", "GET", b"")):
        _, record = mesh.recorded(host, target, method=method, body=body)
        assert (record["attempts"], record["response_flags"], len(mesh.seen())) == (1, "-", 1), target


def test_a_connection_that_is_refused_costs_no_request(example: Example) -> None:
    """Of two endpoints one is dead. It is tried at most once in a while, and requests go on to the other one."""
    mesh = example.mesh
    with held_port() as dead:
        tries: Counter[int] = Counter()
        for _ in range(40):  # each time with endpoints that no request has tried before
            example.obeyed("retries", ("v1", "v1.0"))
            host = example.obeyed("retries", ("v1", "v1.0"), (dead, "v1.0"))
            for method, body in (("GET", b""), ("POST", b"once")):
                status, record = mesh.recorded(host, method=method, body=body)
                assert (status, record["response_flags"], len(mesh.seen())) == (200, "-", 1)
                tries[record["attempts"]] += 1
            if tries[2]:
                break
        assert tries[2] and set(tries) == {1, 2}, tries
        host = example.obeyed("retries", (dead, "v1.0"))
        status, record = mesh.recorded(host)
        assert (status, record["attempts"], record["response_flags"]) == (503, 4, "UF,URX")


def test_faults_are_injected_into_their_share(example: Example) -> None:
    mesh, host = example.mesh, example.obeyed("faults")
    number, each = (400, 1) if example.sampled else (2000, 50)  # the sample's delay is of 5 s
    before = len(mesh.caller.log_records())
    replies = mesh.many(host, number, each)
    statuses = Counter(reply.status for reply in replies)
    assert set(statuses) == {200, 500} and within(statuses[500], number, 0.05), statuses
    assert {json.loads(reply.body)["reason"] for reply in replies if reply.status == 500} == {"fault_injected"}
    assert len(mesh.seen()) == statuses[200], "what was aborted has reached no app"
    wait_until(lambda: len(mesh.records_since(before)) == number, "all records")
    flags = [record["response_flags"].split(",") for record in mesh.records_since(before)]
    assert sum("FI" in each for each in flags) == statuses[500]
    delayed = [record for record, each in zip(mesh.records_since(before), flags, strict=True) if "DI" in each]
    assert within(len(delayed), number, 0.1), len(delayed)
    assert all(record["duration_ms"] >= (5000 if example.sampled else 50) for record in delayed)


# -- retries and time limits ------------------------------------------------------------------------------------------


def routed(mesh: Versions, http: str, endpoints: Endpoints | None = None, more: str = SUBSETS) -> None:
    """Have the caller follow these rules for the service books."""
    text = virtual_service("books", http) + more.replace("HOST", "books")
    mesh.obey(text, {"books": BOTH} if endpoints is None else endpoints)
    mesh.seen()


def test_the_time_of_an_attempt_ends_it_and_a_post_is_not_sent_again(mesh: Versions) -> None:
    routed(mesh, """[{timeout: 20s, route: [{destination: {host: books, subset: v2}}],
                     retries: {attempts: 2, perTryTimeout: 100ms, retryOn: gateway-error}}]""")  # fmt: skip
    status, record = mesh.recorded("books", "/script/hang")
    assert (status, record["attempts"], record["response_flags"]) == (504, 3, "UT,URX")
    tries = [(name, request.get(b"x-envoy-expected-rq-timeout-ms")) for name, request in mesh.seen()]
    assert tries == [("v2", [b"100"])] * 3
    status, record = mesh.recorded("books", "/script/hang", method="POST", body=b"once")
    assert (status, record["attempts"], record["response_flags"]) == (504, 1, "UT")
    assert [request.body for _, request in mesh.seen()] == [b"once"]


def test_retries_stay_with_the_version_that_was_drawn(mesh: Versions) -> None:
    rules = SHIFT.replace("{route:", '{retries: {attempts: 3, retryOn: "503"}, route:')
    routed(mesh, rules)
    for number in range(20):
        assert mesh.ask("books", "/script/busy", f"X-Number: {number}").status == 503
    by_number: dict[bytes, list[str]] = {}
    for name, request in mesh.seen():
        by_number.setdefault(request.get(b"x-number")[0], []).append(name)
    assert all(len(names) == 4 and len(set(names)) == 1 for names in by_number.values()), by_number
    assert {names[0] for names in by_number.values()} == {"v1", "v2"}
    with held_port() as dead:
        routed(mesh, rules, {"books": ((dead, "v1.0"), ("v2", "v1.1"))})
        outcomes = Counter(mesh.ask("books").status for _ in range(30))
        assert set(outcomes) == {200, 503}, outcomes
        assert Counter(name for name, _ in mesh.seen()) == {"v2": outcomes[200]}


# -- subsets that are empty, gone, or changed --------------------------------------------------------------------------

TO_V1 = "[{route: [{destination: {host: books, subset: v1}}]}]"
TO_V2 = "[{route: [{destination: {host: books, subset: v2}}]}]"
TO_V3 = "[{route: [{destination: {host: books, subset: v3}}]}]"


def outcome(mesh: Versions, target: str = "/") -> tuple[int, str, Any]:
    status, record = mesh.recorded("books", target)
    return status, record["response_flags"], record["response_code_details"]


def test_a_subset_without_endpoints_and_one_that_is_not_there(mesh: Versions) -> None:
    routed(mesh, TO_V3)
    assert outcome(mesh) == (503, "UH", "no_endpoint")
    routed(mesh, TO_V3, {"books": (("v1", "v1.0"), ("v2", "v1.2"))})
    assert outcome(mesh) == (200, "-", None), "an endpoint of that version has registered"
    assert [name for name, _ in mesh.seen()] == ["v2"]
    routed(mesh, TO_V3.replace("v3", "v9"))
    assert outcome(mesh) == (503, "NC", "no_cluster")
    routed(mesh, TO_V1, more="")
    assert outcome(mesh) == (503, "NC", "no_cluster")
    assert mesh.seen() == []


def test_a_request_in_progress_outlives_its_subset(mesh: Versions) -> None:
    routed(mesh, TO_V2)
    LET_GO.clear()
    with Client(mesh.caller.outbound) as client:
        client.send(message("books", "/script/late"))
        wait_until(lambda: bool(mesh.seen()), "the request at its app")
        routed(mesh, TO_V2, more=SUBSETS.replace("v2", "v4"))
        assert outcome(mesh) == (503, "NC", "no_cluster")
        LET_GO.set()
        (reply,) = client.replies((b"GET",), 1)
        assert (reply.status, reply.body) == (200, b"late")
        client.heard.raw.clear()
        client.send(message("books", "/after"))
        assert client.replies((b"GET",), 1)[0].status == 503, "its connection goes on, by the new rules"
    routed(mesh, TO_V2)
    assert outcome(mesh) == (200, "-", None)


def test_a_version_that_an_endpoint_registers_anew_moves_its_requests(mesh: Versions) -> None:
    routed(mesh, TO_V1)
    assert mesh.ask("books").status == 200
    assert [name for name, _ in mesh.seen()] == ["v1"]
    routed(mesh, TO_V1, {"books": (("v1", "v1.1"), ("v2", "v1.0"))})
    assert mesh.ask("books").status == 200
    assert [name for name, _ in mesh.seen()] == ["v2"]


def test_another_destination_rule_keeps_the_connections(mesh: Versions) -> None:
    def handshakes() -> dict[str, dict[str, int]]:
        return {name: web.tell("look")["outcomes"] for name, web in mesh.webs.items()}

    routed(mesh, TO_V1)
    assert outcome(mesh)[0] == 200
    before = handshakes()
    for way in ("ROUND_ROBIN", "RANDOM", "LEAST_REQUEST"):
        policy = {"loadBalancer": {"simple": way}} | ({"retryBudget": {"percent": 50}} if way == "RANDOM" else {})
        routed(mesh, TO_V1, more=f"{SUBSETS}  trafficPolicy: {json.dumps(policy)}\n")
        assert {mesh.ask("books").status for _ in range(10)} == {200}
        assert mesh.recorded("books")[1]["connection_reused"], way
    assert handshakes() == before
