"""A proxy process with a recording app behind it, and the way a case is played and judged on it.

One :class:`Rig` serves many cases in turn. After each one a sentinel request has to pass: that shows the proxy alive,
and whatever the case had sent to the app has arrived by then.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType

from tests.hostile.case import Case, Expect, Forwarded, Opaque, Refused, Told
from tests.support.ports import held_port
from tests.support.process import SidecarProcess
from tests.support.raw import Client, Heard, Reply, ask, parse_replies
from tests.support.strict import Request
from tests.support.upstream import RecordingUpstream, Seen, Step, wait_until

RIGS: dict[str, tuple[str, ...]] = {
    "main": (),
    "small-body": ("--max-body", "1KiB"),
    "dead": (),
}
_FOLLOW = b"GET /follow-up HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the client heard and the app saw."""

    heard: Heard
    replies: tuple[Reply, ...]
    followed: bool
    seen: Seen


class Rig:
    """``RIGS[name]`` under a protocol, with scripts for the app; a context manager."""

    def __init__(
        self,
        name: str,
        protocol: str,
        *flags: str,
        scripts: Mapping[str, Sequence[Step]] | None = None,
        access_log: str = "json",
    ) -> None:
        self.protocol = protocol
        self.name = name
        self.upstream = RecordingUpstream(scripts)
        with contextlib.ExitStack() as stack:
            self.target = stack.enter_context(held_port()) if name == "dead" else self.upstream.port
            stack.enter_context(self.upstream)
            self.sidecar = SidecarProcess(
                self.target, "--protocol", protocol, *RIGS.get(name, ()), *flags, access_log=access_log
            )
            self._others = stack.pop_all()  # what goes when the sidecar has gone
        self._sentinels = itertools.count(1)

    def __enter__(self) -> Rig:
        self.sidecar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._others:
            self.sidecar.__exit__(kind, error, trace)

    def bytes_of(self, case: Case) -> bytes:
        """The case's bytes, with this rig's addresses in them."""
        return (
            case.send.replace(b"@UPSTREAM@", b"127.0.0.1:%d" % self.target)
            .replace(b"@INBOUND@", b"127.0.0.1:%d" % self.sidecar.inbound)
            .replace(b"@OUTBOUND@", b"127.0.0.1:%d" % self.sidecar.outbound)
        )

    def sentinel(self) -> None:
        """A good request on a connection of its own passes."""
        if self.name == "dead":
            return
        target = b"/sentinel/%d" % next(self._sentinels)
        replies = ask(self.sidecar.inbound, head_close(target))
        assert [reply.status for reply in replies] == [200], f"after the case, a good request got {replies!r}"

    def take(self) -> Seen:
        """What the app saw since the last call, without sentinels."""
        self.sentinel()
        seen = self.upstream.take()
        kept = tuple(request for request in seen.requests if not request.target.startswith(b"/sentinel/"))
        return Seen(kept, seen.partial, seen.strays, seen.violations)

    def play(self, case: Case, split: str) -> Outcome:
        """Send the case, follow up with one more request where the connection is still good, and read to the end."""
        expect = case.expected(self.protocol)
        methods = _methods(expect)
        data = self.bytes_of(case)
        followed = False
        self.wait_no_partial()  # of the case before, whose end the app may not have been told yet
        self.upstream.take()
        with Client(self.sidecar.ports[case.port]) as client:
            client.send(data, split)
            if case.finish:
                client.finish()
            replies = client.replies(methods, len(methods))
            if client.heard.end == "open" and replies and not replies[-1].closes and client.left > 0:
                client.send(_FOLLOW)
                followed = True
            client.read_to_end()
            heard = client.heard
        replies = parse_replies(heard.raw, methods, ended=heard.end != "open")
        return Outcome(heard, tuple(replies), followed, self.take())

    def wait_no_partial(self) -> None:
        """Every request that the app saw the beginning of has been ended by the proxy."""
        wait_until(
            self.upstream.settled,
            "the proxy ends a request to the app that its client did not end",
        )


def head_close(target: bytes) -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n"


