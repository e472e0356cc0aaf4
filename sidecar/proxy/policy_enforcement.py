"""AuthorizationPolicy at the app's side: judge requests and connections by the Snapshot's policies, and judge again
those that were allowed before the policies changed.

Called by ``inbound``. ``policy.rbac`` judges; this module has the counters, the texts for records, and the cut.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from time import monotonic, time
from typing import TYPE_CHECKING, Final, cast

from sidecar.errors import ProxyError, Reason
from sidecar.policy.authorize import Asked, Leave, Rules
from sidecar.proxy.context import ProxyContext
from sidecar.proxy.local_reply import STATUS
from sidecar.resources.snapshot import NOTHING, Snapshot

if TYPE_CHECKING:  # loaded once there is a policy
    from sidecar.policy.rbac import Engine, Judgement, Step

_log = logging.getLogger(__name__)
MOST_DRY_RUNS: Final = 1000
_BY_DEFAULT: Final = "no ALLOW policy: allowed by default"
LOOKS_PER_SECOND: Final = 20  # nearest misses computed for refusals: some 2 % of a core
MOST_AT_ONCE: Final = 1024  # streams judged again at one tick: some 4 ms, and 20,000 within a second


class DryRuns:
    """Counts of the decisions that policies of dry runs would have changed, since the start: by policy, caller and
    decision. Bounded: callers beyond MOST_DRY_RUNS are counted together."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], list[float]] = {}

    def add(self, policy: str, caller: str, would: str) -> None:
        """Count one decision."""
        key = policy, caller, would
        if key not in self._found and len(self._found) >= MOST_DRY_RUNS:
            key = policy, "other callers", would
        times, _ = self._found.get(key, (0, 0.0))
        self._found[key] = [times + 1, time()]

    def shown(self) -> list[dict[str, object]]:
        """Return the counts as JSON values, the most frequent first."""
        rows = sorted(self._found.items(), key=lambda row: -row[1][0])
        return [
            {"policy": policy, "caller": caller, "would": would, "times": int(times), "last": last}
            for (policy, caller, would), (times, last) in rows
        ]


