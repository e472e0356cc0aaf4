"""The composition root: builds everything from Settings, binds, serves, and ends in order.

Who calls it: ``control.cli``. Order of starting: the directory, the store, the authority, the operator's token; then
bind; then serve, and say so. Whatever is wrong until then is one line and exit code 2, and changes nothing that was
there. Order of ending, at SIGTERM or SIGINT: nothing new is accepted, those that wait are answered at once, what is at
work has GRACE_SECONDS. SIGHUP opens the audit log anew.

**The API has two doors** (``control.api_trust``): the plain listener on loopback, and a socket in ``--ca-dir``,
which is for this user alone, for what terminates mTLS in front of it: ``control.tls_front``, where ``--tls-listen``
asks for it. At the end the front goes first, since what is under way there is under way behind it too.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio
from starlette.routing import Route, Router

from certs import issue, keys, spiffe
from certs.errors import IdentityError
from certs.spiffe import SpiffeId
from control import certificate_authority, keyring
from control.api import Api
from control.api_trust import App as AsgiApp
from control.api_trust import PlainDoor, SocketDoor
from control.audit import AuditLog
from control.authentication import Callers
from control.backup import Backups
from control.ca_rotation import Generations
from control.certificate_authority import Authority
from control.distribution.api import DistributionApi
from control.distribution.metrics import RoundFigures, add_gauges
from control.distribution.proxies import Proxies
from control.distribution.push import SnapshotPush
from control.documents.api import DocumentCalls
from control.documents.table import Documents
from control.documents.writer import Writer
from control.https_fetch import Fetcher
from control.issued_certificates import Ledger
from control.kubernetes_tokens import Jwks, Reviewer, TokenReview
from control.metrics import Figures
from control.middleware import CallRequest, CallResponse, Guards, Handler, Middleware
from control.openapi.api import OpenApi
from control.operator_token import NAME, OperatorToken
from control.problems import Refused
from control.registry.wiring import RegistryParts
from control.routes import ANYONE, CALLS, Call
from control.secret_files import open_directory
from control.serve import Listening, Server, most_on_loopback
from control.settings import Settings
from control.store import StoreFailed
from control.store.sqlite import SqliteStore, open_store
from control.token_store import TokenStore
from control.watchable import Waiters
from sidecar.addresses import Address
from sidecar.errors import StartError
from sidecar.os_limits import descriptor_limit, keep_memory_private

if TYPE_CHECKING:
    from control.tls_front import TlsFront

NAMESPACE: Final = "sidecar-system"
ACCOUNT: Final = "sidecar-control"
GRACE_SECONDS: Final = 5.0
BACKLOG: Final = 1024
SOCKET: Final = "api.sock"
_log = logging.getLogger(__name__)


def run(settings: Settings) -> int:
    """Runs until it is told to end; returns the exit code. Raises StartError before anything was served."""
    keep_memory_private()  # the authority's key is in it
    with_lock = open_directory(settings.ca_dir)
    try:
        return trio.run(ControlPlane(settings, with_lock[0]).main)
    finally:
        os.close(with_lock[1])


class ControlPlane:
    """One process's worth of control plane. ``directory`` is ``--ca-dir``, checked."""

    def __init__(self, settings: Settings, directory: Path, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._directory = directory
        self._clock = clock
        self.control_id = spiffe.workload(settings.trust_domain, NAMESPACE, ACCOUNT)
        self.closing = trio.Event()
        self.listening: list[Address] = []
        self.tls_listening: list[Address] = []
        self._front: TlsFront | None = None
        self.figures = Figures()
        self.waiters = Waiters()
        self.audit = AuditLog(settings.audit_log, self.figures.audit_dropped.inc)

    async def main(self) -> int:
        """See :func:`run`."""
        try:
            await self.open(self._directory / SOCKET)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_signals)
                await self.serve()
                nursery.cancel_scope.cancel()
        finally:
            self.audit.close()
        return 0

    async def open(self, private: Path) -> None:
        """Builds everything, and binds the listeners of the settings and the socket ``private``, whose directory must
        be for this user alone: identities are believed there. Raises StartError, and leaves nothing open then."""
        store = self._open_store()
        try:
            bound = self._bind(await self._build(store), private)
        except StoreFailed as error:  # a disk that is full, mostly: what is published is written down first
            store.close()
            raise StartError(f"--store: {error}; make room for it, or put back a copy") from None
        except BaseException:
            store.close()
            raise
        try:
            self._front = await self._open_front(private)
        except BaseException:
            for one in bound:
                one.sock.close()
            store.close()
            raise
        self._server = Server(bound)
        self.store = store

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serves what was opened until ``closing`` is set, and closes it."""
        self.figures.gauge("sidecar_control_connections", "Open connections.", lambda: float(self._server.open))
        front_is_gone = trio.Event()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.authority.run)
                nursery.start_soon(self.documents.run)
                nursery.start_soon(self.registration.run)
                nursery.start_soon(self.rounds.run)
                nursery.start_soon(self._end_waits)
                nursery.start_soon(self._serve_front, front_is_gone)
                self._say_what_is_next()
                _log.info("ready")
                task_status.started()
                await self._server.serve(front_is_gone, GRACE_SECONDS)
                nursery.cancel_scope.cancel()
        finally:
            self.store.close()

    def _say_what_is_next(self) -> None:
        """For who starts one for the first time."""
        if self._operator.made and self.listening:
            server, path = self.listening[0], self._operator.path
            _log.info("next: sidecarctl login --server http://%s --token-file %s", server, path)

    async def _serve_front(self, gone: trio.Event) -> None:
        if self._front is None:
            await self.closing.wait()
        else:
            await self._front.serve(self.closing, GRACE_SECONDS)
        gone.set()

    async def _end_waits(self) -> None:
        await self.closing.wait()
        self.waiters.close()

    async def _watch_signals(self) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async for number in signals:
                if number == signal.SIGHUP:
                    self.audit.reopen()
                else:
                    _log.info("%s: ending", signal.Signals(number).name)
                    self.closing.set()

    # -- starting ----------------------------------------------------------------------------------------------------

    def _open_store(self) -> SqliteStore:
        where = self._settings.store
        if where == "memory":
            _log.warning("--store: in memory; revocations and tokens are gone when this process ends")
        path = str(self._directory / "store.db") if where == "dir" else where.removeprefix("memory")
        return open_store(path, self._clock())

    async def _build(self, store: SqliteStore) -> AsgiApp:
        """Everything behind the doors."""
        settings, clock = self._settings, self._clock
        ledger = Ledger(store)
        await ledger.load()
        self.authority = self._authority(store, ledger)
        await self.authority.start()
        tokens = TokenStore(store, self.control_id)
        await void_strangers(tokens, self.authority.pins(), clock())
        operator = self._operator = OperatorToken(self._directory / NAME)
        await operator.keep(tokens, self.authority.pins(), clock())
        callers = Callers(tokens, ledger, self.control_id, reviewer(settings), clock)
        guards = Guards(callers, self.audit, self.figures, clock)
        api = Api(self.authority, tokens, ledger, self.waiters, self.figures, clock, operator)
        self.documents = Documents(store, settings.trust_domain)
        await self.documents.load()
        document_calls = DocumentCalls(store, self.documents, Writer(store, self.documents, clock))
        self.registration = RegistryParts(
            store, self.documents, tokens, self.figures, settings.trust_domain, clock, blocked=ledger.blocked,
            networks=[str(network) for network in settings.workload_networks],
        )  # fmt: skip
        ledger.follow(self.registration.following.look_again)
        await self.registration.open()
        self._add_gauges(ledger)
        apis = [api, document_calls, self.registration.calls, self._distribution(store, ledger)]
        return router([*apis, Backups(store, self._directory), OpenApi()], guards)

    def _distribution(self, store: SqliteStore, ledger: Ledger) -> DistributionApi:
        """What sends snapshots: after the tables that it follows."""
        shown = RoundFigures(self.figures)
        domain, clock = self._settings.trust_domain, self._clock
        self.rounds = SnapshotPush(
            self.documents, self.registration.registry, store, domain, clock, time.monotonic, shown
        )
        self.rounds.open()
        calls = DistributionApi(self.rounds, Proxies(), ledger, self.waiters, shown, clock)
        add_gauges(self.figures, calls.by_state, lambda: float(self.rounds.audience.bytes))
        return calls

    def _authority(self, store: SqliteStore, ledger: Ledger) -> Authority:
        settings, now = self._settings, self._clock()
        ring: keyring.Keyring = keyring.MemoryKeyring()
        extra = None
        generations: Generations
        if settings.ca_cert:
            issuer, extra = keyring.brought(settings.ca_cert, settings.ca_key, settings.trust_domain, now)
            generations = (certificate_authority.generation_of(issuer, now),)
        else:
            if settings.ca == "dir":
                ring = keyring.DirectoryKeyring(self._directory, settings.trust_domain)
            generations = certificate_authority.first(ring, settings.trust_domain, now)
        made = Authority(self.control_id, store, ledger, ring, generations, settings.leaf_ttl, self._clock, extra)
        check_authority(made, self.control_id, now)
        return made

    def _bind(self, api: AsgiApp, private: Path) -> list[Listening]:
        bound: list[Listening] = []
        plain = PlainDoor(api)
        try:
            bound.append(Listening(bind_private(private), SocketDoor(api, self.control_id)))
            for address in self._settings.listen:
                bound.append(Listening(bind_plain(address), plain, most_on_loopback(descriptor_limit())))
                self.listening.append(Address(*bound[-1].sock.getsockname()[:2]))
                _log.info("listening on %s", self.listening[-1])
        except StartError:
            for one in bound:
                one.sock.close()
            raise
        return bound

    async def _open_front(self, private: Path) -> TlsFront | None:
        """What listens at ``--tls-listen``."""
        addresses = self._settings.tls_listen
        if not addresses:
            return None
        from control.tls_front import TlsFront  # and with it OpenSSL: 10 MB that nothing else here needs

        front = TlsFront(addresses, str(private), self.authority, self.figures, self._clock)
        try:
            await front.start()
        except BaseException:
            front.close()
            raise
        self.tls_listening = front.listening
        for address in self.tls_listening:
            _log.info("listening on %s, with TLS", address)
        return front

    def _add_gauges(self, ledger: Ledger) -> None:
        figures, made = self.figures, self.authority
        figures.gauge(
            "sidecar_control_authority_expiry_seconds",
            "When the authority that issues ends, in seconds since the epoch.",
            lambda: made.issuer.not_after,
        )
        figures.gauge("sidecar_control_roots", "Roots in the bundle that are ours.", lambda: len(made.generations))
        figures.gauge(
            "sidecar_control_certificates",
            "Certificates that were issued and are good.",
            lambda: float(sum(1 for _ in ledger.live(self._clock()))),
        )
        figures.gauge("sidecar_control_revocations", "Revocations that hold.", lambda: float(len(ledger.revocations())))
        figures.gauge(
            "sidecar_control_documents", "Documents that count.", lambda: float(len(self.documents.state.effective))
        )
        figures.gauge(
            "sidecar_control_documents_unreadable",
            "Documents in the store that this version can't read.",
            lambda: float(self.documents.unreadable),
        )
        figures.gauge("sidecar_control_waiters", "Calls that wait.", lambda: float(self.waiters.waiting))


def router(apis: Sequence[object], guards: Guards) -> AsgiApp:
    """The table of calls, each with its gate, before the one of ``apis`` that has a method of its name; whatever is in
    no row is 404 or 405 for whoever is known, else 401."""
    routes = [Route(call.path, Middleware(call, _handler(call, apis), guards), methods=[call.method]) for call in CALLS]
    for path in dict.fromkeys(call.path for call in CALLS):
        refuse = _refusing(405, ", ".join(call.method for call in CALLS if call.path == path))
        routes.append(Route(path, Middleware(Call("unknown", "", "", ANYONE, "another method"), refuse, guards)))
    unknown = Middleware(Call("unknown", "", "", ANYONE, "no call"), _refusing(404), guards)
    return Router(routes, redirect_slashes=False, default=unknown)


def _handler(call: Call, apis: Sequence[object]) -> Handler:
    name = call.name.replace(".", "_")
    (found,) = (getattr(api, name) for api in apis if hasattr(api, name))
    handler: Handler = found
    return handler


def _refusing(status: int, allow: str = "") -> Handler:
    async def refuse(asked: CallRequest) -> CallResponse:
        raise Refused(status, "no such call", allow=allow)

    return refuse


def reviewer(settings: Settings) -> Reviewer | None:
    """Who judges Kubernetes' tokens."""
    fetcher = Fetcher(settings.kube_api_ca, settings.kube_api_token_file)
    if settings.kube_jwks:
        return Jwks(settings.kube_jwks, settings.kube_audience, fetcher)
    return TokenReview(settings.kube_api, settings.kube_audience, fetcher) if settings.kube_api else None


