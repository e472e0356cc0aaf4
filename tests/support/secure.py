"""TLS clients and servers of the tests' own, on the standard library's ``ssl``: another hand than the proxy's.

A peer here may have any certificate, offer any protocol and end as rudely as it likes; what it heard last is told as
``eof`` (close_notify), ``cut`` (FIN without one), ``reset``, or the alert's words.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from tests.support.raw import DEADLINE, Client

HTTP = ("istio-http/1.1", "istio", "http/1.1")
OPAQUE = ("sidecar-tcp", "istio")


def client_context(
    key: Path | None, chain: Path | None, roots: Path | None, alpn: Sequence[str] = HTTP
) -> ssl.SSLContext:
    """A caller's. Without ``chain`` it shows no certificate, without ``roots`` it trusts anybody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if roots is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(roots)
    if chain is not None:
        context.load_cert_chain(chain, key)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


class SecureClient(Client):
    """``raw.Client`` within TLS; ``failed`` says why there was no handshake, and is empty where there was one."""

    def __init__(self, port: int, context: ssl.SSLContext, *, sni: str | None = None, deadline: float = DEADLINE):
        super().__init__(port, deadline=deadline)
        self.failed = ""
        try:
            self.sock = self.tls = context.wrap_socket(
                self.sock, server_hostname=sni, suppress_ragged_eofs=False, do_handshake_on_connect=False
            )
            self.tls.do_handshake()
        except (ssl.SSLError, ConnectionError) as error:
            self.failed = self.heard.end = told(error)
        except BaseException:
            self.sock.close()
            raise

    def send(self, data: bytes, split: str = "whole") -> bool:
        try:
            return not self.failed and super().send(data, split)
        except ssl.SSLError:
            return False

    def read(self) -> bool:
        try:
            return not self.failed and super().read()
        except ssl.SSLError as error:
            self.heard.end = told(error)
            return False

    def finish(self) -> None:
        """close_notify and FIN; what the other end still says can be read."""
        self.tls.settimeout(0)
        try:
            self.tls.unwrap()
        except (ssl.SSLWantReadError, OSError):
            pass
        self.cut()

    def cut(self) -> None:
        """FIN, and no close_notify."""
        with socket.socket(fileno=os.dup(self.tls.fileno())) as raw:
            raw.shutdown(socket.SHUT_WR)


def told(error: OSError) -> str:
    """How a connection ended, in a word or an alert's words."""
    if isinstance(error, ssl.SSLEOFError):
        return "cut"
    if isinstance(error, ssl.SSLError):
        return (error.reason or "tls").lower().replace("_", " ")
    return "reset"


Answer = Callable[[ssl.SSLSocket], None]


class SecureServer:
    """A server in the place of an endpoint's sidecar: each connection that shakes hands is ``answer``'s until that
    returns. ``heard`` has the plain bytes of each, ``failed`` why handshakes failed."""

    def __init__(self, context: ssl.SSLContext, answer: Answer | None = None) -> None:
        self._answer = answer
        self.heard: list[bytearray] = []
        self.failed: list[str] = []
        self.alpn: list[str | None] = []
        self.sni: list[str | None] = []
        self.use(context)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True, name="secure-server").start()

    def use(self, context: ssl.SSLContext) -> None:
        """From now on this is who it is; what was heard before is forgotten."""
        self._context = context
        context.sni_callback = lambda _sock, name, _context: self.sni.append(name)
        for heard in (self.heard, self.failed, self.alpn, self.sni):
            heard.clear()

    def __enter__(self) -> SecureServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(DEADLINE)
        try:
            secured = self._context.wrap_socket(sock, server_side=True, suppress_ragged_eofs=False)
        except OSError as error:
            self.failed.append(told(error))
            sock.close()
            return
        heard = bytearray()
        self.heard.append(heard)
        self.alpn.append(secured.selected_alpn_protocol())
        try:
            if self._answer is not None:
                self._answer(secured)
            else:
                while data := secured.recv(65536):
                    heard += data
        except OSError as error:
            self.failed.append(told(error))
        finally:
            secured.close()


def server_context(
    key: Path, chain: Path, roots: Path | None, alpn: Sequence[str] = ("istio-http/1.1",)
) -> ssl.SSLContext:
    """A server's, which asks for a certificate where it has ``roots``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    if roots is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(roots)
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context
