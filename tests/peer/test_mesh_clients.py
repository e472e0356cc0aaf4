"""curl and openssl s_client at the inbound port of a sidecar with an identity: what STRICT takes, and PERMISSIVE."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peer.programs import program
from tests.support.member import Shop
from tests.support.papers import Papers, web_certificate
from tests.support.ports import held_port
from tests.support.upstream import wait_until

PEER = "spiffe://cluster.local/ns/shop/sa/curl"
CERTIFICATE_REQUIRED, UNKNOWN_CA = 116, 48  # RFC 8446 section 6: numbers of alerts


@pytest.fixture(scope="module")
def strict() -> Iterator[Shop]:
    with Shop() as running:
        yield running


@pytest.fixture(scope="module")
def permissive() -> Iterator[Shop]:
    with Shop(mode="permissive") as running:
        yield running


@pytest.fixture(scope="module")
def papers(strict: Shop) -> Papers:
    return strict.authority.issue("curl")


def _run(*command: str, said: bytes = b"") -> tuple[int, str]:
    """Exit code, and all that it wrote."""
    done = subprocess.run(
        [program(command[0]), *command[1:]], input=said, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30,
        check=False,
    )  # fmt: skip
    return done.returncode, done.stdout.decode("latin-1")


def _curl(url: str, *arguments: str, papers: Papers | None = None) -> tuple[int, str]:
    own = () if papers is None else ("--cert", str(papers.chain), "--key", str(papers.key))
    # A SPIFFE id is no host name: -k, as for every client that does not know of them.
    return _run("curl", "-sS", "-k", "-m", "15", *own, *arguments, url)


def _s_client(port: int, *arguments: str, papers: Papers | None = None, path: str = "/s_client") -> tuple[int, str]:
    """Says one request once the handshake is over, and waits for the end."""
    own = () if papers is None else (
        "-cert", str(papers.chain), "-key", str(papers.key), "-cert_chain", str(papers.chain),
    )  # fmt: skip
    request = f"GET {path} HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n".encode()
    place = ("-connect", f"127.0.0.1:{port}", "-ign_eof", "-noservername")
    return _run("openssl", "s_client", *place, *own, *arguments, said=request)


def _at_app(shop: Shop, path: str) -> list[dict[bytes, bytes]]:
    """The fields of the requests for this path that reached the app."""
    wanted = path.encode()
    found = [each for one in shop.app.connections for each in one.requests if each.target == wanted]
    return [{name.lower(): value for name, value in each.fields} for each in found]


def _wait_refused(shop: Shop, rule: str) -> None:
    """Until the sidecar has recorded that a connection was refused by this rule."""
    wait_until(lambda: any(each["rule"] == rule for each in shop.web.log_records()), f"a record with {rule}")


def _alert(number: int) -> str:
    """The code by which OpenSSL 3 reports an alert of the peer: its TLS library is number 20, and alerts follow 1000
    (ERR_PACK and SSL_AD_REASON_OFFSET). curl and s_client print it before the words, which differ between versions."""
    return f"error:{20 << 23 | 1000 + number:08X}:"


# -- STRICT ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offers", [("--http1.1",), (), ("--no-alpn",)], ids=["http/1.1", "h2 and http/1.1", "nothing"])
def test_curl_with_a_certificate(strict: Shop, papers: Papers, offers: tuple[str, ...]) -> None:
    path = "/curl" + "".join(offers)
    code, text = _curl(f"https://127.0.0.1:{strict.web.inbound}{path}", *offers, papers=papers)
    assert (code, text) == (0, f"GET {path} 0")
    (fields,) = _at_app(strict, path)
    assert fields[b"x-forwarded-client-cert"].endswith(f"URI={PEER}".encode())


def test_curl_that_says_who_it_is_without_being_it(strict: Shop, papers: Papers) -> None:
    claim = "x-forwarded-client-cert: By=nobody;URI=spiffe://cluster.local/ns/shop/sa/admin"
    code, _ = _curl(f"https://127.0.0.1:{strict.web.inbound}/claim", "-H", claim, papers=papers)
    assert code == 0
    (fields,) = _at_app(strict, "/claim")
    assert b"admin" not in fields[b"x-forwarded-client-cert"]


def test_curl_without_a_certificate(strict: Shop) -> None:
    before = strict.seen()
    code, text = _curl(f"https://127.0.0.1:{strict.web.inbound}/nobody")
    assert code in (35, 56), text
    assert _alert(CERTIFICATE_REQUIRED) in text
    _wait_refused(strict, "no_certificate")
    assert strict.seen() == before


def test_curl_in_plaintext(strict: Shop) -> None:
    before = strict.seen()
    code, text = _curl(f"http://127.0.0.1:{strict.web.inbound}/plaintext")
    assert code in (52, 56), text
    assert strict.seen() == before


def test_s_client_with_a_certificate(strict: Shop, papers: Papers) -> None:
    trusts = ("-CAfile", str(papers.roots), "-verify_return_error")
    code, text = _s_client(
        strict.web.inbound, "-alpn", "istio-http/1.1,istio,http/1.1", *trusts, papers=papers, path="/first"
    )
    assert code == 0, text
    assert "ALPN protocol: istio-http/1.1" in text
    assert "TLSv1.3" in text
    assert "Verification: OK" in text
    assert "HTTP/1.1 200 OK" in text
    assert len(_at_app(strict, "/first")) == 1


def test_there_is_no_session_to_come_back_with(strict: Shop, papers: Papers, tmp_path: Path) -> None:
    session = tmp_path / "session"
    code, text = _s_client(strict.web.inbound, "-sess_out", str(session), papers=papers, path="/session/1")
    assert code == 0, text
    assert "New, TLSv1.3" in text
    assert not session.exists()


@pytest.mark.parametrize(
    ("arguments", "alert", "rule"),
    [
        (("-tls1_2",), "protocol version", "unsupported_protocol"),
        (("-alpn", "h3,spdy/3"), "no application protocol", "no_application_protocol"),
    ],
    ids=["TLS 1.2 only", "unknown ALPN only"],
)
def test_s_client_that_speaks_something_else(
    strict: Shop, papers: Papers, arguments: tuple[str, ...], alert: str, rule: str
) -> None:
    before = strict.seen()
    code, text = _s_client(strict.web.inbound, *arguments, papers=papers)
    assert code != 0, text
    assert alert in text
    _wait_refused(strict, rule)
    assert strict.seen() == before


def test_s_client_with_a_group_that_is_not_the_meshs(strict: Shop, papers: Papers) -> None:
    before = strict.seen()
    code, text = _s_client(strict.web.inbound, "-groups", "P-521", papers=papers)
    assert code != 0, text
    assert strict.seen() == before
    assert "HTTP/1.1 200" not in text
    _wait_refused(strict, "group")


def test_s_client_without_a_certificate(strict: Shop) -> None:
    before = strict.seen()
    _, text = _s_client(strict.web.inbound, "-alpn", "istio-http/1.1")
    assert "HTTP/1.1" not in text.replace("ALPN protocol: istio-http/1.1", "")
    assert _alert(CERTIFICATE_REQUIRED) in text
    assert strict.seen() == before


def test_s_client_with_a_certificate_of_the_web(strict: Shop, papers: Papers, tmp_path: Path) -> None:
    before = strict.seen()
    key, chain = web_certificate(tmp_path, "client.example")
    _, text = _s_client(strict.web.inbound, papers=Papers("", key, chain, papers.roots))
    assert _alert(UNKNOWN_CA) in text, text
    _wait_refused(strict, "unknown_authority")
    assert strict.seen() == before


# -- PERMISSIVE --------------------------------------------------------------------------------------------------------


def test_curl_in_plaintext_is_served_as_nobody(permissive: Shop) -> None:
    claim = "x-forwarded-client-cert: URI=spiffe://cluster.local/ns/shop/sa/admin"
    code, text = _curl(f"http://127.0.0.1:{permissive.web.inbound}/open", "-H", claim)
    assert (code, text) == (0, "GET /open 0")
    (fields,) = _at_app(permissive, "/open")
    assert b"x-forwarded-client-cert" not in fields


def test_s_client_of_the_mesh_is_known(permissive: Shop) -> None:
    own = permissive.authority.issue("curl")
    code, text = _s_client(permissive.web.inbound, "-alpn", "istio-http/1.1", papers=own, path="/known")
    assert code == 0, text
    (fields,) = _at_app(permissive, "/known")
    assert fields[b"x-forwarded-client-cert"].endswith(f"URI={PEER}".encode())


def test_s_client_of_the_mesh_without_a_certificate_is_not_relayed(permissive: Shop) -> None:
    before = permissive.seen()
    _, text = _s_client(permissive.web.inbound, "-alpn", "istio", path="/unknown")
    assert _alert(CERTIFICATE_REQUIRED) in text
    assert permissive.seen() == before


def test_tls_of_the_apps_own_is_relayed(tmp_path: Path) -> None:
    key, chain = web_certificate(tmp_path, "app.example")
    with held_port() as port:
        command = [
            program("openssl"), "s_server", "-accept", f"127.0.0.1:{port}", "-key", str(key), "-cert", str(chain),
            "-www", "-quiet",
        ]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as app:
            try:
                with Shop(mode="permissive", app=port) as shop:
                    wait_until(lambda: _curl(f"https://127.0.0.1:{port}/")[0] == 0, "the app speaks TLS")
                    url = f"https://app.example:{shop.web.inbound}/"
                    to = ("--resolve", f"app.example:{shop.web.inbound}:127.0.0.1", "--cacert", str(chain))
                    code, text = _run("curl", "-sS", "-m", "15", *to, url)  # the name is the app's, and is checked
                    assert code == 0, text
                    assert "s_server" in text
            finally:
                app.kill()
