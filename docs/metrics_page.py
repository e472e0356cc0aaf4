"""The page on metrics, made from the table in ``sidecar/telemetry/metric_catalog.py``."""

from __future__ import annotations

from collections.abc import Iterable

from sidecar.telemetry.metric_catalog import HTTP_LABELS, ISTIO, OURS, PARTIES, PROCESS, TCP_LABELS, Metric
from sidecar.telemetry.metrics import BUCKETS
from sidecar.telemetry.timings import BOUNDS

_HEAD = """\
# Metrics

<!-- Made from the table in `sidecar/telemetry/metric_catalog.py` by `make docs`; change that, not this. -->

`GET /metrics` on port 15020 is for Prometheus, which may come from anywhere; the admin port (15000, this machine only)
has the same page under `/metrics` and `/stats/prometheus`. The format follows `Accept`: OpenMetrics for whoever prefers
it, as Prometheus does, Prometheus' text otherwise.

```yaml
scrape_configs:
  - job_name: sidecar
    static_configs: [{targets: ["127.0.0.1:15020"]}]
```

`deploy/monitoring/` in the source has `dashboard.json` to import into Grafana and `alerts.yaml` for Prometheus'
`rule_files`; the tests run both through promtool, and `alerts-test.yaml` shows what sets each alert off.

No label takes a value that a peer chooses: there is none for methods, hosts or paths, a status that is not registered
is `other`, a principal is given by an authority, and so the number of series has a bound. `POST /reset_counters` on
the admin port sets all counters, histograms and peaks to zero but those of the process itself (`process_`); what is
open or in use now stays, and so do the counts that `/certs` shows.
"""
_LABELS = """\

### Labels

`reporter` is `destination` for what came in on 15006, `source` for what the app sent out through 15001.
`request_protocol` is `http` or `tcp`, `response_flags` one of [the response flags](response-flags.md) or `-`.
`response_code` is `0` where no answer could be given. `connection_security_policy` is `mutual_tls` or `none` at the
destination and `unknown` at the source, as with Istio. The rest names the two ends, of which an identity tells the two
principals: the SPIFFE ids of this proxy and of its peer (of the first 64 peers; then `other`). What nobody tells is
`unknown`:
"""


def text() -> str:
    """The text of docs/metrics.md."""
    milliseconds = ", ".join(f"{bound:g}" for bound in BUCKETS[:-3])
    more = ", ".join(f"{bound:d}" for bound in BUCKETS[-3:])
    seconds = ", ".join(f"{bound:g}" for bound in BOUNDS)
    return "".join(
        (
            _HEAD,
            "\n## By Istio's names\n\nDashboards and alerts made for Istio find these. Buckets, of milliseconds and of "
            f"bytes alike:\n{milliseconds},\n{more}.\n\n",
            _table(ISTIO),
            _LABELS,
            _listed(PARTIES),
            "\n## Ours\n\nHistograms are of seconds, in the buckets\n" + seconds + ".\n\n",
            _table(OURS),
            "\n`pool` is `inbound` (HTTP to the app), `inbound_opaque` (other connections to the app) or `outbound` "
            "(all destinations\ntogether). `reason` is the reason's word, as in the access log.\n",
            "\n## The process\n\nUnder the names that every client library uses.\n\n",
            _table(PROCESS),
        )
    )


def _table(metrics: Iterable[Metric]) -> str:
    rows = ["| metric | kind | labels | meaning |\n| --- | --- | --- | --- |\n"]
    rows += [
        f"| `{each.shown[0] if each.kind in ('counter', 'info') else each.name}` | {each.kind} | {_names(each.labels)} "
        f"| {each.help} |\n"
        for each in metrics
    ]
    return "".join(rows)


def _names(labels: tuple[str, ...]) -> str:
    if labels == HTTP_LABELS:
        return "[all](#labels)"
    if labels == TCP_LABELS:
        return "[all](#labels) but `response_code`"
    return ", ".join(f"`{label}`" for label in labels)


def _listed(labels: tuple[str, ...]) -> str:
    return "\n" + ",\n".join(f"`{label}`" for label in labels) + ".\n"
