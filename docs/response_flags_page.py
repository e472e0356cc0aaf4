"""docs/response-flags.md, from the reasons, their meanings, and the statuses that they become."""

from __future__ import annotations

from itertools import groupby
from typing import Final

from sidecar.errors import CUTS, Fault, Reason
from sidecar.proxy.local_reply import STATUS
from sidecar.telemetry.reason_texts import MEANINGS

# Envoy's words for its flags (its access-log documentation, "Response Flags"), as far as a reason of ours has them.
FLAGS: Final = {
    "DPE": "downstream protocol error",
    "SI": "stream idle",
    "DC": "downstream closed",
    "NR": "no route",
    "UAEX": "denied by authorization",
    "RL": "rate limited",
    "DF": "DNS failure",
    "UF": "upstream connection failure",
    "UH": "no healthy upstream",
    "NC": "no cluster",
    "FI": "fault injected",
    "UC": "upstream closed",
    "UPE": "upstream protocol error",
    "UT": "upstream timeout",
    "URX": "upstream retry limit exceeded",
    "UO": "overflow",
    "OM": "overload manager",
    "DO": "drop overload",
    "LR": "local reset",
}
_WHO: Final = {
    Fault.CLIENT: "the client",
    Fault.UPSTREAM: "the upstream: the app (inbound), or whom it calls (outbound)",
    Fault.POLICY: "a rule of this sidecar",
    Fault.IDENTITY: "a certificate: a peer's, or this sidecar's own",
    Fault.OVERLOAD: "load: more work than a limit lets in",
    Fault.DRAIN: "nobody: the sidecar ends",
    Fault.OURS: "this sidecar",
}
# Where nobody is left to read a status, or no request to answer.
UNTOLD: Final = {
    Reason.CLIENT_CLOSED: "none",
    Reason.CONNECTION_IDLE: "none; closed",
    **dict.fromkeys(CUTS, "none; reset"),
    Reason.UPSTREAM_IDLE: "the app's, then a reset",
    Reason.TOO_MANY_CONNECTIONS: "none; reset",
    Reason.DRAIN_DEADLINE: "none; reset",
}
_HEAD = """\
# Response flags

<!-- Made from sidecar/errors.py, telemetry/reason_texts.py and proxy/local_reply.py by make docs; change those, not
this. -->

A request that did not end as it should has a flag and a reason. The flag is one of Envoy's, so that dashboards go on
working; the reason is our own word, and finer. Both stand in the access log, in the reply's body
(`application/problem+json`: `flag`, `reason`, `detail`), in the metrics, and in `/requests` and `/explain/<request-id>`
on the [admin port](admin.md), which also say what to do. A request without a flag (`-`) got the app's own answer,
whatever its status.

`URX` may stand alone beside the app's own answer, or behind the flag of a failure (`UF,URX`): the route's retry policy
wanted one more attempt, and the attempts or the cluster's budget for retries were used up. `/explain/<request-id>` says
which. `DI` stands beside other flags, or alone: a VirtualService's `fault.delay` made the request wait.

"""


def text() -> str:
    """The page."""
    parts = [_HEAD, "| flag | reason | status | whose turn it is |\n| --- | --- | --- | --- |\n"]
    parts += [f"| `{reason.flag}` | [`{reason.word}`](#{reason.word}) | {_status(reason)} | {reason.fault.value} |\n"
              for reason in Reason]  # fmt: skip
    ordered = sorted(Reason, key=lambda reason: list(FLAGS).index(reason.flag))
    for flag, reasons in groupby(ordered, key=lambda reason: reason.flag):
        parts.append(f"\n## {flag}: {FLAGS[flag]}\n")
        parts += [_section(reason) for reason in reasons]
    return "".join(parts)


def _section(reason: Reason) -> str:
    meaning = MEANINGS[reason]
    return (
        f"\n### `{reason.word}` {{ #{reason.word} }}\n\n"
        f"Status: {_status(reason)}. Who has to change something: {_WHO[reason.fault]}.\n\n"
        f"- **Cause.** {meaning.means}\n- **Cure.** {meaning.cure}\n"
    )


def _status(reason: Reason) -> str:
    return UNTOLD.get(reason) or str(STATUS[reason])