async def void_strangers(tokens: TokenStore, pins: tuple[bytes, ...], now: float) -> None:
    """Tokens that name none of these roots are void: their holders could not find us (a CA that was in memory)."""
    await tokens.purge(now)
    known = {pin.hex() for pin in pins}
    gone = [token for token in await tokens.live(now) if not known & set(token.pins)]
    for token in gone:
        await tokens.void(token.id)
    if gone:
        _log.warning("%d tokens name a root that is gone, and are void now", len(gone))


def check_authority(made: Authority, control_id: SpiffeId, now: float) -> None:
    """Whether it can issue at all, tried; StartError where not."""
    try:
        issue.leaf(made.issuer, keys.new_key().public_key(), control_id, keys.new_serial(), now, made.leaf_ttl)
    except IdentityError as error:
        raise StartError(f"--ca-cert: it can't issue for {control_id.trust_domain}: {error.detail}") from None


def bind_plain(address: Address) -> socket.socket:
    """A listener on loopback; StartError where it can't be had."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((address.host, address.port))
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise StartError(f"--listen: {address} can't be had ({error.strerror}); choose another port") from None
    sock.setblocking(False)
    return sock


def bind_private(path: Path) -> socket.socket:
    """A listener at ``path``, whose directory must be for this user alone; StartError where it is not.

    What a process that was killed has left there is taken away: whoever may write there is us, and one at a time.
    """
    found = path.parent.stat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise StartError(f"{path.parent} is not for this user alone, and identities are believed in it; chmod 700 it")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket():
            path.unlink()
        sock.bind(str(path))
        path.chmod(0o600)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise StartError(
            f"--ca-dir: {path} can't be made ({error.strerror or error}); name a directory with a shorter path"
        ) from None
    sock.setblocking(False)
    return sock
