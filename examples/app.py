"""A small app to put the sidecar in front of: HTTP/1.1 with keep-alive, the standard library only.

GET / greets; GET /headers shows the headers that arrived, as JSON; GET /slow?seconds=2 takes its time; GET /stream
sends chunks, one every half second; GET or POST /fail?status=503 fails, and counts its failures; POST /echo returns the
body; GET /buy asks the service NEXT the same, if there is one, through the proxy that HTTP_PROXY names.
``python examples/app.py [PORT [NAME [NEXT]]]``, default 8080; NAME is how it calls itself.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class App(BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    name = "the app"
    next = ""
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave together
    timeout = 300
    failures = itertools.count(1)

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/":
            self.reply(200, "text/plain", f"Hello from {self.name}.\n".encode())
        elif url.path == "/headers":
            shown = json.dumps(self.headers.items(), indent=2) + "\n"
            self.reply(200, "application/json", shown.encode())
        elif url.path == "/buy":
            self.buy()
        elif url.path == "/slow":
            self.slow(parse_qs(url.query).get("seconds", ["1"])[0])
        elif url.path == "/stream":
            self.stream()
        elif url.path == "/fail":
            self.fail(parse_qs(url.query).get("status", ["503"])[0])
        else:
            self.reply(
                404,
                "text/plain",
                b"Nothing here. Try /, /headers, /buy, /slow?seconds=2, /stream, /fail or POST /echo\n",
            )

    def do_POST(self) -> None:
        body = self.body()
        url = urlsplit(self.path)
        if url.path == "/echo":
            self.reply(200, self.headers.get("Content-Type", "application/octet-stream"), body)
        elif url.path == "/fail":
            self.fail(parse_qs(url.query).get("status", ["503"])[0])
        else:
            self.reply(404, "text/plain", b"Nothing here. Try POST /echo\n")

    do_HEAD = do_GET  # noqa: N815

    def reply(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def buy(self) -> None:
        """What it says itself, and what the next one says."""
        if not self.next:
            self.reply(200, "text/plain", f"{self.name}: sold\n".encode())
            return
        try:
            with urllib.request.urlopen(f"http://{self.next}/buy", timeout=10) as answer:
                self.reply(200, "text/plain", f"{self.name} -> {answer.read().decode()}".encode())
        except urllib.error.HTTPError as refused:
            self.reply(502, "text/plain", f"{self.name}: {self.next} answers {refused.code}\n".encode())
        except OSError as error:
            self.reply(502, "text/plain", f"{self.name}: {self.next} is not to be had: {error}\n".encode())

    def fail(self, status: str) -> None:
        if not (status.isascii() and status.isdigit() and 400 <= int(status) <= 599):
            self.reply(400, "text/plain", b"status is not a number from 400 to 599\n")
            return
        self.reply(int(status), "text/plain", f"{self.name}: failure {next(self.failures)}\n".encode())

    def slow(self, seconds: str) -> None:
        try:
            wait = min(max(float(seconds), 0.0), 60.0)
        except ValueError:
            self.reply(400, "text/plain", b"seconds is not a number\n")
            return
        time.sleep(wait)
        self.reply(200, "text/plain", f"That took {wait:g} s.\n".encode())

    def stream(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if self.command == "HEAD":
            return
        for number in range(1, 6):
            line = f"chunk {number} of 5\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            self.wfile.flush()
            time.sleep(0.5)
        self.wfile.write(b"0\r\n\r\n")

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        parts = []
        while length := int(self.rfile.readline().partition(b";")[0], 16):
            parts.append(self.rfile.read(length))
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass  # trailers
        return b"".join(parts)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: the sidecar's access log does."""


def main() -> int:
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8080
    App.name = sys.argv[2] if len(sys.argv) > 2 else App.name
    App.next = sys.argv[3] if len(sys.argv) > 3 else App.next
    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), App)
    except OSError as error:
        print(
            f"app: 127.0.0.1:{port}: {error.strerror}; stop what listens there, or name another port", file=sys.stderr
        )
        return 2
    server.daemon_threads = True
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
