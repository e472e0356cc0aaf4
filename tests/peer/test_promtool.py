"""Prometheus' own tool reads what we say and what we ship: the page of a real process, the alerts, the dashboard."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from sidecar.telemetry import metric_catalog
from tests.peer.programs import program
from tests.support.process import SidecarProcess
from tests.support.raw import Client, ask
from tests.support.upstream import RecordingUpstream

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"
DASHBOARD = MONITORING / "dashboard.json"
# What a process has no number for that has no rules to look after, no documents, and no identity.
ELSEWHERE = (
    "sidecar_interception_",
    "sidecar_tls_",
    "sidecar_certificate_",
    "sidecar_control_plane_",
    "sidecar_revocation_",
    "sidecar_snapshot",
    "sidecar_registration_",
    "sidecar_app_health",
    "sidecar_rate_limit",
    "sidecar_route_requests",
)
OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}
_NAME = re.compile(r"\b(?:istio|sidecar|process)_[a-z_]+\b")


def promtool(*arguments: str, stdin: str = "") -> tuple[int, str]:
    done = subprocess.run(
        [program("promtool"), *arguments],
        input=stdin,
        cwd=MONITORING,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def sidecar() -> Iterator[SidecarProcess]:
    """A process that has served, refused and relayed something."""
    with RecordingUpstream(strict=False) as app, SidecarProcess(app.port) as running:
        ask(running.inbound, b"GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n")
        ask(running.inbound, b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n")
        ask(running.outbound, b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")
        with Client(running.inbound) as opaque:
            opaque.send(b"\x00\x01\x02\x03")
            opaque.finish()
            opaque.read_to_end()
        yield running


def test_the_page_is_as_prometheus_wants_it(sidecar: SidecarProcess) -> None:
    """One remark is known: Istio counts in milliseconds, and dashboards of others ask for that name."""
    _, page = sidecar.admin_get("/metrics")
    _, remarks = promtool("check", "metrics", stdin=page)
    assert remarks.splitlines() == [
        'istio_request_duration_milliseconds use base unit "seconds" instead of "milliseconds"'
    ]


def test_a_page_that_is_not_is_found_out() -> None:
    code, remarks = promtool("check", "metrics", stdin="# TYPE some_total gauge\nsome_total 1\n")
    assert code and "some_total" in remarks


@pytest.mark.parametrize("headers", [{}, OPENMETRICS], ids=["text", "openmetrics"])
def test_the_page_is_what_the_catalog_says(sidecar: SidecarProcess, headers: dict[str, str]) -> None:
    """Every metric of the table is there, under its kind, and no other; what is off has no number."""
    _, page = sidecar.admin_get("/metrics", headers=headers)
    families = {each.name: each for each in (parse_openmetrics if headers else parse_text)(page)}
    wanted = {each.name: each for each in metric_catalog.METRICS}
    if not headers:  # the text format has no kind "info", and shows it as a gauge
        families["sidecar_build"] = families.pop("sidecar_build_info")
    assert set(families) == set(wanted)
    for name, family in families.items():
        assert family.documentation == wanted[name].help
        assert bool(family.samples) is not name.startswith(ELSEWHERE), f"{name}: {family.samples}"
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(wanted[name].labels), sample
            assert sample.name in wanted[name].shown, sample


def test_methods_hosts_and_paths_of_peers_make_no_series(sidecar: SidecarProcess) -> None:
    """Two thousand of each through a real process."""

    def series() -> set[tuple[str, tuple[tuple[str, str], ...]]]:
        _, page = sidecar.admin_get("/metrics")
        return {
            (sample.name, tuple(sorted(sample.labels.items())))
            for family in parse_text(page)
            for sample in family.samples
        }

    before = series()
    with Client(sidecar.inbound, deadline=30) as client:
        methods = []
        for number in range(2000):
            method = b"M" + os.urandom(4).hex().upper().translate(_LETTERS).encode()
            methods.append(method)
            client.send(
                b"%b /%b?%d HTTP/1.1\r\nHost: %b.example\r\nUser-Agent: %b\r\n\r\n"
                % (
                    method,
                    os.urandom(4).hex().encode(),
                    number,
                    os.urandom(4).hex().encode(),
                    os.urandom(9).hex().encode(),
                )
            )
            client.heard.raw.clear()
            assert [reply.status for reply in client.replies([method], 1)] == [200]
    assert series() == before


_LETTERS = str.maketrans("0123456789", "GHIJKLMNOP")


# -- alerts ------------------------------------------------------------------------------------------------------------


def test_the_alerts_are_rules_and_do_what_they_should() -> None:
    code, said = promtool("check", "rules", "alerts.yaml")
    assert code == 0 and "rules found" in said, said
    code, said = promtool("test", "rules", "alerts-test.yaml")
    assert code == 0 and "SUCCESS" in said, said


def test_every_alert_is_tested_both_ways() -> None:
    alerts = re.findall(r"- alert: (\w+)", (MONITORING / "alerts.yaml").read_text())
    tested = (MONITORING / "alerts-test.yaml").read_text()
    assert len(alerts) >= 8
    for alert in alerts:
        assert f"alertname: {alert}}}" in tested and f'alertname="{alert}"' in tested, alert


# -- the dashboard -----------------------------------------------------------------------------------------------------

_SOURCE = {"const": {"type": "prometheus", "uid": "${datasource}"}}
_TARGET = {
    "type": "object",
    "required": ["refId", "datasource", "expr", "legendFormat"],
    "properties": {
        "refId": {"pattern": "^[A-Z]$"},
        "datasource": _SOURCE,
        "expr": {"type": "string", "minLength": 1},
        "legendFormat": {"type": "string", "minLength": 1},
        "range": {"type": "boolean"},
    },
    "additionalProperties": False,
}
_PLACE = {
    "type": "object",
    "required": ["h", "w", "x", "y"],
    "properties": {
        "h": {"type": "integer", "minimum": 1},
        "w": {"type": "integer", "minimum": 1, "maximum": 24},
        "x": {"type": "integer", "minimum": 0, "maximum": 23},
        "y": {"type": "integer", "minimum": 0},
    },
}
_PANEL = {
    "type": "object",
    "required": ["id", "type", "title", "gridPos"],
    "properties": {
        "id": {"type": "integer"},
        "type": {"enum": ["row", "stat", "timeseries"]},
        "title": {"type": "string", "minLength": 1},
        "gridPos": _PLACE,
    },
    "if": {"properties": {"type": {"const": "row"}}},
    "else": {
        "required": ["datasource", "description", "fieldConfig", "options", "targets"],
        "properties": {
            "datasource": _SOURCE,
            "targets": {"type": "array", "minItems": 1, "items": _TARGET},
            "fieldConfig": {
                "type": "object",
                "required": ["defaults", "overrides"],
                "properties": {"defaults": {"type": "object", "required": ["unit"]}},
            },
        },
    },
}
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["title", "uid", "schemaVersion", "time", "templating", "panels"],
    "properties": {
        "uid": {"pattern": "^[a-zA-Z0-9_-]{1,40}$"},
        "schemaVersion": {"type": "integer", "minimum": 36},
        "time": {"type": "object", "required": ["from", "to"]},
        "templating": {
            "type": "object",
            "properties": {
                "list": {
                    "type": "array",
                    "contains": {
                        "properties": {
                            "name": {"const": "datasource"},
                            "type": {"const": "datasource"},
                            "query": {"const": "prometheus"},
                        }
                    },
                    "items": {"type": "object", "required": ["name", "type", "query"]},
                }
            },
        },
        "panels": {"type": "array", "minItems": 10, "items": _PANEL},
    },
}


def dashboard() -> dict[str, Any]:
    loaded = json.loads(DASHBOARD.read_text())
    assert isinstance(loaded, dict)
    return loaded


def expressions() -> list[str]:
    """What the panels ask Prometheus, with Grafana's variables filled in as it would."""
    found = [target["expr"] for panel in dashboard()["panels"] for target in panel.get("targets", ())]
    return [each.replace("$__rate_interval", "1m").replace("$job", ".*").replace("$instance", ".*") for each in found]


