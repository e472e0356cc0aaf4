"""An app on Python's http.server, which takes more for a request line than others do, that prints what each request
says of its caller. Arguments are HOST:PORT to listen on."""

from __future__ import annotations

import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAMES = ("x-forwarded-client-cert", "x_forwarded_client_cert")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        said = [value for name in NAMES for value in self.headers.get_all(name, [])]
        # One write for a line: threads that print at the same time must not mix theirs.
        os.write(1, (json.dumps({"path": self.path, "said": ", ".join(said)}) + "\n").encode())
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"seen")

    def log_message(self, format: str, *words: object) -> None:
        """Nothing but requests is printed."""


for address in sys.argv[1:]:
    host, _, port = address.partition(":")
    threading.Thread(target=ThreadingHTTPServer((host, int(port)), Handler).serve_forever).start()
