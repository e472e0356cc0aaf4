"""Envoy with the RBAC filters that Istio writes for policies, and callers of many identities that it judges.

Called by ``make_principal_data``. Envoy has six listeners: three for HTTP and three for opaque bytes. Of each three,
the first requires a client certificate, for the second it is optional, and the third is in plaintext. Envoy answers by
itself, so a verdict depends on the filters alone. A caller with an identity is judged at the first two, a caller
without one at the last two, and both verdicts must agree.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from certs.spiffe import SCHEME, parse
from tests.peer.envoy import ROUTER, EnvoyProcess, address, typed
from tests.support.papers import Authority, Papers

ALLOWED, REFUSED = 200, 403
Filters = list[dict[str, Any]]
Listener = dict[str, object]

_SECURITY: Final = ("required", "optional", "plaintext")
_TIMEOUT: Final = 10.0
_AUDITED: Final = "x-audited"
_HINT: Final = "%DYNAMIC_METADATA(envoy.common:access_log_hint)%"  # what Istio's AUDIT filter sets


class Callers:
    """Certificates of callers. Each trust domain has an authority, and the server trusts all of them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._authorities: dict[str, Authority] = {}
        self._contexts: dict[str, ssl.SSLContext] = {}
        self.server = self._authority("cluster.local").issue("billing")

    @property
    def roots(self) -> str:
        """The roots of all trust domains that were named so far, in PEM."""
        return "".join(each.roots.read_text() for each in self._authorities.values())

    def add(self, callers: Iterable[str]) -> None:
        """Issue certificates for these ids, which have no scheme; "" is a caller without a certificate."""
        for caller in callers:
            if caller not in self._contexts:
                self._contexts[caller] = self._context(caller)

    def context(self, caller: str) -> ssl.SSLContext:
        """Return the TLS context of a caller that was added."""
        return self._contexts[caller]

    def _context(self, caller: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.server.roots))
        context.check_hostname = False
        if caller:
            spiffe_id = parse(SCHEME + caller)
            papers = self._authority(spiffe_id.trust_domain).issue_id(spiffe_id)
            context.load_cert_chain(papers.chain, papers.key)
        return context

    def _authority(self, trust_domain: str) -> Authority:
        if trust_domain not in self._authorities:
            self._authorities[trust_domain] = Authority(self._directory, trust_domain)
        return self._authorities[trust_domain]


class Judge:
    """A running Envoy with the ``http`` and ``tcp`` filters of one set. A context manager."""

    def __init__(self, callers: Callers, http: Filters, tcp: Filters) -> None:
        self._callers = callers
        self._envoy = EnvoyProcess(lambda *ports: _resources(ports, callers, http, tcp), len(_SECURITY) * 2)
        count = len(_SECURITY)
        self._http = dict(zip(_SECURITY, self._envoy.ports[:count], strict=True))
        self._tcp = dict(zip(_SECURITY, self._envoy.ports[count:], strict=True))

    def __enter__(self) -> Judge:
        try:
            self._require_certificates()
        except BaseException:
            self._envoy.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._envoy.__exit__(None, None, None)

    def ask(self, request: dict[str, Any]) -> tuple[int, bool]:
        """Return the status, and whether an AUDIT policy matches (never for opaque bytes, which show no sign of it).

        Raises RuntimeError if two listeners differ.
        """
        caller = request["from"]
        ask = self._ask_tcp if request.get("protocol") == "TCP" else self._ask_http
        first, second = (ask(how, request) for how in (("required", "optional") if caller else _SECURITY[1:]))
        if first != second:
            raise RuntimeError(f"the listeners differ: {first}, {second} on {request}")
        return first

    def _require_certificates(self) -> None:
        for ports in (self._http, self._tcp):
            try:
                with self._connect("required", ports, "") as connection:
                    connection.sendall(b"x")
                    connection.recv(1)
            except (ssl.SSLError, ConnectionError):
                continue
            raise RuntimeError("Envoy accepts a caller without a certificate where it must have one")

    def _connect(self, how: str, ports: dict[str, int], caller: str) -> socket.socket:
        plain = socket.create_connection(("127.0.0.1", ports[how]), _TIMEOUT)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return plain if how == "plaintext" else self._callers.context(caller).wrap_socket(plain)

    def _ask_http(self, how: str, request: dict[str, Any]) -> tuple[int, bool]:
        connection = http.client.HTTPConnection("127.0.0.1")
        connection.sock = self._connect(how, self._http, request["from"])
        try:
            connection.request(request["method"], request["path"], headers={"Host": request["host"]})
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        if (response.status, body) not in ((ALLOWED, b"allowed"), (REFUSED, b"RBAC: access denied")):
            raise RuntimeError(f"this is no verdict: {response.status} {body!r} on {request}")
        return response.status, response.getheader(_AUDITED) == "true"

    def _ask_tcp(self, how: str, request: dict[str, Any]) -> tuple[int, bool]:
        with self._connect(how, self._tcp, request["from"]) as connection:
            connection.sendall(b"x")
            try:
                echoed = connection.recv(1) == b"x"
            except ConnectionError:
                echoed = False
        return (ALLOWED if echoed else REFUSED), False


def _resources(ports: tuple[int, ...], callers: Callers, http: Filters, tcp: Filters) -> dict[str, object]:
    echo = {"name": "envoy.filters.network.echo", "typed_config": typed("filters.network.echo.v3.Echo")}
    chains: list[Filters] = [[_manager(http)]] * len(_SECURITY) + [[*tcp, echo]] * len(_SECURITY)
    return {
        "listeners": [
            _listener(port, _secured(how, callers.server, callers.roots), chain)
            for port, how, chain in zip(ports, _SECURITY * 2, chains, strict=True)
        ]
    }


def _listener(port: int, secured: dict[str, object], chain: Filters) -> Listener:
    return {"name": str(port), "address": address(port), "filter_chains": [{"filters": chain, **secured}]}


def _secured(how: str, papers: Papers, roots: str) -> dict[str, object]:
    if how == "plaintext":
        return {}
    certificate = {"certificate_chain": {"filename": str(papers.chain)}, "private_key": {"filename": str(papers.key)}}
    config = typed(
        "transport_sockets.tls.v3.DownstreamTlsContext",
        require_client_certificate=how == "required",
        common_tls_context={
            "tls_certificates": [certificate],
            "validation_context": {"trusted_ca": {"inline_string": roots}},
        },
    )
    return {"transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": config}}


def _manager(filters: Filters) -> dict[str, Any]:
    """Return an HTTP connection manager that answers what the filters let pass; a header field shows an audit."""
    answer = {"status": ALLOWED, "body": {"inline_string": "allowed"}}
    route = {"match": {"prefix": "/"}, "direct_response": answer}
    any_status = {
        "status_code_filter": {
            "comparison": {"op": "GE", "value": {"default_value": ALLOWED, "runtime_key": "authz_judge.status"}}
        }
    }
    field = {"header": {"key": _AUDITED, "value": _HINT}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    config = typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="judge",
        http_filters=[*filters, ROUTER],
        local_reply_config={"mappers": [{"filter": any_status, "headers_to_add": [field]}]},
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
    )
    return {"name": "envoy.filters.network.http_connection_manager", "typed_config": config}
