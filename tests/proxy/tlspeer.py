"""A real TLS server and client without a certificate: their key exchange is anonymous, so no key is kept here."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from types import TracebackType


def _anonymous(context: ssl.SSLContext) -> ssl.SSLContext:
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AECDH:@SECLEVEL=0")
    return context


def tls_over(sock: socket.socket, name: str) -> ssl.SSLSocket:
    """The client's side of a handshake that asks for ``name``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return _anonymous(context).wrap_socket(sock, server_hostname=name)


class TlsEcho:
    """An app that speaks TLS and sends everything back in capitals; a context manager."""

    def __init__(self) -> None:
        self._context = _anonymous(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True, name="tls-echo")

    def __enter__(self) -> TlsEcho:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(5)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(sock,), daemon=True, name="tls-echo-connection").start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError), self._context.wrap_socket(sock, server_side=True) as secure:
            while data := secure.recv(65536):
                secure.sendall(data.upper())
