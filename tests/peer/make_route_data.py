"""``python -m tests.peer.make_route_data RUNNER [NAME...]``: renew the answers of ``data/routes``.

``RUNNER`` (or ``$ISTIO_RUNNER``) is a directory with three programs, as for ``make_authorization_data``: ``up`` starts
istiod and a sidecar's Envoy on loopback, ``ask.py`` applies documents, ``down`` ends what ``up`` started. ``ask.py`` is
loaded as a module here; the requests come from ``route_asking``, the backends are those of ``route_backends``. It has
to run as root: Envoy listens on port 80 of an address of its own, as it would for captured calls.

Each line of a file is a set: ``name``, ``documents`` (YAML), ``requests``, and the ``answers`` to them, which are
written anew, two seconds a set. ``NAME...``: only the files or sets of these names. ``route_asking`` describes requests
and answers. To add a set, append a line without answers to any of the files, and run this. The documents of
``backends.yaml`` belong to every set. The caller is in the namespace ``default``, its label is ``app: app``, and it may
call hosts that documents name, and no others.

``"ours": [ANSWER, REASON]`` in a request, and ``"refused": WORDS`` in a set, are written by hand: what our proxy does
otherwise, on purpose. ``test_route_verdicts`` has the reasons.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import yaml

from tests.peer.make_authorization_data import read_sets, versions, write_sets
from tests.peer.route_asking import Asking, Case
from tests.peer.route_backends import Backends

DATA: Final = Path(__file__).parent / "data" / "routes"
BACKENDS: Final = DATA / "backends.yaml"
ADDRESS: Final = "127.0.0.80"  # where Envoy has the ports of services
PORTS: Final = (80, 8080)

_SIDECAR: Final = "/apis/networking.istio.io/v1/namespaces/default/sidecars/judge"


def all_documents(case: Case) -> str:
    """Return the documents of a set, with those of the backends."""
    return "---\n".join([BACKENDS.read_text(), case["documents"]])


class Judge:
    """The running istiod and its Envoy. ``ask.py`` reads ``$JUDGE_DIR`` when it is loaded."""

    def __init__(self, runner: Path, backends: Backends) -> None:
        self._judge = _load(runner / "ask.py")
        self._backends = backends
        self._asking = Asking(backends, {port: (ADDRESS, port) for port in PORTS}, absolute=False)
        self._listen()

    def answers(self, case: Case) -> list[dict[str, Any]]:
        """Return Envoy's answers to a set. Raises RuntimeError for documents that cannot be judged."""
        judge = self._judge
        documents = list(yaml.safe_load_all(self._backends.fill(all_documents(case))))
        applied: list[dict[str, Any]] = []
        before, (_, ends) = judge.rejected(), judge.logs()
        try:
            verdicts = judge.apply(documents, applied)
            if len(applied) < len(documents):
                raise RuntimeError(f"refused: {[each for each in verdicts if not each['accepted']]}")
            judge.settle(applied, before=before)
            if rejected := judge.logs(ends)[0]:
                raise RuntimeError(f"Envoy does not take what istiod makes of the documents: {rejected}")
            return self._asking.ask(case)
        finally:
            for document in applied:
                judge.api("DELETE", f"{judge.place(document)}/{document['metadata']['name']}")
            judge.settle(gone=applied)

    def _listen(self) -> None:
        """Have the sidecar listen for the ports of services too, as if their traffic were captured."""
        found = self._judge.api("GET", _SIDECAR)[1]
        egress = [each for each in found["spec"]["egress"] if each.get("bind") != ADDRESS]
        for port in PORTS:
            listener = {"number": port, "name": f"http-{port}", "protocol": "HTTP"}
            egress.append({"port": listener, "bind": ADDRESS, "captureMode": "NONE", "hosts": ["*/*"]})
        patch = {"spec": {"egress": egress, "outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}}}
        code, answer = self._judge.api("PATCH", _SIDECAR, patch, "application/merge-patch+json")
        if code != 200:
            raise RuntimeError(f"no listener for port {PORTS}: {answer}")
        self._judge.settle()


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("istio_ask", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def renew(runner: Path, names: list[str]) -> None:
    """Renew the answers of these sets and files, or of all. Raises SystemExit if some sets cannot be judged."""
    made_by, failed = versions(), list[str]()
    with Backends() as backends:
        judge = Judge(runner, backends)
        for path in sorted(DATA.glob("*.jsonl")):
            cases = read_sets(path)
            for number, case in enumerate(cases):
                if names and not {path.stem, case["name"]} & set(names):
                    continue
                try:
                    cases[number] = case | {"answers": judge.answers(case)} | made_by
                except (RuntimeError, ValueError, AssertionError) as error:
                    failed.append(f"{path.stem}: {case['name']}: {error}")
                print(f"{path.stem}: {case['name']}", flush=True)
            write_sets(path, cases)
    if failed:
        raise SystemExit("\n".join(["not judged:", *failed]))


def main(arguments: list[str]) -> None:
    if not arguments and "ISTIO_RUNNER" in os.environ:
        arguments = [os.environ["ISTIO_RUNNER"]]
    if not arguments:
        raise SystemExit(__doc__)
    runner, names = Path(arguments[0]).resolve(), arguments[1:]
    if "JUDGE_DIR" in os.environ:  # it runs already
        renew(runner, names)
        return
    directory = tempfile.mkdtemp(prefix="judge-")
    os.environ["JUDGE_DIR"] = directory
    os.environ["DISABLE_SHADOW_HOST_SUFFIX"] = "false"  # istiod's default has no sign of a copy in its host
    try:
        subprocess.run([runner / "up"], check=True, timeout=300)
        renew(runner, names)
    finally:
        subprocess.run([runner / "down"], check=True, timeout=120)
        shutil.rmtree(directory)


if __name__ == "__main__":
    main(sys.argv[1:])
