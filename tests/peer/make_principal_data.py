"""``python -m tests.peer.make_principal_data [NAME...]``: renew ``data/principals.jsonl``.

Istio's own generator writes the RBAC filters of each set (``authz_builder``, which needs Go and its modules), and an
Envoy with mutual TLS judges by them (``authz_judge``). No istiod runs.

Each line of the file is a set. Its documents and requests are kept; the verdicts and versions are written anew.
``NAME...``: only these sets. To add a set, append a line with ``name``, ``documents`` (YAML), ``requests`` and, where
they are not the usual ones, ``trust_domain`` (cluster.local) and ``aliases`` (none), and run this. A request has:

* ``from``: the caller's SPIFFE id without its scheme; "" is a caller without a certificate,
* ``method``, ``path``, ``host``, where they are not those of USUAL,
* ``protocol``: ``TCP`` for opaque bytes,
* ``ours``: our verdict and its reason, if it is to differ from Envoy's (``test_principal_verdicts`` lists the reasons),
* ``audit``: the reason, if our AUDIT is to differ from Envoy's.

The workload is in the namespace ``shop`` and has the label ``app: billing``. ``verdicts`` are Envoy's statuses;
``audited``, in sets with an AUDIT policy, has the numbers of the requests that it matches, opaque ones excepted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.peer.authz_judge import Callers, Filters, Judge
from tests.peer.envoy import envoy_program
from tests.peer.make_authorization_data import Case, check_names, envoy_version, read_sets, write_sets
from tests.peer.programs import program

DATA = Path(__file__).parent / "data" / "principals.jsonl"
BUILDER = Path(__file__).parent / "authz_builder"
TRUST_DOMAIN = "cluster.local"
USUAL: Case = {"method": "GET", "path": "/", "host": "shop.test"}


def trust_domain(case: Case) -> str:
    """Return the trust domain of the mesh in this set."""
    named: str = case.get("trust_domain", TRUST_DOMAIN)
    return named


def built(cases: list[Case]) -> tuple[str, list[dict[str, Filters]]]:
    """Return Istio's version, and the filters that it writes for each set. Raises RuntimeError for a bad document."""
    sets = [
        {"documents": case["documents"], "trust_domain": trust_domain(case), "aliases": case.get("aliases", [])}
        for case in cases
    ]
    done = subprocess.run(
        [program("go"), "run", "."],
        cwd=BUILDER,
        env=os.environ | {"CGO_ENABLED": "0"},  # no C compiler is needed
        input=json.dumps(sets),
        capture_output=True,
        text=True,
        timeout=3600,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"authz_builder ended with {done.returncode}: {done.stderr[-2000:]}")
    output = json.loads(done.stdout)
    return output["istio"], output["filters"]


def judged_set(case: Case, callers: Callers, filters: dict[str, Filters]) -> Case:
    """Return the set with the verdicts of an Envoy that has these filters."""
    callers.add(request["from"] for request in case["requests"])
    with Judge(callers, filters["http"], filters["tcp"]) as judge:
        answers = [judge.ask(USUAL | request) for request in case["requests"]]
    kept = {name: case[name] for name in ("name", "trust_domain", "aliases", "documents", "requests") if name in case}
    result = kept | {"verdicts": [status for status, _ in answers]}
    if "action: AUDIT" in case["documents"]:
        result["audited"] = [number for number, (_, audited) in enumerate(answers) if audited]
    return result


def main(names: list[str]) -> None:
    cases = read_sets(DATA)
    check_names(names, cases)
    chosen = [number for number, case in enumerate(cases) if not names or case["name"] in names]
    istio, filters = built([cases[number] for number in chosen])
    made_by = {"envoy": envoy_version(envoy_program()), "istio": istio}
    with tempfile.TemporaryDirectory(prefix="callers-") as directory:
        callers = Callers(Path(directory))
        for number, each in zip(chosen, filters, strict=True):
            cases[number] = judged_set(cases[number], callers, each) | made_by
            print(f"{number + 1}/{len(cases)} {cases[number]['name']}", flush=True)
    write_sets(DATA, cases)


if __name__ == "__main__":
    main(sys.argv[1:])