def test_the_dashboard_is_one() -> None:
    loaded = dashboard()
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.Draft202012Validator(SCHEMA).validate(loaded)
    numbers = [panel["id"] for panel in loaded["panels"]]
    assert len(set(numbers)) == len(numbers)
    taken: set[tuple[int, int]] = set()
    for place in (panel["gridPos"] for panel in loaded["panels"]):
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert place["x"] + place["w"] <= 24 and not cells & taken, place
        taken |= cells


@pytest.mark.parametrize("damage", ["uid", "templating", "panels"])
def test_a_damaged_dashboard_is_found_out(damage: str) -> None:
    loaded = dashboard()
    if damage == "panels":
        loaded["panels"][1]["targets"][0]["datasource"] = {"type": "prometheus", "uid": "mine"}
    else:
        del loaded[damage]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(SCHEMA).validate(loaded)


def test_prometheus_understands_what_the_dashboard_asks(tmp_path: Path) -> None:
    asked = expressions()
    assert asked and not any("$" in each for each in asked)
    rules = [{"record": f"panel:{number}", "expr": each} for number, each in enumerate(asked)]
    file = tmp_path / "asked.yaml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))  # JSON is YAML too
    code, said = promtool("check", "rules", str(file))
    assert code == 0 and f"{len(asked)} rules found" in said, said


@pytest.mark.parametrize("file", ["alerts.yaml", "alerts-test.yaml", "dashboard.json"])
def test_every_metric_that_is_asked_for_exists(file: str) -> None:
    shown = {name for metric in metric_catalog.METRICS for name in metric.shown}
    asked = set(_NAME.findall((MONITORING / file).read_text()))
    assert asked and asked <= shown, asked - shown
