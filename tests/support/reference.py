"""Other people's parsers, to hold ours against: nginx and HAProxy as proxies in front of a recording app, and h11.

Each gives, for the bytes of one client connection, the requests that these bytes are. They are no oracle of what to
refuse: what matters is that nothing which we forward is split in another way by them.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Protocol

import h11

from tests.support.ports import held_port
from tests.support.raw import Client
from tests.support.upstream import RecordingUpstream, wait_until

Split = list[tuple[bytes, bytes]]
"""Method and body of each request, in order."""


class Reference(Protocol):
    """Something that says which requests these bytes are."""

    name: str

    def split(self, data: bytes) -> Split: ...


_NGINX = """
daemon off; worker_processes 1; pid {dir}/pid; error_log {dir}/error.log; {user}
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {dir}/a; proxy_temp_path {dir}/b; fastcgi_temp_path {dir}/c; uwsgi_temp_path {dir}/d;
  scgi_temp_path {dir}/e;
  server {{
    listen 127.0.0.1:{port};
    underscores_in_headers on; ignore_invalid_headers on; merge_slashes off;
    large_client_header_buffers 8 64k; client_max_body_size 0; client_body_timeout 2s; client_header_timeout 2s;
    location / {{
      proxy_pass http://127.0.0.1:{upstream}; proxy_http_version 1.1; proxy_set_header Host app;
      proxy_set_header Connection ""; proxy_request_buffering off; proxy_buffering off;
      proxy_ignore_client_abort on; proxy_next_upstream off;
    }}
  }}
}}
"""

_HAPROXY = """
global
  maxconn 200
  tune.bufsize 65536
defaults
  mode http
  timeout client 2s
  timeout server 5s
  timeout connect 5s
  timeout http-request 2s
  option http-buffer-request
frontend in
  bind 127.0.0.1:{port}
  default_backend app
backend app
  retries 0
  server app 127.0.0.1:{upstream}
"""


class ProxyReference:
    """nginx or haproxy, from the system's packages; a context manager."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.upstream = RecordingUpstream(strict=False)
        self._directory = tempfile.TemporaryDirectory(prefix=f"{name}-")
        self._held = contextlib.ExitStack()
        self._port = self._held.enter_context(held_port())
        directory = Path(self._directory.name)
        directory.chmod(0o755)
        config = directory / f"{name}.conf"
        text = _NGINX if name == "nginx" else _HAPROXY
        user = "user root;" if Path("/proc/self").stat().st_uid == 0 else ""
        config.write_text(text.format(dir=directory, port=self._port, upstream=self.upstream.port, user=user))
        if name == "nginx":
            self._command = ["nginx", "-c", str(config), "-p", str(directory), "-e", str(directory / "early.log")]
        else:
            self._command = ["haproxy", "-q", "-db", "-f", str(config)]

    def __enter__(self) -> ProxyReference:
        self.upstream.__enter__()
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(self._answers, f"{self.name} listens")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._held.close()
        self.upstream.close()
        self._directory.cleanup()

    def split(self, data: bytes) -> Split:
        self.upstream.take()
        send_and_read_to_end(self._port, data)
        return [(request.method, request.body) for request in self.upstream.take().requests]

    def _answers(self) -> bool:
        assert self._process.poll() is None, f"{self.name} ended with {self._process.returncode}"
        try:
            socket.create_connection(("127.0.0.1", self._port), timeout=5).close()
        except OSError:
            return False
        return True


class H11Reference:
    """h11 as a server, without its network."""

    name = "h11"

    def split(self, data: bytes) -> Split:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        connection.receive_data(data)
        found: Split = []
        try:
            while True:
                request = connection.next_event()
                if not isinstance(request, h11.Request):
                    return found
                body = bytearray()
                while isinstance(event := connection.next_event(), h11.Data):
                    body += event.data
                if not isinstance(event, h11.EndOfMessage):
                    return found
                found.append((bytes(request.method), bytes(body)))
                connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                connection.send(h11.EndOfMessage())
                connection.start_next_cycle()
        except h11.ProtocolError:
            return found


def send_and_read_to_end(port: int, data: bytes, quiet: float = 0.05) -> None:
    """One connection: these bytes, then reading to the end; FIN only when nothing has come for ``quiet`` seconds, since
    a proxy may take FIN for a client that has gone and forget what it still owes it."""
    with Client(port, deadline=10) as client:
        client.send(data)
        client.sock.settimeout(quiet)
        try:
            while client.sock.recv(65536):
                pass
        except ConnectionError:
            return
        except TimeoutError:
            client.finish()
            client.read_to_end()
