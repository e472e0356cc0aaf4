"""The calls of distribution: a snapshot for whoever asks, what it says of it, and how all proxies are.

Who calls it: ``control.middleware``. What a proxy gets is decided by who it is; ``instance`` only tells replicas apart
for people. The rules of polls: the version that a proxy names, as ``version`` or in ``If-None-Match``, is the newest
that it has judged, and is not sent again, nor is what ``proxies`` withholds; everything else is answered at once.
"""

from __future__ import annotations

import logging
import re
from collections.abc import AsyncIterator, Callable
from typing import Final

from starlette.requests import Request

from control import long_poll, pagination
from control.api_trust import PEER, Peer
from control.distribution.content import Snapshot, schema_for
from control.distribution.metrics import RoundFigures
from control.distribution.proxies import STATES, Proxies, Proxy, Refusal, Seen
from control.distribution.push import SnapshotPush
from control.distribution.schemas import ProxiesShown, ProxyShown, RefusedShown, Status
from control.distribution.subscriptions import Member
from control.issued_certificates import Ledger
from control.middleware import CallRequest, CallResponse
from control.problems import Invalid
from control.schemas import moment, read
from control.version import Version
from control.watchable import Waiters

WHOLE_BYTES: Final = 256 * 1024  # what is longer goes out part by part
MOST_BYTES: Final = 16 << 20  # of a snapshot; a proxy takes no more (``sidecar.feed.state_dir``)
_INSTANCE: Final = re.compile(r"[a-z0-9.-]{1,63}", re.ASCII)
_ETAG: Final = re.compile(r'\s*(?:W/)?"([^"]*)"\s*', re.ASCII)
_log = logging.getLogger(__name__)


