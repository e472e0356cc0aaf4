"""Requests of the judged routes, sent to a proxy, and what became of them in the form in which ``data/routes`` has it.

Called by ``make_route_data`` for Envoy, and by ``test_route_verdicts`` for our proxy. A request has ``path``; where
they are not the usual ones ``method``, ``host``, ``headers``, ``body``, ``port``; and what else is recorded of it:

* ``see``: request fields as the upstream saw them; ``got``: fields of the response. Those of the set are for all.
* ``text``: the body of the response.
* ``attempts``: every backend that got the request, in order. That is recorded wherever it is more than one, or none
  answered, unless the number depends on the clock (``uncounted``).
* ``mirrors``: how many copies there are; what each says.
* ``times``: it is sent so often, and recorded is how often each backend (or status) answered.

An answer has ``status``, ``upstream`` (None: the proxy itself answered), and where they are not those of the request
``path`` and ``host`` as the upstream saw them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, Final

from tests.peer.route_backends import Backends, Seen
from tests.support.raw import Client, Reply

HOST: Final = "be.example.com"
SHADOW: Final = "-shadow"  # what Envoy adds to the host of a mirrored request, before its port

Case = dict[str, Any]
Answer = dict[str, Any]
_numbers = count(1)


class Asking:
    """Asks the proxy at ``ports``: an address by the port that requests are for. ``absolute``: in the form in which a
    client asks a proxy that it was configured with."""

    def __init__(self, backends: Backends, ports: Mapping[int, tuple[str, int]], *, absolute: bool) -> None:
        self._backends = backends
        self._ports = ports
        self._absolute = absolute

    def ask(self, case: Case) -> list[Answer]:
        """Return an answer for each request of a set."""
        return [self._repeated(one) if "times" in one else self._single(case, one) for one in case["requests"]]

    def _repeated(self, request: Case) -> Answer:
        outcomes: Counter[str] = Counter()
        for _ in range(request["times"]):
            ident, reply = self._send(request)
            seen = self._backends.seen(ident)
            outcomes[seen[-1].backend if seen and reply.status == 200 else str(reply.status)] += 1
        return {"outcomes": dict(sorted(outcomes.items()))}

    def _single(self, case: Case, request: Case) -> Answer:
        ident, reply = self._send(request)
        mirrors = request.get("mirrors", 0)
        upstream = (reply.get(b"x-backend") or [b""])[-1].decode() or None
        seen = self._backends.wait_seen(ident, mirrors + (upstream is not None))
        copies = [each for each in seen if _is_copy(each)]
        attempts = [each for each in seen if not _is_copy(each)]
        see = [*case.get("see", []), *request.get("see", [])]
        answer: Answer = {"status": reply.status, "upstream": upstream}
        if attempts:
            answer |= _what_changed(attempts[-1], request) | _fields(attempts[-1], see)
        told = request.get("attempts") or len(attempts) > 1 or (attempts and upstream is None)
        if told and not request.get("uncounted"):
            answer["attempts"] = [each.backend for each in attempts]
        if copies:
            said = [{"to": each.backend} | _what_changed(each, request) | _fields(each, see) for each in copies]
            answer["copies"] = sorted(said, key=lambda copy: str(copy["to"]))
        got = {*case.get("got", []), *request.get("got", [])} | ({"location"} if 300 <= reply.status < 400 else set())
        if found := {name: values for name in sorted(got) if (values := _texts(reply.get(name.encode())))}:
            answer["got"] = found
        if request.get("text"):
            answer["text"] = reply.body.decode("latin-1")
        return answer

    def _send(self, request: Case) -> tuple[str, Reply]:
        ident = str(next(_numbers))
        method, port = request.get("method", "GET").encode(), request.get("port", 80)
        address, number = self._ports[port]
        with Client(number, host=address) as client:
            client.send(self._bytes(request, method, port, ident))
            (reply,) = client.replies((method,), 1)
        return ident, reply

    def _bytes(self, request: Case, method: bytes, port: int, ident: str) -> bytes:
        host, body = request.get("host", HOST), request.get("body", "").encode()
        if port != 80:
            host = f"{host}:{port}"
        fields = [["Host", host], ["x-ask", ident], *request.get("headers", []), ["Connection", "close"]]
        if body or method in (b"POST", b"PUT", b"PATCH"):
            fields.append(["Content-Length", str(len(body))])
        target = f"http://{host}{request['path']}" if self._absolute else request["path"]
        lines = [f"{method.decode()} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields)]
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def _is_copy(seen: Seen) -> bool:
    return any(value.partition(":")[0].endswith(SHADOW) for value in seen.values("host"))


def _what_changed(seen: Seen, request: Case) -> Answer:
    """Return the path and the host that a backend saw, and the method, where they are not what the client sent."""
    found: Answer = {}
    for name, value, sent in (
        ("method", seen.method, request.get("method", "GET")),
        ("path", seen.path, request["path"]),
        ("host", ",".join(seen.values("host")), request.get("host", HOST)),
    ):
        if value != sent:
            found[name] = value
    return found


def _fields(seen: Seen, names: Sequence[str]) -> Answer:
    found = {name: values for name in names if (values := seen.values(name))}
    return {"see": found} if found else {}


def _texts(values: Sequence[bytes]) -> list[str]:
    return [value.decode("latin-1") for value in values]
