"""Names that an app looks up are answered by its sidecar, whichever resolver, family and transport the app means."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import dns.flags
import dns.message
import dns.query
import dns.rcode
import pytest

from tests.netns.apps import serving
from tests.netns.conftest import MakePod
from tests.netns.environment import APP_ID
from tests.netns.pod import Pod
from tests.support.nameserver import NameServer, Table

TABLE: Table = {
    ("shop.test.", "A"): ["192.0.2.1", "192.0.2.2"],
    ("shop.test.", "AAAA"): ["2001:db8::1"],
    ("long.test.", "TXT"): [f'"{number:04} {"x" * 195}"' for number in range(20)],
}
KNOWN = ("--dns-host", "web.internal=10.77.9.9", "--dns-host", "web.internal=fd77::99")
FAMILIES = pytest.mark.parametrize("family", ["v4", "v6"])
OVER = pytest.mark.parametrize("over", ["udp", "tcp"])


@dataclass(frozen=True, slots=True)
class Place:
    """An app's pod, the pod of a resolver that answers, and the resolver."""

    app: Pod
    resolver: Pod
    server: NameServer


@contextlib.contextmanager
def _resolving(pod: Pod, server: NameServer) -> Iterator[None]:
    """The server on port 53 of both addresses of the pod, in threads."""

    def answer_udp(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the end of the block
            while True:
                wire, client = sock.recvfrom(65535)
                if not wire:
                    return
                sock.sendto(server.answer(wire, client[:2], tcp=False), client)

    def answer_tcp(sock: socket.socket) -> None:
        with sock.makefile("rb") as stream:
            while length := stream.read(2):
                reply = server.answer(stream.read(int.from_bytes(length, "big")), sock.getpeername()[:2], tcp=True)
                sock.sendall(len(reply).to_bytes(2, "big") + reply)

    with contextlib.ExitStack() as stack:
        for family, address in ((socket.AF_INET, pod.v4), (socket.AF_INET6, pod.v6)):
            datagrams = stack.enter_context(pod.make_socket(family, kind=socket.SOCK_DGRAM))
            datagrams.bind((address, 53))
            thread = threading.Thread(target=answer_udp, args=(datagrams,), daemon=True)
            thread.start()
            stack.callback(thread.join, 10)
            stack.callback(_wake, pod, family, address)
            stack.enter_context(serving(pod.listen(53, host=address), answer_tcp))
        yield


def _wake(pod: Pod, family: int, address: str) -> None:
    """An empty datagram tells the thread to end."""
    with pod.make_socket(family, kind=socket.SOCK_DGRAM) as sock:
        sock.sendto(b"", (address, 53))


@pytest.fixture(scope="module")
def place(keep_pod: MakePod) -> Iterator[Place]:
    made = Place(keep_pod("app"), keep_pod("resolver"), NameServer(TABLE))
    made.app.resolvers(made.resolver.v4, made.resolver.v6, search="internal")
    made.app.init("--redirect-dns")
    made.app.sidecar("--dns", "15053", *KNOWN)
    with _resolving(made.resolver, made.server):
        yield made
    made.app.proxy.stop()


def _ask(
    pod: Pod, where: str, name: str, kind: str = "A", *, over: str = "udp", payload: int = 0
) -> dns.message.Message:
    """One query of the app to a resolver, as a stub resolver sends it."""
    query = dns.message.make_query(name, kind, use_edns=0 if payload else False, payload=payload or 1232)
    family = socket.AF_INET6 if ":" in where else socket.AF_INET
    if over == "udp":
        with pod.make_socket(family, kind=socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            return dns.query.udp(query, where, 8, sock=sock)
    with pod.connect(where, 53) as sock:
        sock.setblocking(False)
        return dns.query.tcp(query, where, 8, sock=sock)


def _texts(answer: dns.message.Message) -> list[str]:
    return sorted(record.to_text() for rrset in answer.answer for record in rrset)


@FAMILIES
@OVER
def test_a_known_name_needs_no_resolver(place: Place, family: str, over: str) -> None:
    where = getattr(place.resolver, family)
    assert _texts(_ask(place.app, where, "web.internal", over=over)) == ["10.77.9.9"]
    assert _texts(_ask(place.app, where, "web.internal", "AAAA", over=over)) == ["fd77::99"]
    assert place.server.times("web.internal.") == 0


@FAMILIES
@OVER
def test_other_names_come_from_the_resolver(place: Place, family: str, over: str) -> None:
    where = getattr(place.resolver, family)
    assert _texts(_ask(place.app, where, "shop.test", over=over)) == ["192.0.2.1", "192.0.2.2"]
    assert _texts(_ask(place.app, where, "shop.test", "AAAA", over=over)) == ["2001:db8::1"]
    missing = _ask(place.app, where, "nobody.test", over=over)
    assert (missing.rcode(), missing.answer) == (dns.rcode.NXDOMAIN, [])


@FAMILIES
def test_an_answer_of_four_kilobytes(place: Place, family: str) -> None:
    """Truncated in a small datagram, whole in a large one and over TCP."""
    where = getattr(place.resolver, family)
    whole = sorted(TABLE["long.test.", "TXT"])
    small = _ask(place.app, where, "long.test", "TXT")
    assert small.flags & dns.flags.TC
    assert len(small.to_wire()) <= 512
    over_tcp = _ask(place.app, where, "long.test", "TXT", over="tcp")
    assert _texts(over_tcp) == whole
    assert len(over_tcp.to_wire()) > 4000


def test_it_was_the_sidecar_that_answered(place: Place) -> None:
    def counted(outcome: str) -> float:
        return place.app.metrics()[f'sidecar_dns_queries_total{{outcome="{outcome}"}}']

    before = counted("known"), counted("forwarded"), counted("nxdomain")
    for name in ("web.internal", "shop.test", "nobody.test"):
        _ask(place.app, place.resolver.v4, name)
    assert (counted("known"), counted("nxdomain")) == (before[0] + 1, before[2] + 1)
    assert counted("forwarded") == before[1] + 1


def test_an_ordinary_program_finds_both_addresses(place: Place) -> None:
    """By the C library, which asks for A and AAAA at once from one socket, and knows the search domains."""
    for name in ("web.internal", "web"):
        found = place.app.run("getent", "ahosts", name, uid=APP_ID)
        assert {line.split()[0] for line in found.splitlines()} == {"10.77.9.9", "fd77::99"}
    place.app.run("getent", "ahosts", "nobody.test", uid=APP_ID, code=2)


def test_a_thousand_look_ups_keep_their_answers(place: Place) -> None:
    """App and sidecar ask the same resolver, from ports of the same range: no answer goes to the wrong one."""
    names = [("web.internal", ["10.77.9.9"]), ("shop.test", ["192.0.2.1", "192.0.2.2"])]
    for number in range(500):
        for name, addresses in names:
            assert _texts(_ask(place.app, place.resolver.v4, name)) == addresses, number


def test_a_resolver_that_is_down_is_passed_over(make_pod: MakePod, place: Place) -> None:
    """The app asks the one that is down, as resolv.conf tells it; its sidecar asks the next."""
    app, down = make_pod("app"), make_pod("down")
    app.resolvers(down.v4, place.resolver.v4)
    app.init("--redirect-dns")
    proxy = app.sidecar("--dns", "15053", *KNOWN)
    for over in ("udp", "tcp"):
        assert _texts(_ask(app, down.v4, "shop.test", over=over)) == ["192.0.2.1", "192.0.2.2"]
    proxy.stop()


def test_without_any_resolver_failure_is_said_and_known_names_go_on(make_pod: MakePod) -> None:
    app, down = make_pod("app"), make_pod("down")
    app.resolvers(down.v4)
    app.init("--redirect-dns")
    proxy = app.sidecar("--dns", "15053", *KNOWN)
    for over in ("udp", "tcp"):
        began = time.monotonic()
        assert _ask(app, down.v4, "shop.test", over=over).rcode() == dns.rcode.SERVFAIL
        assert time.monotonic() - began < 8
        assert _texts(_ask(app, down.v4, "web.internal", over=over)) == ["10.77.9.9"]
    proxy.stop()


def test_without_the_sidecar_look_ups_fail_closed(make_pod: MakePod, place: Place) -> None:
    app = make_pod("app")
    app.resolvers(place.resolver.v4)
    app.init("--redirect-dns")
    asked = len(place.server.asked)
    app.run("getent", "ahosts", "shop.test", uid=APP_ID, code=2, deadline=30)
    assert len(place.server.asked) == asked