class DistributionApi:
    """See the module. Each method takes what was asked and returns the answer, or raises Refused or Invalid."""

    def __init__(
        self,
        rounds: SnapshotPush,
        proxies: Proxies,
        ledger: Ledger,
        waiters: Waiters,
        figures: RoundFigures,
        clock: Callable[[], float],
    ) -> None:
        self._rounds = rounds
        self._proxies = proxies
        self._ledger = ledger
        self._waiters = waiters
        self._figures = figures
        self._clock = clock
        self._too_long: dict[str, Version] = {}  # by identity: what was told of in the log

    async def snapshot_get(self, asked: CallRequest) -> CallResponse:
        """What the caller is to obey, once it is another version than the one it names."""
        request = asked.request
        schema = _schema(request)
        judged = long_poll.version_of(request)
        proxy = self._proxies.polled(self._heard(asked), judged)
        identity = asked.who.identity
        assert identity is not None  # the table lets only workloads in, and they have one
        member = await self._rounds.member(identity)
        published = member.published
        ahead = judged is not None and judged.epoch == published.version.epoch and judged.n > published.version.n
        if ahead and not proxy.ahead:
            self._tell_ahead(proxy, judged, published.version)
        unwanted = {*_etags(request), *({judged} if judged else ()), *({proxy.withheld} if proxy.withheld else ())}
        with self._rounds.waiting(member):
            if not await long_poll.wait_other_than(unwanted, published, self._waiters, request, asked.who.name):
                return CallResponse(304, etag=str(judged) if judged else "")
        version, snapshot = published.version, published.value
        self._check_length(str(identity), version, snapshot.length(str(version), schema))
        self._proxies.sent(self._proxies.current(proxy), version, ahead)
        return self._answer(snapshot, str(version), schema)

    async def snapshot_status(self, asked: CallRequest) -> CallResponse:
        """The caller took a version, or refused it."""
        status = read(asked.body, Status)
        version, held = _version(status.version, "version"), _version(status.held, "held")
        if version is None:
            raise Invalid("version: which one is it about?")
        proxy = self._proxies.said(self._heard(asked), version, held, status, self._clock())
        if not status.accepted:
            told = "; ".join(proxy.refusal.problems[:3]) if proxy.refusal else ""
            _log.warning("%s refused version %s: %s", proxy.name, version, told or "it does not say why")
        return CallResponse(204)

    async def proxies_list(self, asked: CallRequest) -> CallResponse:
        """All that were heard within the last hour."""
        query = asked.request.query_params
        self._proxies.forget_gone(self._clock())
        namespace = query.get("namespace")
        found = (each for each in self._proxies if namespace is None or each.namespace == namespace)
        shown, last = pagination.page(found, lambda each: each.name, pagination.Wanted.read(query))
        return CallResponse(
            body=ProxiesShown([self._shown(each) for each in shown], str(pagination.Mark(last)) if last else "")
        )

    def by_state(self) -> dict[str, float]:
        """How many proxies are in which state."""
        found = dict.fromkeys(STATES, 0.0)
        for proxy in self._proxies:
            found[proxy.state(self._newest(proxy))] += 1
        return found

    # -- one call ----------------------------------------------------------------------------------------------------

    def _heard(self, asked: CallRequest) -> Proxy:
        instance = asked.request.query_params.get("instance", "")
        if instance and not _INSTANCE.fullmatch(instance):
            raise Invalid("instance: a-z, 0-9, dots and hyphens, at most 63")
        identity = asked.who.identity
        assert identity is not None
        namespace, _ = identity.workload() or ("", "")
        peer: Peer = asked.request.scope[PEER]
        issued = self._ledger.by_fingerprint(peer.fingerprint) if peer.fingerprint else None
        seen = Seen(peer.address, issued.expires if issued else 0.0)
        return self._proxies.heard(str(identity), namespace, instance, seen, self._clock())

    def _tell_ahead(self, proxy: Proxy, judged: Version | None, ours: Version) -> None:
        self._figures.ahead.inc()
        _log.error(
            "%s holds version %s, and the newest is %s: the store was put back without a new epoch (see "
            "sidecar-control new-epoch), or the proxy does not say the truth; it takes nothing older",
            proxy.name,
            judged,
            ours,
        )

    def _check_length(self, identity: str, version: Version, length: int) -> None:
        """What no proxy would take is not sent to all of them again and again."""
        if length <= MOST_BYTES:
            self._too_long.pop(identity, None)
            return
        what = f"is {length / (1 << 20):.0f} MiB long, and proxies take {MOST_BYTES >> 20}"
        cure = "narrow what it sees, by egress.hosts of a Sidecar document or by exportTo"
        if self._too_long.get(identity) != version:
            self._too_long[identity] = version
            _log.error("the snapshot of %s %s: nothing new reaches it; %s", identity, what, cure)
        raise Invalid(f"the snapshot {what}; {cure}", 413, kind="too-long")

    def _answer(self, snapshot: Snapshot, version: str, schema: tuple[int, int]) -> CallResponse:
        length = snapshot.length(version, schema)
        self._figures.sent(length)
        if length <= WHOLE_BYTES:
            return CallResponse(body=b"".join(snapshot.parts(version, schema)), etag=version)
        stream = _streamed(snapshot, version, schema)
        return CallResponse(stream=stream, etag=version, headers={"content-length": str(length)})

    # -- how proxies are ---------------------------------------------------------------------------------------------

    def _newest(self, proxy: Proxy) -> Version | None:
        member: Member | None = self._rounds.audience.members.get(proxy.identity)
        return member.published.version if member else None

    def _shown(self, proxy: Proxy) -> ProxyShown:
        newest, refusal = self._newest(proxy), proxy.refusal
        return ProxyShown(
            proxy=proxy.identity,
            instance=proxy.instance,
            state=proxy.state(newest),
            held=str(proxy.held or ""),
            offered=str(newest or proxy.offered or ""),
            accepted=proxy.accepted,
            refused=_refused(refusal) if refusal else None,
            certificate_expires=moment(proxy.seen.certificate_ends) if proxy.seen.certificate_ends else "",
            software=proxy.software,
            address=proxy.seen.address,
            first_seen=moment(proxy.first_seen),
            last_seen=moment(proxy.last_seen),
        )


def _refused(refusal: Refusal) -> RefusedShown:
    return RefusedShown(str(refusal.version), moment(refusal.at), refusal.problems)


async def _streamed(snapshot: Snapshot, version: str, schema: tuple[int, int]) -> AsyncIterator[bytes]:
    for part in snapshot.parts(version, schema):
        yield part


def _schema(request: Request) -> tuple[int, int]:
    try:
        return schema_for(request.query_params.get("schema", "1.0"))
    except ValueError as error:
        raise Invalid(f"schema: {error}") from None


def _version(text: str, member: str) -> Version | None:
    try:
        return Version.parse(text) if text else None
    except ValueError as error:
        raise Invalid(f"{member}: {error}") from None


def _etags(request: Request) -> set[Version]:
    """The versions in If-None-Match; what is none of ours is never current."""
    found = set()
    for field in request.headers.getlist("if-none-match"):
        for text in field.split(","):
            tag = _ETAG.fullmatch(text)
            try:
                found |= {Version.parse(tag[1])} if tag else set()
            except ValueError:
                continue
    return found
