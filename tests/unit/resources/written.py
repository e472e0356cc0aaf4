"""Mesh files as tests write them, and what becomes of them."""

from __future__ import annotations

from textwrap import dedent

from sidecar.resources.load import Loaded, load_mesh
from sidecar.resources.snapshot import Node, Snapshot, Version

ME = Node(namespace="shop", service="web", service_account="web")

SHOP = """\
    services:
    - name: billing
      namespace: shop
      serviceAccounts: [billing, batch]
      subjectAltNames: ["spiffe://other.example/ns/shop/sa/billing"]
      addresses: [10.96.0.7, "2001:DB8::0007"]
      ports:
      - {port: 80, name: http-api, targetPort: 8080}
      - {port: 5432, name: db}
      endpoints:
      - {address: 10.0.0.7, labels: {version: v2, app: billing}}
      - {address: 10.0.0.8, ports: {http-api: 9090}}
      - {address: 127.0.0.1, port: 15006, mode: direct}
    - name: web
      serviceAccounts: [web]
      ports: [{port: 8000}]
    peerAuthentication:
      mtls: {mode: PERMISSIVE}
      portLevelMtls:
        9090: {mode: DISABLE}
        9091: {}
"""


def loaded(text: str, me: Node = ME) -> Loaded:
    return load_mesh(dedent(text).encode(), "mesh.yaml", me, Version(0, 1))


def snapshot(text: str = SHOP, me: Node = ME) -> Snapshot:
    found = loaded(text, me)
    assert found.problems == ()
    assert found.snapshot is not None
    return found.snapshot


def problems(text: str) -> list[str]:
    found = loaded(text)
    assert found.snapshot is None
    return list(found.problems)