class InboundPolicies:
    """The policies in force at the app's side, by the Snapshot that was read last."""

    def __init__(self, context: ProxyContext) -> None:
        self._context = context
        self._seen: Snapshot = NOTHING
        self._engine: Engine | None = None  # None: there is no policy
        self._rules: Rules = _undecidable
        self.dry_runs = DryRuns()
        self._looks = 0
        self._looks_since = 0.0
        self._left: list[int] = []  # keys of what is still to be judged again
        self._follow(NOTHING)

    def rules(self, snapshot: Snapshot) -> Rules:
        """Return the rules that judge by this Snapshot."""
        if snapshot is not self._seen:
            self._follow(snapshot)
        return self._rules

    def explain(self, snapshot: Snapshot, asked: Asked) -> dict[str, object]:
        """Return how the policies judge ``asked``, each rule with the first field that differs, as JSON values. Counts
        nothing."""
        if (rules := self.rules(snapshot)) in (_unconfigured, _undecidable):
            try:
                rules(asked)
            except ProxyError as refusal:
                return {
                    "allowed": False,
                    "status": STATUS[refusal.reason],
                    "decided_by": refusal.detail,
                    "policies": [],
                }
        if self._engine is None:
            return {"allowed": True, "status": None, "decided_by": _BY_DEFAULT, "policies": []}
        judged = self._engine.judge(asked)
        told: dict[str, object] = {"allowed": judged.allowed, "status": None if judged.allowed else 403}
        if judged.policy:
            told["decided_by"] = f"{judged.policy}[{judged.rule}]"
        elif judged.allowed:
            told["decided_by"] = _BY_DEFAULT
        else:
            told["decided_by"] = "default deny"
            told["nearest_miss"] = self._engine.nearest_miss(asked)
        if judged.audited:
            told["audited_by"] = judged.audited
        if judged.would_allow is not None:
            told["dry_run"] = {"allowed": judged.would_allow, "decided_by": judged.would_policy or "by default"}
        told["policies"] = [_shown(step) for step in self._engine.explain(asked)]
        return told

    def _follow(self, snapshot: Snapshot) -> None:
        before, engine = self._engine, cast("Engine | None", snapshot.rules)
        known = self._seen
        if (snapshot.policies, snapshot.trust_domain) == (known.policies, known.trust_domain):
            engine = before  # nothing has changed for what is under way
        elif engine is None:
            try:
                engine = self._compile(snapshot)
            except Exception:
                _log.exception("internal error: the policies do not compile, so everything is denied; please report it")
                self._seen, self._rules = snapshot, _undecidable
                return
        self._engine = engine
        if self._context.mesh is not None and snapshot.source == "none":
            self._rules = _unconfigured
        else:
            self._rules = self._context.rules if engine is None or engine.empty else self._judge
        names = self._context.judged_names
        names.clear()
        names.update(_header_names(snapshot))
        self._seen = snapshot
        if engine is not before:
            self._left = list(reversed(self._context.in_progress))  # the oldest is judged first

    def _compile(self, snapshot: Snapshot) -> Engine | None:
        if not snapshot.policies:
            return None
        from sidecar.policy.rbac import compile_policies

        identities = self._context.acceptor is not None
        work = compile_policies(snapshot.policies, snapshot.trust_domain, identities=identities)
        while True:
            try:
                next(work)
            except StopIteration as done:
                return cast("Engine", done.value)

    def _judge(self, asked: Asked) -> Leave:
        leave = self._context.rules(asked)
        engine = self._engine
        if engine is None:
            return leave
        judged = engine.judge(asked)
        counters = self._context.telemetry.counters
        note = "" if judged.would_allow is None and not judged.audited else self._note(judged, asked)
        if judged.allowed:
            counters.rbac_allowed += 1
            if not judged.policy:
                return Leave(leave.rule, note)
            return Leave(f"{judged.policy}[{judged.rule}]", note)
        counters.rbac_denied += 1
        raise self._denied(judged, asked, note)

    def _note(self, judged: Judgement, asked: Asked) -> str:
        counters = self._context.telemetry.counters
        words = []
        if judged.audited:
            counters.rbac_audited += 1
            words.append(f"audited by {judged.audited}")
        if judged.would_allow is not None and judged.would_allow != judged.allowed:
            if judged.would_allow:
                counters.rbac_would_allow += 1
                self.dry_runs.add(judged.would_policy, asked.peer, "allow")
                words.append(f"dry run: {judged.would_policy or 'the policies'} would allow it")
            else:
                counters.rbac_would_deny += 1
                self.dry_runs.add(judged.would_policy, asked.peer, "deny")
                words.append(f"dry run: {judged.would_policy or 'the policies'} would deny it")
        return "; ".join(words)

    def _denied(self, judged: Judgement, asked: Asked, note: str) -> ProxyError:
        if judged.policy:
            rule = f"{judged.policy}[{judged.rule}]"
            error = ProxyError(Reason.RBAC_DENIED, f"denied by AuthorizationPolicy {judged.policy}, rule {judged.rule}")
            error.rule = rule
        else:
            nearest, engine = "", self._engine
            if engine is not None and asked.peer and self._may_look():
                nearest = f"; {engine.nearest_miss(asked)}"
            error = ProxyError(Reason.RBAC_DENIED, f"no ALLOW policy matches{nearest}")
            error.rule = "default deny"
        error.note = note
        return error

    def _may_look(self) -> bool:
        """Return whether to look for the nearest miss, which takes up to a millisecond: a flood of refusals skips it.
        ``/explain`` always looks."""
        now = monotonic()
        if now - self._looks_since >= 1.0:
            self._looks_since, self._looks = now, 0
        self._looks += 1
        return self._looks <= LOOKS_PER_SECOND

    # -- what was allowed before -------------------------------------------------------------------------------------

    def sweep(self, snapshot: Snapshot) -> None:
        """Judge again what is in progress, a part at each call, after the policies have changed. Cut what is denied."""
        self.rules(snapshot)
        engine = self._engine
        if engine is None:
            self._left.clear()
            return
        in_progress = self._context.in_progress
        for _ in range(min(MOST_AT_ONCE, len(self._left))):
            running = in_progress.get(self._left.pop())
            if running is None:
                continue
            asked = running.asked()
            judged = engine.judge(asked)
            if not judged.allowed:
                self._context.telemetry.counters.rbac_cut += 1
                running.cut(self._denied(judged, asked, ""))


def _unconfigured(_: Asked) -> Leave:
    """Until the first Snapshot it is not known which policies there are."""
    raise ProxyError(
        Reason.NO_CONFIGURATION,
        "no configuration received yet; inbound calls are refused: look at what --control answers (/ready)",
    )


def _undecidable(_: Asked) -> Leave:
    raise ProxyError(Reason.RBAC_DENIED, "the policies can't be compiled; the log says why")


def _shown(step: Step) -> dict[str, object]:
    told: dict[str, object] = {"policy": step.policy, "rule": step.rule, "action": step.action, "matched": step.matched}
    if step.dry_run:
        told["dry_run"] = True
    if not step.matched:
        told["differs"] = step.field
        if "request.headers[" not in step.field:  # the value of a header may be a secret
            told["saw"] = step.seen
    return told


def _header_names(snapshot: Snapshot) -> Iterator[bytes]:
    """Yield the names of the fields that the policies' conditions read, in lower case."""
    for policy in snapshot.policies:
        for rule in policy.rules:
            for condition in rule.when or ():
                if condition.key.startswith("request.headers[") and condition.key.endswith("]"):
                    yield condition.key.removeprefix("request.headers[").removesuffix("]").lower().encode()


def remote_address(client: str, forwarded: bytes, trusts: Callable[[str], bool]) -> str:
    """Return the address that trusted proxies report: the last one in x-forwarded-for that is no trusted proxy.

    If ``client`` is no trusted proxy, return ``client``; a mesh peer is not trusted for being one. A text that is no
    address is returned as it is: no rule on addresses allows it.
    """
    if not trusts(client):
        return client
    for text in reversed(forwarded.decode("ascii", "replace").split(",")):
        client = text.strip() or "unknown"
        if not trusts(client):
            break
    return client
