"""``--config``: two sidecars that know their mesh from documents alone, and follow each change of them."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.member import Member
from tests.support.papers import Authority
from tests.support.process import SidecarProcess
from tests.support.raw import Client, Reply, ask
from tests.support.upstream import RecordingUpstream, wait_until

WEB = """\
apiVersion: sidecar/v1
kind: Service
metadata: {{name: web, namespace: shop, labels: {{app: web}}}}
spec:
  serviceAccounts: [web]
  ports: [{{port: 80, name: http}}]
  endpoints: [{{address: 127.0.0.1, port: {port}, mode: direct}}]
"""
PERMISSIVE = """\
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  mtls: {mode: PERMISSIVE}
"""
CLOSED = """\
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: shop}
spec: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}}
"""
ENTRY = """\
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {{name: app, namespace: shop}}
spec:
  hosts: [app.example]
  resolution: STATIC
  ports: [{{number: 80, name: http, protocol: HTTP}}]
  endpoints: [{{address: 127.0.0.1, ports: {{http: {port}}}}}]
"""


class Written:
    """Two members that watch one directory of documents, and the app behind ``web``."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="documents-")))
        authority = Authority(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="papers-"))))
        self.app = stack.enter_context(RecordingUpstream(mesh=True))
        self.write("web.yaml", WEB.format(port=1))
        self.members: dict[str, Member] = {}
        for name in ("web", "caller"):
            flags = ("--config", str(self.directory), "--namespace", "shop", "--service-account", name)
            self.members[name] = stack.enter_context(Member(self.app.port, authority.issue(name), *flags))
        self.write("web.yaml", WEB.format(port=self.web.inbound))
        wait_until(lambda: self.call().status == 200, "the caller knows where web is")

    @property
    def web(self) -> Member:
        return self.members["web"]

    @property
    def caller(self) -> Member:
        return self.members["caller"]

    def write(self, name: str, text: str) -> None:
        """By rename, as careful writers do."""
        self.directory.joinpath(".new").write_text(text)
        self.directory.joinpath(".new").rename(self.directory / name)

    @contextlib.contextmanager
    def written(self, name: str, text: str) -> Iterator[None]:
        """As long as the block runs."""
        self.write(name, text)
        try:
            yield
        finally:
            (self.directory / name).unlink()

    def call(self, host: str = "web.shop") -> Reply:
        """What the caller's app gets."""
        data = f"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
        (reply,) = ask(self.caller.outbound, data)
        return reply

    def plainly(self) -> bytes:
        """What somebody without a certificate gets of web; nothing where they are refused."""
        with Client(self.web.inbound) as client:
            client.send(b"GET /plain HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")
            client.read_to_end()
            return bytes(client.heard.raw)


@pytest.fixture(scope="module")
def mesh() -> Iterator[Written]:
    with contextlib.ExitStack() as stack:
        yield Written(stack)


def eventually(condition: Callable[[], bool], what: str) -> None:
    """A change is taken within two looks of a second each, on a machine that has the time."""
    wait_until(condition, what, 60)


def test_two_members_speak_mutual_tls(mesh: Written) -> None:
    assert mesh.call().status == 200
    caller = "spiffe://cluster.local/ns/shop/sa/caller"
    wait_until(lambda: any(each["downstream_peer_uri_san"] == caller for each in mesh.web.log_records()), "a record")
    assert mesh.plainly() == b"", "STRICT, where nobody says otherwise"


def test_a_document_opens_a_port_and_its_end_closes_it(mesh: Written) -> None:
    with mesh.written("peer.yaml", PERMISSIVE):
        eventually(lambda: mesh.plainly().startswith(b"HTTP/1.1 200 "), "web takes plaintext")
        assert mesh.call().status == 200
    eventually(lambda: mesh.plainly() == b"", "web takes plaintext no more")


def test_a_document_closes_the_way_out(mesh: Written) -> None:
    app = f"127.0.0.1:{mesh.app.port}"
    assert mesh.call(app).status == 200
    with mesh.written("out.yaml", CLOSED):
        eventually(lambda: mesh.call(app).status == 502, "nobody but the mesh is called")
        assert b'"flag":"NR"' in mesh.call(app).body.replace(b" ", b"")
        assert mesh.call().status == 200
        with mesh.written("entry.yaml", ENTRY.format(port=mesh.app.port)):
            eventually(lambda: mesh.call("app.example").status == 200, "a host that was described is called")
        eventually(lambda: mesh.call("app.example").status == 502, "and no more")
    eventually(lambda: mesh.call(app).status == 200, "anybody is called")


def refusal(member: Member) -> object:
    """What ``/config_dump`` says of what was not taken."""
    found = json.loads(member.admin_get("/config_dump")[1])
    return found["mesh"]["last_refusal"]


def test_a_bad_file_is_refused_with_its_line_and_the_others_stay(mesh: Written) -> None:
    bad = CLOSED + "---\n" + PERMISSIVE.replace("mode:", "mod:")
    why = "spec.mtls.mod: is not a field here; there are mode"
    line = f"sidecar: error: --config: {mesh.directory / 'bad.yaml'}:11: {why}"
    with mesh.written("bad.yaml", bad):
        eventually(lambda: all(line in member.errors for member in mesh.members.values()), "it is refused")
        assert mesh.call(f"127.0.0.1:{mesh.app.port}").status == 200, "nothing of it is taken"
        assert mesh.call().status == 200
        assert refusal(mesh.web) is not None
    eventually(lambda: refusal(mesh.web) is None, "all is well again")


def test_a_bad_file_keeps_it_from_starting(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(WEB.format(port=1) + "---\n" + CLOSED.replace("Sidecar", "EnvoyFilter"))
    (tmp_path / "token").write_text("x")
    flags = ("--control", "http://127.0.0.1:9", "--token-file", str(tmp_path / "token"), "--config", str(tmp_path))
    with SidecarProcess(9, *flags, wait_ready=False) as process:
        assert process.wait_exit() == 2
        where = tmp_path / "a.yaml"
        assert process.errors == [f"sidecar: error: --config: {where}:10: kind: EnvoyFilter is not supported yet"]