def judge(case: Case, protocol: str, data: bytes, outcome: Outcome) -> tuple[int, tuple[int, ...]]:
    """Which of the case's outcomes this is, and the statuses; AssertionError says why it is none of them."""
    wrongs = []
    for index, expect in enumerate(case.expected(protocol)):
        wrong = _differs(expect, data, outcome)
        if wrong is None:
            return index, tuple(reply.status for reply in outcome.replies)
        wrongs.append(f"not {expect}: {wrong}")
    raise AssertionError(
        f"{case} ({protocol}): sent {data[:160]!r}\n  heard {bytes(outcome.heard.raw[:400])!r}"
        f" then {outcome.heard.end}\n  the app saw {outcome.seen!r:.800}\n  " + "\n  ".join(wrongs)
    )


def _differs(expect: Expect, data: bytes, outcome: Outcome) -> str | None:
    if isinstance(expect, Opaque):
        return _differs_opaque(data, outcome)
    if outcome.seen.strays:
        return f"bytes that are no canonical request: {outcome.seen.violations!r}"
    if isinstance(expect, Refused):
        return _differs_refused(expect, outcome, large=len(data) > 32768)
    return _differs_forwarded(expect, outcome)


def _differs_opaque(data: bytes, outcome: Outcome) -> str | None:
    if outcome.seen.strays != (data,):
        return f"relayed {outcome.seen.strays!r}"
    if outcome.seen.requests or outcome.seen.partial or outcome.heard.raw:
        return "more than the opaque bytes went by"
    return None


def _differs_refused(expect: Refused, outcome: Outcome, *, large: bool) -> str | None:
    seen, replies = outcome.seen, outcome.replies
    if len(seen.requests) != expect.after:
        return f"{len(seen.requests)} whole requests reached the app"
    if seen.partial and not expect.partial:
        return "the beginning of a request reached the app"
    if outcome.heard.end != "eof" and not (large and outcome.heard.end == "reset"):
        return f"the connection was not closed cleanly: {outcome.heard.end}"
    if len(replies) == expect.after and expect.silent:
        return None
    if len(replies) != expect.after + 1:
        return f"{len(replies)} replies"
    if any(reply.status != 200 for reply in replies[: expect.after]):
        return f"statuses {[reply.status for reply in replies]}"
    last = replies[-1]
    if last.status not in expect.statuses:
        return f"status {last.status}"
    if not last.closes:
        return "no `connection: close`"
    if not last.complete or b"application/problem+json" not in b"".join(last.get(b"content-type")):
        return "not a whole problem document"
    return None


def _differs_forwarded(expect: Forwarded, outcome: Outcome) -> str | None:
    seen, replies = outcome.seen, outcome.replies
    if seen.partial:
        return "a request that did not end reached the app"
    statuses = [reply.status for reply in replies]
    if any(status != 200 for status in statuses) or len(statuses) != len(expect.told) + outcome.followed:
        return f"statuses {statuses}"
    requests = list(seen.requests)
    if outcome.followed:
        if not requests or requests[-1].target != b"/follow-up" or requests[-1].body:
            return f"the request that followed is not the last one: {[r.target for r in requests]}"
        requests.pop()
    if len(requests) != len(expect.told):
        return f"{len(requests)} requests reached the app: {[r.target for r in requests]}"
    for told, request in zip(expect.told, requests, strict=True):
        wrong = _differs_told(told, request)
        if wrong is not None:
            return wrong
    return None


def _differs_told(told: Told, request: Request) -> str | None:
    if (request.method, request.target) != (told.method, told.target):
        return f"{request.method!r} {request.target!r}"
    if request.body != told.body:
        return f"body {request.body[:100]!r}"
    if told.host is not None and request.host != told.host:
        return f"host {request.host!r}"
    for name, value in told.fields:
        if request.get(name) != [value]:
            return f"{name!r}: {request.get(name)!r}"
    for name in told.absent:
        if request.get(name) or any(key.lower() == name for key, _ in request.trailers):
            return f"{name!r} was forwarded"
    if told.trailers is not None and request.trailers != told.trailers:
        return f"trailers {request.trailers!r}"
    return None


def _methods(expect: Sequence[Expect]) -> tuple[bytes, ...]:
    """The methods of the replies to wait for, under whichever outcome waits longest."""
    methods: tuple[bytes, ...] = ()
    for one in expect:
        if isinstance(one, Forwarded):
            found: tuple[bytes, ...] = tuple(told.method for told in one.told)
        elif isinstance(one, Refused):
            found = (b"GET",) * (one.after + 1)
        else:
            found = ()
        if len(found) > len(methods) or isinstance(one, Forwarded):
            methods = found
    return methods
