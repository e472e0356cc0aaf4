"""Records after the handshake, with those who speak TLS otherwise: openssl, curl, GnuTLS and HAProxy, in all suites.

Everything is large enough to take many records, and goes through a sidecar's process, inbound and outbound.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.peer.programs import program, run
from tests.peer.talking import Talking
from tests.support.member import WEB, Shop
from tests.support.papers import Papers
from tests.support.ports import held_port
from tests.support.raw import Client, Reply
from tests.support.sealing import SUITES
from tests.support.upstream import RecordingUpstream, ok, send, wait_until

BIG = b"".join(b"line %d of a longer answer\n" % number for number in range(12_000))
UPLOAD = b"".join(b"line %d of a longer question\n" % number for number in range(10_000))
GNUTLS = {
    "TLS_AES_128_GCM_SHA256": "AES-128-GCM",
    "TLS_AES_256_GCM_SHA384": "AES-256-GCM",
    "TLS_CHACHA20_POLY1305_SHA256": "CHACHA20-POLY1305",
}
SCRIPTS = {"big": (send(ok(BIG)),)}


@pytest.fixture(scope="module")
def shop() -> Iterator[Shop]:
    with Shop(scripts=SCRIPTS) as running:
        yield running


@pytest.fixture(scope="module")
def papers(shop: Shop) -> Papers:
    return shop.authority.issue("peer")


def _request(path: str, body: bytes = b"", *, close: bool = True) -> bytes:
    method, length = ("POST", f"Content-Length: {len(body)}\r\n") if body else ("GET", "")
    end = "Connection: close\r\n" if close else ""
    return f"{method} {path} HTTP/1.1\r\nHost: web\r\n{length}{end}\r\n".encode() + body


def _own(papers: Papers, *, serves: bool = False) -> tuple[str, ...]:
    """How openssl is told who it is."""
    trusts = ("-Verify", "3", "-verify_return_error") if serves else ()
    files = ("-cert", str(papers.chain), "-key", str(papers.key), "-cert_chain", str(papers.chain))
    return (*files, "-CAfile", str(papers.roots), *trusts)


def _s_client(shop: Shop, papers: Papers, *arguments: str) -> Talking:
    place = ("-connect", f"127.0.0.1:{shop.web.inbound}", "-noservername")
    return Talking("openssl", "s_client", *place, *_own(papers), *arguments)


# -- inbound -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", SUITES)
def test_much_both_ways_with_s_client(shop: Shop, papers: Papers, suite: str) -> None:
    path = f"/s_client/{suite}"
    with _s_client(shop, papers, "-ign_eof", "-ciphersuites", suite) as peer:
        peer.say(_request(path, UPLOAD, close=False))
        assert suite.encode() in peer.wait(b"POST %b %d" % (path.encode(), len(UPLOAD)))
        peer.say(_request("/script/big"))
        assert peer.wait(b"closed").endswith(BIG + b"closed")
    (got,) = [each for one in shop.app.connections for each in one.requests if each.target == path.encode()]
    assert got.body == UPLOAD


@pytest.mark.parametrize(
    "arguments",
    [
        ("-maxfraglen", "512"),
        ("-maxfraglen", "4096"),
        ("-record_padding", "1000"),
        ("-record_padding", "16384"),
        ("-max_send_frag", "512"),
        ("-groups", "P-521:X25519"),
        ("-groups", "P-384:P-256"),
        ("-groups", "P-521:X25519", "-maxfraglen", "1024"),
        ("-no_middlebox",),
        ("-status", "-nocommands", "-read_buf", "40000"),
    ],
    ids=" ".join,
)
def test_who_wants_it_otherwise(shop: Shop, papers: Papers, arguments: tuple[str, ...]) -> None:
    """Small records, padded ones, a key share that is asked for anew, no compatibility with middleboxes."""
    with _s_client(shop, papers, "-ign_eof", *arguments) as peer:
        peer.say(_request("/otherwise", UPLOAD, close=False))
        peer.wait(b"POST /otherwise %d" % len(UPLOAD))
        peer.say(_request("/script/big"))
        assert peer.wait(b"closed").endswith(BIG + b"closed")


@pytest.mark.parametrize("suite", SUITES)
def test_new_keys_by_s_client(shop: Shop, papers: Papers, suite: str) -> None:
    """K asks us to take new ones, too; k does not."""
    with _s_client(shop, papers, "-ciphersuites", suite) as peer:
        for word in (b"k", b"K", b"K", b"k", b"K"):
            peer.command(word, b"KEYUPDATE")
            peer.say(_request("/keys", UPLOAD[:50_000], close=False))
            peer.wait(b"POST /keys 50000")
        peer.command(b"K", b"KEYUPDATE")
        peer.say(_request("/script/big"))
        assert peer.wait(b"closed").endswith(BIG + b"closed")


@pytest.mark.parametrize("suite", SUITES)
def test_gnutls_with_new_keys(shop: Shop, papers: Papers, suite: str) -> None:
    only = f"NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+{GNUTLS[suite]}"
    with Talking(
        "gnutls-cli", "--no-ca-verification", "--disable-sni", "--inline-commands", "--priority", only,
        "--x509certfile", str(papers.chain), "--x509keyfile", str(papers.key), "-p",
        str(shop.web.inbound), "127.0.0.1",
    ) as peer:  # fmt: skip
        peer.wait(b"Simple Client Mode")
        for word in (b"^rekey1^", b"^rekey^", b"^rekey^"):
            peer.command(word, b"Rekey was completed")  # which it takes for one only behind the end of a line
            peer.say(_request("/gnutls", b"a line\n" * 500, close=False))
            peer.wait(b"POST /gnutls 3500")
        peer.say(_request("/script/big"))
        assert BIG in peer.wait(BIG[-100:])


@pytest.mark.parametrize("suite", SUITES)
def test_curl_with_much_both_ways(shop: Shop, papers: Papers, suite: str, tmp_path: Path) -> None:
    upload = tmp_path / "upload"
    upload.write_bytes(UPLOAD)
    url = f"https://127.0.0.1:{shop.web.inbound}"
    own = ("--cert", str(papers.chain), "--key", str(papers.key), "--tls13-ciphers", suite)
    text = run(
        "curl", "-sS", "-k", "-m", "20", "--http1.1", *own,
        "-H", "Expect:", "--data-binary", f"@{upload}", f"{url}/curl/{suite}",
        "--next", "-sS", "-k", "-m", "20", *own, f"{url}/script/big",
    )  # fmt: skip
    assert text == f"POST /curl/{suite} {len(UPLOAD)}" + BIG.decode()


# -- outbound ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def calling() -> Iterator[tuple[Shop, int]]:
    """A caller whose ``web`` is at this port, whoever listens there."""
    with held_port() as port, Shop(endpoint=port) as running:
        yield running, port


def _ask(client: Client, path: str, body: bytes = b"") -> None:
    client.send(_request(f"http://{WEB}{path}", body, close=False).replace(b"Host: web", b"Host: " + WEB.encode()))


def _answer(client: Client, count: int) -> Reply:
    return client.replies((b"GET",) * count, count)[-1]


@pytest.mark.parametrize("suite", SUITES)
def test_new_keys_by_s_server(calling: tuple[Shop, int], suite: str) -> None:
    """It gives tickets, wants its keys new and ours, pads its records, and says its end."""
    shop, port = calling
    own = _own(shop.authority.issue("web"), serves=True)
    alpn = ("-alpn", "istio-http/1.1", "-ciphersuites", suite, "-record_padding", "3000", "-msg")
    with Talking("openssl", "s_server", "-accept", f"127.0.0.1:{port}", *own, *alpn) as server:
        server.wait(b"ACCEPT")
        with Client(shop.caller.outbound) as client:
            asked = False
            for count, word in enumerate((b"k", b"K", b"K", b"k", b""), 1):
                _ask(client, f"/{count}", UPLOAD[:20_000])
                heard = server.wait(UPLOAD[19_900:20_000])
                assert (b"<<< TLS 1.3, Handshake [length 0005], KeyUpdate" in heard) == asked
                asked = word == b"K"
                if word:
                    server.command(word, b"KeyUpdate")
                server.say(ok(BIG[:30_000]))
                reply = _answer(client, count)
                assert (reply.status, reply.body) == (200, BIG[:30_000])


_HAPROXY = """
global
  maxconn 200
  ssl-server-verify none
