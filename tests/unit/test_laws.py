"""The laws of the layout: import-linter sees a breach of each, and the few that it can't hold stand here.

The contracts themselves are in pyproject.toml and run with ``make check``; a contract that nothing can break holds
nothing, so a breach of each is planted in a copy of the package.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.modules import among, existing

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONTRACTS = {contract["id"]: contract["name"] for contract in PROJECT["tool"]["importlinter"]["contracts"]}
PACKAGES = PROJECT["tool"]["importlinter"]["root_packages"]
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
LONG_FILE = 400  # lines; a longer one is reported, since it may hold a second idea
LONGEST_FILE = 600  # a longer one fails

# contract -> (a file, a line that breaks the contract); deferred and indirect imports count too
BREACHES = {
    "pure": ("sidecar/resources/load.py", "def later():\n    import time\n"),
    "resources": ("sidecar/resources/dump.py", "from sidecar.policy import egress\n"),
    "certs": ("certs/renew.py", "import time\n"),
    "control": ("control/issued_certificates.py", "from sidecar.net import connection\n"),
    "ctl": ("control/ctl/kinds.py", "def later():\n    from control import ledger\n"),
    "ctl-alone": ("control/api.py", "def later():\n    from control.ctl import kinds\n"),
    "front": ("control/api.py", "def later():\n    from control import tls_front\n"),
    "data-plane": ("sidecar/value_parsers.py", "def later():\n    import starlette\n"),
    "control-decides": ("control/rate_limits.py", "import trio\n"),
    "net": ("sidecar/net/timers.py", "def later():\n    from sidecar.telemetry import record\n"),
    "tls": ("sidecar/tls/connection_security.py", "def later():\n    from sidecar.telemetry import record\n"),
    "http": ("sidecar/http/paths.py", "def later():\n    from sidecar.proxy import context\n"),
    "hello": ("sidecar/tls/client_hello.py", "def later():\n    import time\n"),
    "directions": ("sidecar/proxy/local_reply.py", "from sidecar.proxy import inbound, outbound\n"),
    "pipeline": ("sidecar/proxy/route.py", "def later():\n    from sidecar.http.h1 import head\n"),
    "routes": ("sidecar/proxy/inbound.py", "def later():\n    from sidecar.proxy import routes\n"),
    "upstream": ("sidecar/upstream/endpoint.py", "def later():\n    from sidecar.http import headers\n"),
    "app": ("sidecar/proxy/inbound.py", "import sidecar.app\n"),
    "command": ("sidecar/app.py", "from sidecar.cli import main\n"),
    "dns": ("sidecar/dns/server.py", "from sidecar.telemetry import metrics\n"),
    "dns_on_demand": ("sidecar/net/dial.py", "def later():\n    import sidecar.dns.names\n"),
    "plan": ("init/plan.py", "import socket\n"),
    "init": ("init/cli.py", "from sidecar import settings\n"),
    "netlink": ("sidecar/net/dial.py", "import pyroute2\n"),
}


def lint(root: Path) -> str:
    """What import-linter says of the project in ``root``."""
    command = "import sys; from importlinter.cli import lint_imports_command; lint_imports_command()"
    done = subprocess.run(
        [sys.executable, "-c", command, "--no-cache", "--no-logo"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "COLUMNS": "500"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def breached(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What import-linter says of a copy with every breach in it."""
    root = tmp_path_factory.mktemp("breached")
    shutil.copy(ROOT / "pyproject.toml", root)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, line in BREACHES.values():
        with (root / name).open("a") as file:
            file.write("\n" + line)
    return " ".join(lint(root).split())


def test_every_contract_has_its_breach() -> None:
    assert set(BREACHES) == set(CONTRACTS)


@pytest.mark.parametrize("contract", CONTRACTS)
def test_a_breach_is_seen(contract: str, breached: str) -> None:
    assert f"{CONTRACTS[contract]} BROKEN" in breached


@pytest.mark.parametrize("contract", PROJECT["tool"]["importlinter"]["contracts"], ids=CONTRACTS)
def test_every_module_that_a_contract_names_exists(contract: dict[str, str | list[str]]) -> None:
    for key, names in contract.items():
        if isinstance(names, list) and key != "ignore_imports":  # import-linter fails where one of those is gone
            existing(*(name.removesuffix(".**") for name in names))


@pytest.mark.parametrize("name", ["sidecar.proxy.gone", "sidecar.gone.within", "gone"])
def test_a_module_that_is_gone_can_not_be_forbidden(name: str) -> None:
    with pytest.raises(AssertionError, match=f"there is no module {name}: "):
        among({"sys"}, name)


def test_a_forbidden_module_that_is_loaded_is_named_with_what_is_inside_it() -> None:
    assert among({"sys", "sidecar.net", "sidecar.net.dial", "sidecar.network"}, "sidecar.net") == [
        "sidecar.net", "sidecar.net.dial",
    ]  # fmt: skip


def test_the_project_itself_has_none() -> None:
    assert f"Contracts: {len(CONTRACTS)} kept, 0 broken." in lint(ROOT)


def environment_reads(source: str) -> list[int]:
    """The lines that read the environment."""
    names = {"environ", "environb", "getenv", "getenvb"}
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in names:
            found.append(node.lineno)
        if isinstance(node, ast.ImportFrom) and node.module == "os" and {name.name for name in node.names} & names:
            found.append(node.lineno)
    return found


def test_only_settings_read_the_environment() -> None:
    readers = {path.relative_to(ROOT).as_posix() for path in MODULES if environment_reads(path.read_text())}
    assert readers == {"control/ctl/settings.py", "control/settings.py", "init/cli.py", "sidecar/settings.py"}


@pytest.mark.parametrize(
    "source", ["import os\nx = os.environ['A']", "from os import getenv", "import os\nos.getenv('A')"]
)
def test_a_planted_read_of_the_environment_is_seen(source: str) -> None:
    assert environment_reads(source)


def lengths(place: Path) -> dict[Path, int]:
    """The lines of each Python file below a directory."""
    files = [path for path in place.rglob("*.py") if "site-packages" not in path.parts]
    return {path: len(path.read_text().splitlines()) for path in files}


def longer(than: int, found: dict[Path, int]) -> list[str]:
    """A line for each file that is longer."""
    return [f"{path}: {length} lines, more than {than}" for path, length in sorted(found.items()) if length > than]


@pytest.mark.parametrize("room", [*PACKAGES, "tests", "bench", "examples", "docs"])
def test_no_file_is_too_long(room: str, record_property: Callable[[str, object], None]) -> None:
    found = {path.relative_to(ROOT): length for path, length in lengths(ROOT / room).items()}
    assert found, f"{room} holds nothing"
    for line in longer(LONG_FILE, found):
        record_property("notice", line)
    assert longer(LONGEST_FILE, found) == []


def test_a_planted_long_file_is_seen(tmp_path: Path) -> None:
    for length in (LONG_FILE, LONG_FILE + 1, LONGEST_FILE + 1):
        (tmp_path / f"of_{length}.py").write_text("pass\n" * length)
    found = {path.relative_to(tmp_path): length for path, length in lengths(tmp_path).items()}
    assert longer(LONG_FILE, found) == [
        "of_401.py: 401 lines, more than 400",
        "of_601.py: 601 lines, more than 400",
    ]
    assert longer(LONGEST_FILE, found) == ["of_601.py: 601 lines, more than 600"]


def test_only_the_packages_of_the_sidecar_are_shipped() -> None:
    assert PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == PACKAGES
