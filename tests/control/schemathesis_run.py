"""/openapi.json against a control plane that runs, with every check of schemathesis, in each role: ``make fuzz`` runs
it for long, a test for a short while.

A control plane is started for each run on loopback, with a service whose sidecar may register; nothing else is reached.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.support.control_process import ControlProcess

CONFIG: Final = Path(__file__).with_name("schemathesis.toml")
ROLES: Final = ("operator", "reader", "workload")
# Bodies that are documents have so many forms that a look at each takes a minute; a short run draws some of them.
MANY_FORMS: Final = "^(resources.(put|apply|check)|services.put)$"
OWN_TOKEN: Final = "tokens.delete"  # an operator that deletes its own token sees nothing any more
WEB: Final = {"ports": [{"port": 80}], "serviceAccounts": ["web"]}


def run(role: str, examples: int, *, whole: bool = False, seed: int = 1) -> tuple[int, str]:
    """One run; returns the exit code, and what it said. ``examples`` for each call and phase; ``whole``: all forms."""
    with ControlProcess(3600, module="tests.control.unbounded_control") as control:
        control.ask("PUT", "/v1/services/shop/web", WEB)
        token = _token(control, role)
        said = []
        for more in _runs(role, whole):
            command = [
                sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run",
                f"http://127.0.0.1:{control.port}/openapi.json", "--header", f"Authorization: Bearer {token}",
                "--checks", "all", "--seed", str(seed), "--max-examples", str(examples), "--no-color",
                "--request-timeout", "60", *more,
            ]  # fmt: skip
            done = subprocess.run(command, cwd=control.directory, capture_output=True, text=True, check=False)
            said.append(done.stdout + done.stderr)
            if done.returncode:
                return done.returncode, said[-1]
        return 0, "\n".join(said)


def _runs(role: str, whole: bool) -> list[list[str]]:
    if role == "workload":
        return [["--include-path-regex", "^/v1/(snapshot|certificates|bundle|crl|services/.*/endpoints)"]]
    if role == "reader":
        return [["--include-method", "GET"]]
    own = ["--include-operation-id", OWN_TOKEN]
    if whole:
        return [["--exclude-operation-id", OWN_TOKEN], own]
    return [
        ["--exclude-operation-id-regex", f"{MANY_FORMS}|^{OWN_TOKEN}$"],
        ["--include-operation-id-regex", MANY_FORMS, "--phases", "examples,fuzzing,stateful"],
        own,
    ]


def _token(control: ControlProcess, role: str) -> str:
    if role == "operator":
        return (control.directory / "ca" / "operator-token").read_text().strip()
    if role == "workload":
        return control.token("web")
    return str(control.ask("POST", "/v1/tokens", {"role": role, "ttl": "24h"})["token"])


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.control.schemathesis_run", description=__doc__)
    parser.add_argument("--examples", type=int, default=500, help="for each call and phase")
    parser.add_argument("--seed", type=int, default=1)
    told = parser.parse_args()
    worst = 0
    for role in ROLES:
        code, said = run(role, told.examples, whole=True, seed=told.seed)
        print(f"-- {role}\n{said}", flush=True)
        worst = max(worst, code)
    return worst


if __name__ == "__main__":
    sys.exit(main())
