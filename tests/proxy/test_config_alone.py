"""``sidecar --upstream HOST:PORT --config policy.yaml``, with nothing else: documents without a control plane."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.modules import among, loaded_by
from tests.support.process import SidecarProcess
from tests.support.upstream import wait_until

POLICY = """\
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: readers, annotations: {istio.io/dry-run: "true"}}
spec:
  selector: {matchLabels: {app: web}}
  rules:
  - to:
    - operation: {methods: [GET]}
"""


def test_it_starts_and_shows_the_policies_and_follows_the_file(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY)
    with SidecarProcess(1, "--config", str(file), "--workload-labels", "app=web") as sidecar:

        def shown() -> list[dict[str, object]]:
            mesh = json.loads(sidecar.admin_get("/config_dump")[1])["mesh"]
            policies: list[dict[str, object]] = mesh["snapshot"]["authorization"]
            return policies

        assert shown() == [
            {
                "name": "readers",
                "namespace": "default",
                "action": "ALLOW",
                "dryRun": True,
                "rules": [{"to": [{"operation": {"methods": ["GET"]}}]}],
            }
        ]
        assert any("callers show no certificate" in line for line in sidecar.errors)
        assert any("a policy that asks for one denies" in line for line in sidecar.errors)
        assert 'sidecar_snapshot_source{source="file"} 1' in sidecar.admin_get("/metrics")[1]
        (tmp_path / "new").write_text(POLICY.replace("readers", "others"))
        (tmp_path / "new").rename(file)
        wait_until(lambda: [each["name"] for each in shown()] == ["others"], "the changed policy")


def test_it_does_not_start_with_documents_that_are_wrong(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY.replace("GET", '""'))
    with SidecarProcess(1, "--config", str(file), wait_ready=False) as sidecar:
        assert sidecar.wait_exit() == 2
    assert sidecar.errors[-1] == (
        f"sidecar: error: --config: {file}:8: spec.rules[0].to[0].operation.methods[0]: is empty; write a value, or "
        '"*" for any that is not empty'
    )


def test_without_an_identity_no_library_for_one_is_loaded() -> None:
    loaded = loaded_by("import sidecar.config_runtime")
    assert among(loaded, "OpenSSL", "cryptography", "sidecar.mesh_runtime") == []
