"""``--dns`` as a user runs it: flags, ports, figures, the end."""

from __future__ import annotations

import json
import socket
import urllib.request

import dns.message
import dns.query
import dns.rcode
import pytest

from tests.support.modules import among, loaded_by
from tests.support.process import SidecarProcess
from tests.support.upstream import wait_until

HOSTS = ("--dns-host", "web.internal=10.0.0.7", "--dns-host", "WEB.internal.=fd00::7")


def ask(port: int, name: str, kind: str, *, tcp: bool = False) -> list[str]:
    query = dns.message.make_query(name, kind)
    answer = (dns.query.tcp if tcp else dns.query.udp)(query, "127.0.0.1", 5, port)
    assert answer.rcode() == dns.rcode.NOERROR
    return [record.to_text() for rrset in answer.answer for record in rrset]


def shown(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as reply:
        return str(reply.read().decode())


def test_names_of_the_command_line_by_udp_and_tcp_and_what_is_shown_of_them() -> None:
    with SidecarProcess(1, "--dns", "127.0.0.1:0", *HOSTS, "--log-level", "debug") as sidecar:
        port = sidecar.ports["dns"]
        for tcp in (False, True):
            assert ask(port, "web.internal", "A", tcp=tcp) == ["10.0.0.7"]
            assert ask(port, "Web.Internal", "AAAA", tcp=tcp) == ["fd00::7"]
        assert f"dns::127.0.0.1:{port}\n" in shown(sidecar.admin, "/listeners")
        stats = shown(sidecar.admin, "/stats?filter=^sidecar_dns")
        assert 'sidecar_dns_queries_total{outcome="known"}: 4\n' in stats
        assert "sidecar_dns_queries_active: 0\n" in stats
        configured = json.loads(shown(sidecar.admin, "/config_dump"))["listeners"]["configured"]
        assert configured["--dns-host"] == "web.internal=10.0.0.7,WEB.internal.=fd00::7"
        sidecar.stop()
        assert any("dns: A web.internal. from" in line for line in sidecar.errors)


def test_it_answers_while_the_process_drains() -> None:
    """What is still under way may need a name."""
    flags = ("--dns", "127.0.0.1:0", *HOSTS, "--drain-delay", "20s", "--drain-seconds", "20s")
    with SidecarProcess(1, *flags) as sidecar:
        sidecar.terminate()
        wait_until(lambda: "sidecar: SIGTERM: draining" in sidecar.errors, "the drain")
        assert ask(sidecar.ports["dns"], "web.internal", "A") == ["10.0.0.7"]
        sidecar.terminate()
        sidecar.wait_clean_exit()


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
def test_a_port_that_is_taken_is_told_by_its_flag(kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET, kind) as holder:
        holder.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            holder.listen()
        taken = f"127.0.0.1:{holder.getsockname()[1]}"
        with SidecarProcess(1, "--dns", taken, wait_ready=False) as sidecar:
            assert sidecar.wait_exit() == 2
            (line,) = [line for line in sidecar.errors if "listening on" not in line]
            assert line.startswith(f"sidecar: error: --dns: cannot listen on {taken}")
            assert "the port is taken" in line


def test_names_that_nobody_can_look_up_are_warned_of() -> None:
    with SidecarProcess(1, *HOSTS) as sidecar:
        assert shown(sidecar.admin, "/ready") == "LIVE\n"
        assert any("--dns-host" in line and "add --dns" in line for line in sidecar.errors)


def test_nothing_of_dns_is_imported_where_it_is_off() -> None:
    """dnspython alone is some megabytes."""
    loaded = loaded_by(
        "import sidecar.cli, sidecar.app; from sidecar import settings; "
        "told = settings.load({'upstream': '127.0.0.1:8080', 'dns_host': 'web=::1'}, {}); sidecar.app.App(told)"
    )
    assert [name for name in among(loaded, "dns", "sidecar.dns") if name != "sidecar.dns"] == []
