"""The identity that an app is told can't be forged: every attempt in ``forging``, at a sidecar that is called directly,
in front of four kinds of HTTP servers. Where connections are captured: ``tests/netns/test_forged_identity.py``.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.hostile import forging, tellers
from tests.hostile.coverage import covers
from tests.hostile.forging import FORGED, path_of
from tests.support.member import Member
from tests.support.papers import Authority
from tests.support.ports import held_port
from tests.support.upstream import wait_until

CALLER = "URI=spiffe://cluster.local/ns/shop/sa/caller"
# Each sidecar's service, by its ports' protocols: where two ports lead to one app, the stricter protocol counts.
SERVICES = {
    "http": ("http",),
    "auto": ("auto",),
    "tcp": ("tcp",),
    "http+tcp": ("http", "tcp"),
    "auto+tcp": ("auto", "tcp"),
}
BELIEVED = [name for name in SERVICES if name != "tcp"]


@dataclass(frozen=True, slots=True)
class Stand:
    """An app of one kind, a sidecar in front of it for each of SERVICES, and the papers of a caller."""

    printed: Path
    ports: dict[str, int]
    papers: forging.Papers
    mode: str

    def seen(self) -> dict[str, str]:
        return {each["path"]: each["said"] for each in tellers.requests_seen(self.printed.read_text())}


@pytest.fixture(scope="module", params=[(kind, mode) for kind in tellers.KINDS for mode in ("strict", "permissive")],
                ids="-".join)  # fmt: skip
def stand(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    kind, mode = request.param
    directory = tmp_path_factory.mktemp(f"{kind}-{mode}")
    authority = Authority(directory)
    web, caller = authority.issue("web"), authority.issue("caller")
    printed = directory / "printed"
    with contextlib.ExitStack() as stack:
        app_port = stack.enter_context(held_port())
        argv = tellers.command(kind, directory, [f"127.0.0.1:{app_port}"])
        with printed.open("ab") as out:
            app = stack.enter_context(subprocess.Popen(argv, stdout=out, stderr=subprocess.DEVNULL))
        stack.callback(app.kill)
        wait_until(lambda: _answers(app_port), f"{kind} listens")
        ports = {}
        for name, protocols in SERVICES.items():
            inbound = ports[name] = stack.enter_context(held_port())
            mesh = directory / f"{name}.yaml"
            mesh.write_text(_mesh(protocols, inbound))
            stack.enter_context(
                Member(
                    app_port, web, "--mtls", mode, "--mesh", str(mesh), "--namespace", "shop", "--service", "web",
                    "--service-account", "web", "--inbound", f"127.0.0.1:{inbound}",
                )
            )  # fmt: skip
        made = Stand(printed, ports, forging.Papers(caller.key, caller.chain, caller.roots), mode)
        sni = dict.fromkeys(SERVICES, "outbound_.80_._.web.shop.svc.cluster.local")
        forging.attempt_all(ports, lambda port: socket.create_connection(("127.0.0.1", port), 10), made.papers, sni)
        yield made


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _mesh(protocols: tuple[str, ...], inbound: int) -> str:
    names = {"http": "http-web", "auto": "web", "tcp": "tcp-web"}
    ports = "".join(f"  - {{port: {80 + number}, name: {names[each]}}}\n" for number, each in enumerate(protocols))
    return (
        "services:\n- name: web\n  namespace: shop\n  serviceAccounts: [web]\n  ports:\n"
        f"{ports}  endpoints:\n  - {{address: 127.0.0.1, port: {inbound}, mode: direct}}\n"
    )


@covers("HDR-1")
def test_no_app_sees_a_forged_caller(stand: Stand) -> None:
    seen = stand.seen()
    assert seen, "no attempt reached the app, so nothing was tried"
    forged = {path: said for path, said in seen.items() if FORGED in said and path.split("/")[1] != "tcp"}
    assert forged == {}


def test_a_good_request_reaches_the_app_with_its_real_caller(stand: Stand) -> None:
    seen = stand.seen()
    for name in BELIEVED:
        for way in forging.WAYS:
            path = path_of(name, way, "http")
            if way == "plaintext":
                assert seen.get(path) == ("" if stand.mode == "permissive" else None)
            elif way == "sidecar-tcp":
                # Where a port of the service is tcp, its callers announce opaque bytes, and are served as HTTP.
                assert seen.get(path, "").endswith(CALLER) if "tcp" in name else path not in seen
            elif way in ("no ALPN", "http/1.1") and stand.mode == "permissive":
                assert path not in seen  # TLS that is not the mesh's: relayed, and this app speaks none
            else:
                assert seen[path].endswith(CALLER), path


def test_on_a_tcp_port_the_field_means_nothing(stand: Stand) -> None:
    """The attempts would work, were they made where bytes are relayed: this holds the test above to its purpose."""
    seen = stand.seen()
    assert FORGED in seen[path_of("tcp", "sidecar-tcp", "http")]
    assert FORGED in seen[path_of("tcp", "istio", "http")]
