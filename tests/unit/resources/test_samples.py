"""Documents of Istio's own repository load, or name what is not supported; what Istio refuses is refused.

They are not a part of the project: ``ISTIO_SAMPLES`` is a directory of them (``KIND/NUMBER.yaml``, and ``verdicts.tsv``
with a file, ``ACCEPTED`` or ``REFUSED``, and Istio's words in each line). Without it, they are looked for beside the
repository.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from sidecar.resources.documents import read_documents

BESIDE = Path(__file__).parents[4] / "shared" / "samples" / "istio"
SAMPLES = Path(os.environ.get("ISTIO_SAMPLES") or BESIDE)
KINDS = ("VirtualService", "DestinationRule")
NOT_SUPPORTED = {  # may only shrink
    "spec.gateways",
    "spec.hosts",  # delegates
    "spec.http[].websocketUpgrade",
    "spec.subsets[].trafficPolicy.loadBalancer.consistentHash",
    "spec.subsets[].trafficPolicy.tls",
    "spec.trafficPolicy.connectionPool",
    "spec.trafficPolicy.loadBalancer.warmup",
    "spec.trafficPolicy.outlierDetection",
    "spec.trafficPolicy.portLevelSettings[].connectionPool",
    "spec.trafficPolicy.portLevelSettings[].tls",
    "spec.trafficPolicy.tls",
}


def samples() -> dict[str, tuple[bytes, bool]]:
    """Each file of the kinds that are looked at here, and whether Istio takes it."""
    if not (SAMPLES / "verdicts.tsv").is_file():
        pytest.skip(f"no samples: {SAMPLES} has no verdicts.tsv; ISTIO_SAMPLES says where they are")
    found = {}
    for line in (SAMPLES / "verdicts.tsv").read_text().splitlines():
        name, verdict, *_ = line.split("\t")
        if name.partition("/")[0] in KINDS:
            found[name] = (SAMPLES / name).read_bytes(), verdict == "ACCEPTED"
    return found


def test_every_sample_loads_or_names_what_is_not_supported() -> None:
    named: dict[str, list[str]] = {}
    taken = 0
    for name, (content, accepted) in samples().items():
        found = read_documents(content, name)
        if not accepted:
            assert found.problems, f"{name} is refused by Istio"
            continue
        taken += not found.problems
        for problem in found.problems:
            _, path, why = problem.split(": ", 2)
            assert "not supported" in why, problem
            named.setdefault(re.sub(r"\[\d+\]", "[]", path), []).append(name)
    for path, files in sorted(named.items()):
        print(f"{path}: {len(files)}, for example {files[0]}")
    assert set(named) <= NOT_SUPPORTED
    assert taken > 50


MISSION = ("canary", "shift-50-50", "ab-by-user-agent", "retries", "faults")


@pytest.mark.parametrize("name", MISSION)
def test_the_first_examples_load(name: str) -> None:
    samples()
    found = read_documents((SAMPLES.parent / "mission" / f"{name}.yaml").read_bytes(), name)
    assert found.problems == () and found.documents


def test_a_circuit_breaker_names_what_is_not_supported() -> None:
    samples()
    found = read_documents((SAMPLES.parent / "mission" / "circuit-breaking.yaml").read_bytes(), "f")
    assert [each.split(": ")[1].rpartition(".")[2] for each in found.problems] == [
        "connectionPool", "outlierDetection", "connectionPool", "outlierDetection",
    ]  # fmt: skip
    assert all("is not supported yet" in each for each in found.problems)
