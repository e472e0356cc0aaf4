"""Envoy, driven by Istio's istiod, has answered these requests under these documents; our proxy does the same.

``make_route_data`` asks Envoy, and says how to renew and extend the data, so that no test needs istiod. All sets are
asked of one proxy: for that the names in each are made its own, ``example.com`` becomes ``s7.example.com``. A request
with ``ours`` gets that answer from our proxy on purpose, for one of the reasons of INTENDED. The documents of a set
with ``refused`` are refused by ours, with these words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from sidecar.resources.document_files import load_config
from sidecar.resources.snapshot import Node, Version
from tests.peer.make_authorization_data import read_sets
from tests.peer.make_route_data import DATA, all_documents
from tests.peer.route_asking import HOST, Answer, Asking, Case
from tests.peer.route_backends import Backends
from tests.support.process import SidecarProcess

INTENDED: Final = {
    "back-slash": "a path keeps it; Envoy makes it a slash",
    "content-type": "a rule may remove it from a response that the proxy makes",
    "deadline": "the app may shorten its deadline by x-envoy-expected-rq-timeout-ms; Envoy drops the field",
    "empty": "a list of no headers is left out of a preflight's response; Envoy writes an empty one",
    "escape": "an escape that is none, or stands for a control character, is refused",
    "fragment": "a path with one is refused; Envoy cuts it off",
    "method": "any token is a method, and its case counts; Envoy knows some, in capitals",
    "parameters": "a dot-segment with parameters is refused; Envoy drops the segment before it",
    "port": "a destination without a port is the host's only one; Istio looks at hosts with the called port alone",
    "post": "a request that may have done something is not sent again",
    "raw": "a path keeps characters that Envoy escapes",
    "scheme": "what the app says in x-forwarded-proto is not the scheme of its request",
    "short": "services have short names; hosts of a ServiceEntry have not",
    "slash": "a rewritten path begins with a slash",
}
ALL: Final = [(path.stem, case) for path in sorted(DATA.glob("*.jsonl")) for case in read_sets(path)]
SETS: Final = [(stem, case) for stem, case in ALL if "refused" not in case]
_DOMAIN: Final = re.compile(r"example\.com", re.IGNORECASE)
_ROOTS: Final = {"istio-system": "sidecar-system"}
_LEFT: Final = "x-envoy-expected-rq-timeout-ms"
_PASSED: Final = 300  # milliseconds of it at most, when our proxy has sent the request


class Verdicts:
    """Our proxy with the documents of all sets, and its answers."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking

    def answers(self, number: int) -> list[Answer]:
        """Return our answers to the set of this number, in the words of the set."""
        case = SETS[number][1]
        requests = [{"host": HOST, **request} for request in case["requests"]]
        asked = json.loads(_to_own(number, json.dumps({**case, "requests": requests})))
        found: list[Answer] = json.loads(_from_own(number, json.dumps(self._asking.ask(asked))))
        return found


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Verdicts]:
    directory = tmp_path_factory.mktemp("routes")
    with Backends() as backends:
        for number, (_, case) in enumerate(SETS):
            _write(directory / f"{number:03}.yaml", number, backends.fill(all_documents(case)))
        flags = ("--config", str(directory), "--workload-labels", "app=app", "--outbound-policy", "REGISTRY_ONLY")
        with SidecarProcess(1, *flags) as sidecar:
            ports = dict.fromkeys((80, 8080), ("127.0.0.1", sidecar.outbound))
            yield Verdicts(Asking(backends, ports, absolute=True))


def _to_own(number: int, text: str) -> str:
    return _DOMAIN.sub(rf"s{number}.\g<0>", text)


def _from_own(number: int, text: str) -> str:
    return re.sub(rf"s{number}\.({_DOMAIN.pattern})", r"\1", text, flags=re.IGNORECASE)


def _write(path: Path, number: int, text: str) -> None:
    """Write the documents of a set, under names that no other set has."""
    documents: list[dict[str, Any]] = list(yaml.safe_load_all(_to_own(number, text)))
    for document in documents:
        metadata = document["metadata"]
        metadata["name"] = f"s{number:03}-{metadata['name']}"
        metadata["namespace"] = _ROOTS.get(metadata["namespace"], metadata["namespace"])
    path.write_text(yaml.safe_dump_all(documents, sort_keys=False))


@pytest.mark.parametrize(
    "number", [pytest.param(i, id=f"{stem}: {case['name']}") for i, (stem, case) in enumerate(SETS)]
)
def test_our_proxy_answers_as_envoy(verdicts: Verdicts, number: int) -> None:
    case = SETS[number][1]
    differences = []
    for request, envoys, ours in zip(case["requests"], case["answers"], verdicts.answers(number), strict=True):
        expected = request["ours"][0] if "ours" in request else envoys
        if not _same(expected, ours):
            differences.append(f"{request}\n  ours   {ours}\n  Envoy's {envoys}")
    assert not differences, "\n".join(["", *differences, case["documents"]])


def test_each_answer_that_differs_has_its_reason() -> None:
    marked = [(case["name"], request) for _, case in SETS for request in case["requests"] if "ours" in request]
    assert {request["ours"][1] for _, request in marked} == set(INTENDED)
    for _, case in SETS:
        for request, envoys in zip(case["requests"], case["answers"], strict=True):
            assert "ours" not in request or request["ours"][0] != envoys, (case["name"], request)


REFUSED: Final = [case for _, case in ALL if "refused" in case]


@pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in REFUSED])
def test_documents_that_istio_takes_and_we_refuse(case: Case) -> None:
    found = load_config([("a.yaml", case["documents"].encode())], Node("default"), "cluster.local", Version(0, 1), {})
    assert found.snapshot is None
    assert [problem for problem in found.problems if case["refused"] not in problem] == []


def test_data_is_what_it_claims_to_be() -> None:
    assert len(SETS) >= 60
    for _, case in ALL:
        assert len(case["requests"]) == len(case["answers"]), case["name"]
        assert sum(request.get("times", 1) for request in case["requests"]) >= 3, case["name"]


def _same(expected: Answer, ours: Answer) -> bool:
    if "outcomes" in expected:
        return _alike(expected["outcomes"], ours["outcomes"])
    wanted, left = _without_left(expected), _without_left(ours)
    return (
        wanted[0] == left[0]
        and len(wanted[1]) == len(left[1])
        and all(
            max(0, int(more) - _PASSED) < int(less) <= int(more) for less, more in zip(left[1], wanted[1], strict=True)
        )
    )


def _without_left(answer: Answer) -> tuple[Answer, list[str]]:
    """Return the answer without what is left of a timeout, and that."""
    see = dict(answer.get("see", {}))
    left = see.pop(_LEFT, [])
    return {**answer, "see": see}, left


def _alike(envoys: dict[str, int], ours: dict[str, int]) -> bool:
    """Return whether two counts of outcomes may be of one distribution: within five standard deviations."""
    total = sum(envoys.values())
    for outcome in {*envoys, *ours}:
        share = (envoys.get(outcome, 0) + ours.get(outcome, 0)) / (2 * total)
        deviation = (2 * total * share * (1 - share)) ** 0.5
        if abs(envoys.get(outcome, 0) - ours.get(outcome, 0)) > 5 * deviation:
            return False
    return True