defaults
  mode http
  timeout client 30s
  timeout server 30s
  timeout connect 30s
frontend in
  bind 127.0.0.1:{port} ssl crt {crt} ca-file {roots} verify required alpn istio-http/1.1,http/1.1 ssl-min-ver TLSv1.3 ciphersuites {suite}
  default_backend app
backend app
  server app 127.0.0.1:{app}
"""  # noqa: E501


@contextmanager
def _haproxy(shop: Shop, port: int, app: int, suite: str, directory: Path) -> Iterator[None]:
    papers = shop.authority.issue("web")
    both, config = directory / "web.pem", directory / "haproxy.conf"
    both.write_bytes(papers.chain.read_bytes() + papers.key.read_bytes())
    config.write_text(_HAPROXY.format(port=port, crt=both, roots=papers.roots, suite=suite, app=app))
    run("haproxy", "-c", "-q", "-f", str(config))
    with Talking(program("haproxy"), "-db", "-f", str(config)):
        wait_until(lambda: _listens(port), "haproxy listens")
        yield


def _listens(port: int) -> bool:
    try:
        Client(port).sock.close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("suite", SUITES)
def test_haproxy_as_the_endpoint(calling: tuple[Shop, int], suite: str, tmp_path: Path) -> None:
    shop, port = calling
    with RecordingUpstream(SCRIPTS) as app, _haproxy(shop, port, app.port, suite, tmp_path):
        with Client(shop.caller.outbound) as client:
            _ask(client, "/haproxy", UPLOAD)
            assert _answer(client, 1).body == b"POST /haproxy %d" % len(UPLOAD)
            _ask(client, "/script/big")
            assert _answer(client, 2).body == BIG
        (got,) = [each for one in app.connections for each in one.requests if each.target == b"/haproxy"]
        assert got.body == UPLOAD
