"""``python -m tests.peer.make_authorization_data RUNNER [NAME...]``: renew ``data/authorization.jsonl``.

``RUNNER`` (or ``$ISTIO_RUNNER``) is a directory with three programs: ``up`` starts istiod and a sidecar's Envoy on
loopback, ``ask.py DOCUMENTS REQUESTS`` applies the documents, sends the requests and prints what each got, ``down``
ends what ``up`` started. They keep their state in ``$JUDGE_DIR``.

Each line of the file is a set. Its documents and requests are kept; the verdicts and versions are written anew, a few
seconds a set. ``NAME...``: only these sets. To add a set, append a line with ``name``, ``documents`` (YAML) and
``requests`` (``method``, ``path``, ``host``; where they are not the usual ones ``headers``, ``source``), and run this.

``${INBOUND}`` in documents and requests is the port of the proxy. The policies must select ``app: app`` in the
namespace ``default``. The peer speaks plaintext, so nothing that needs an identity can be judged.

A request that Envoy allows is marked ``"stricter": true`` if our proxy is to refuse it all the same:

* the grammar of our HTTP heads refuses it,
* an app may take its path for another one (``%2f``, back-slash, ``//``, ``;``), which Envoy refuses,
* a policy has DENY or ``notValues``, and Envoy refuses the values of a header if they are not joined by commas.

Envoy itself judges these other forms. A mark that is in the file already stays as long as Envoy allows the request.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from sidecar.errors import ProxyError
from sidecar.http.h1.head import parse_request
from sidecar.http.paths import forwarded, judged
from tests.peer.programs import program

DATA = Path(__file__).parent / "data" / "authorization.jsonl"
ALLOWED, REFUSED = 200, 403
_PEERS_FORM = frozenset({"x-forwarded-for"})  # a list by its own definition, which has an attribute of its own

Case = dict[str, Any]


def read_sets(data: Path) -> list[Case]:
    """Return the sets of a file: one a line."""
    return [json.loads(line) for line in data.read_text().splitlines()]


def write_sets(data: Path, cases: list[Case]) -> None:
    """Write the sets, one a line."""
    lines = [json.dumps(case, ensure_ascii=False, separators=(",", ":")) + "\n" for case in cases]
    data.write_text("".join(lines))


def check_names(names: list[str], cases: list[Case]) -> None:
    """Raise SystemExit for a name that no set has."""
    if unknown := set(names) - {case["name"] for case in cases}:
        raise SystemExit(f"no set has this name: {', '.join(sorted(unknown))}")


def envoy_version(path: str) -> str:
    """Return the version of the Envoy at this path."""
    shown = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=True).stdout
    return shown.split("version:")[1].split("/")[1]


def head(request: Case, port: int) -> bytes:
    """Return the bytes of a request to a proxy at ``port``."""
    fields = [["Host", request["host"]], *request.get("headers", [])]
    lines = [f"{request['method']} {request['path']} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
    return ("\r\n".join(lines) + "\r\n\r\n").replace("${INBOUND}", str(port)).encode("latin-1")


def other_forms(request: Case, *, denies: bool) -> list[Case]:
    """Return what else an app may take the request for. Raises ProxyError if our grammar refuses it."""
    parsed = parse_request(head(request, 80))
    assert parsed is not None
    # Envoy makes a back-slash a slash, and leaves its escape alone; our proxy forwards both as they came.
    kept = forwarded(parsed[0].sent).replace(b"\\", b"%5C")
    forms = sorted(form.decode("ascii") for form in {*judged(parsed[0].sent), kept})
    others: list[Case] = [{**request, "path": form} for form in forms if form != request["path"]]
    sent = request.get("headers", [])
    split = [
        [name, part.strip(" \t")]
        for name, value in sent
        for part in ([value] if name.lower() in _PEERS_FORM else value.split(","))
    ]
    if denies and split != sent:
        others.append({**request, "headers": split})
    return others


def ask(judge: Path, documents: str, requests: list[Case]) -> list[int]:
    """Return Envoy's status for each request. Raises RuntimeError for documents or requests that cannot be judged."""
    with tempfile.TemporaryDirectory() as directory:
        policies, lines = Path(directory, "documents.yaml"), Path(directory, "requests.jsonl")
        policies.write_text(documents)
        lines.write_text(
            "".join(json.dumps({**one, "name": str(i), "via": "inbound"}) + "\n" for i, one in enumerate(requests))
        )
        command = [sys.executable, str(judge / "ask.py"), str(policies), str(lines)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise RuntimeError(f"ask.py ended with {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    first, *answers = map(json.loads, done.stdout.splitlines())
    if not first["ready"] or first["rejected_by_envoy"]:
        raise RuntimeError(f"Envoy does not serve the documents: {first}")
    for request, answer in zip(requests, answers, strict=True):
        if (answer["status"], answer["backend"]) not in ((ALLOWED, "other"), (REFUSED, None)):
            raise RuntimeError(f"this is no verdict: {answer} on {request}")
    return [answer["status"] for answer in answers]


def judged_set(judge: Path, case: Case) -> Case:
    """Return the set with the verdicts of the Envoy that runs now."""
    documents = case["documents"]
    denies = "action: DENY" in documents or "notValues:" in documents
    marked = {number for number, one in enumerate(case["requests"]) if "stricter" in one}
    requests = [{name: value for name, value in one.items() if name != "stricter"} for one in case["requests"]]
    wanted, refused_by_grammar, others = list(requests), set[int](), list[int]()
    for number, request in enumerate(requests):
        try:
            forms = other_forms(request, denies=denies)
        except ProxyError:
            refused_by_grammar.add(number)
        else:
            wanted += forms
            others += [number] * len(forms)
    statuses = ask(judge, documents, wanted)
    verdicts = statuses[: len(requests)]
    stricter = {number for number, status in zip(others, statuses[len(requests) :], strict=True) if status == REFUSED}
    for number in marked | stricter | refused_by_grammar:
        if verdicts[number] == ALLOWED:
            requests[number]["stricter"] = True
    return {"name": case["name"], "documents": documents, "requests": requests, "verdicts": verdicts}


def versions() -> dict[str, str]:
    """Return the versions of the programs that judge."""
    peers = os.environ.get("PEERS", "")
    envoy, istiod = (shutil.which(name, path=peers) or program(name) for name in ("envoy", "pilot-discovery"))
    built = subprocess.run(["go", "version", "-m", istiod], capture_output=True, text=True, timeout=30, check=True)
    modules = [line.split() for line in built.stdout.splitlines()]
    istio = next(words[2] for words in modules if words[:1] in (["mod"], ["dep"]) and words[1] == "istio.io/istio")
    return {"envoy": envoy_version(envoy), "istio": istio}


def main(arguments: list[str]) -> None:
    if not arguments and "ISTIO_RUNNER" in os.environ:
        arguments = [os.environ["ISTIO_RUNNER"]]
    if not arguments:
        raise SystemExit(__doc__)
    judge, names = Path(arguments[0]).resolve(), arguments[1:]
    cases = read_sets(DATA)
    check_names(names, cases)
    made_by = versions()
    directory = tempfile.mkdtemp(prefix="judge-")
    os.environ["JUDGE_DIR"] = directory
    try:
        subprocess.run([judge / "up"], check=True, timeout=300)
        for number, case in enumerate(cases):
            if not names or case["name"] in names:
                cases[number] = judged_set(judge, case) | made_by
                print(f"{number + 1}/{len(cases)} {case['name']}", flush=True)
    finally:
        subprocess.run([judge / "down"], check=True, timeout=120)
        shutil.rmtree(directory)
    write_sets(DATA, cases)


if __name__ == "__main__":
    main(sys.argv[1:])
