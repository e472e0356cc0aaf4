"""Documents as tests write them, and what becomes of them."""

from __future__ import annotations

from collections.abc import Iterable
from textwrap import dedent

from sidecar.resources.document_files import Config, read_config
from sidecar.resources.mesh_documents import Mesh

OURS = ("Service", "RateLimitPolicy", "BackendTrafficPolicy")
ISTIO = dict.fromkeys(("PeerAuthentication", "AuthorizationPolicy"), "security.istio.io/v1")
OURS = ("Service", "RateLimitPolicy", "BackendTrafficPolicy")


def doc(kind: str, where: str, spec: str, labels: str = "{}") -> str:
    """One document: ``where`` is ``namespace/name``, ``spec`` a flow mapping."""
    namespace, _, name = where.partition("/")
    version = "sidecar/v1" if kind in OURS else ISTIO.get(kind, "networking.istio.io/v1")
    head = (
        f"apiVersion: {version}\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}, labels: {labels}}}\n"
    )
    return f"{head}spec: {spec}\n---\n"


def service(where: str, accounts: str = "", labels: str = "{}", more: str = "", ports: str = "{port: 80}") -> str:
    """A Service with one port, served by its own account where nothing else is said."""
    name = where.partition("/")[2]
    return doc("Service", where, f"{{ports: [{ports}], serviceAccounts: [{accounts or name}], {more}}}", labels)


def entry(where: str, hosts: str, more: str = "", port: str = "{number: 443, name: tls, protocol: TLS}") -> str:
    """A ServiceEntry with one port."""
    return doc("ServiceEntry", where, f"{{hosts: [{hosts}], ports: [{port}], {more}}}")


def read(*texts: str) -> Config:
    """As files f0.yaml, f1.yaml ..."""
    return read_config([(f"f{index}.yaml", dedent(text).encode()) for index, text in enumerate(texts)])


def mesh(*texts: str) -> Mesh:
    """Of documents in which nothing is wrong."""
    found = read("".join(texts))
    assert found.problems == (), found.problems
    assert found.mesh is not None
    return found.mesh


def names(places: Iterable[tuple[str, str]]) -> str:
    """``a/web a/api``."""
    return " ".join(f"{namespace}/{name}" for namespace, name in places)
