"""What stands for a document that this version can't read, so that nothing is open that it may have closed. Pure.

Who calls it: ``table``. Such a document was written by a newer version. Leaving it out is right for what only opens: a
ServiceEntry or a WorkloadEntry that nobody knows is called as any other host, or not at all. A VirtualService, a
DestinationRule or a BackendTrafficPolicy says how calls go and closes nothing. For the rest:

- **PeerAuthentication** may have said STRICT. So no other one of its namespace counts, and one for all of that
  namespace says STRICT. (In the root namespace that is the mesh's; a namespace that says otherwise could have done so
  before.)
- **Sidecar** may have said REGISTRY_ONLY. So, likewise, all of its namespace may call only what is known.
- **AuthorizationPolicy** may have refused any caller. So a policy of its name denies everything, at the workloads that
  its selector covers as far as that can be read, else in all of its namespace (in the root namespace: of the mesh).
- **RateLimitPolicy** opens nothing, and refusing every call for it would be an outage: it is left out, and shown as
  unreadable.
- **Service**: an app that calls one which is not known sends in plaintext where others may be called at all. So its
  name, ports and addresses stay known as far as they can be read, with nobody who may serve it: it can't be reached.
  And since its labels are what selectors go by, for its namespace the first two are so too, and where a policy selects
  workloads by labels, everything is denied there.

What a kind means that this version does not know at all, nobody here can say; it is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from control.documents.stored_document import Held
from sidecar.resources.documents import Document, Key, parse
from sidecar.resources.kinds import ROOT_NAMESPACE, AuthorizationPolicy

_STAND_IN: Final = "stands-for-what-can-not-be-read"
_NOBODY: Final = "spiffe://invalid/ns/nobody/sa/nobody"  # of a trust domain that nobody trusts
_PORT_FIELDS: Final = ("port", "name", "appProtocol", "targetPort")


def effective(held: Iterable[Held]) -> dict[Key, Document]:
    """The documents that count."""
    found: dict[Key, Document] = {}
    unreadable: list[Held] = []
    for one in held:
        if one.document is None:
            unreadable.append(one)
        else:
            found[one.key] = one.document
    for one in unreadable:  # before services: whether policies select by labels has to be known of all of them
        if one.key[0] == "AuthorizationPolicy":
            _put(found, _denying(one))
    for one in unreadable:
        kind, namespace, _ = one.key
        if kind in ("PeerAuthentication", "Service"):
            _without(found, "PeerAuthentication", namespace)
            _put(found, _strict(namespace))
        if kind in ("Sidecar", "Service"):
            _without(found, "Sidecar", namespace)
            _put(found, _registry_only(namespace))
        if kind == "Service":
            _put(found, _nobodys(one))
            if any(_selects_in(each, namespace) for each in found.values()):
                _put(found, _denying_all(namespace, _STAND_IN))
    return found


def _without(found: dict[Key, Document], kind: str, namespace: str) -> None:
    """Takes out all of a kind in a namespace."""
    for key in [key for key in found if key[:2] == (kind, namespace)]:
        del found[key]


def _put(found: dict[Key, Document], document: Document | None) -> None:
    if document is not None:
        found[document.key] = document


def _strict(namespace: str) -> Document | None:
    return _document("security.istio.io/v1", "PeerAuthentication", namespace, {"mtls": {"mode": "STRICT"}})


def _registry_only(namespace: str) -> Document | None:
    policy = {"outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}}
    return _document("networking.istio.io/v1", "Sidecar", namespace, policy)


def _denying(held: Held) -> Document | None:
    """A policy that denies everything for what the unreadable one covers. One that says in another way than by labels
    where it applies covers its namespace."""
    _, namespace, name = held.key
    spec = _mapping(_mapping(_plain(held.raw)).get("spec"))
    chosen = spec.get("selector")
    labels = _mapping(chosen).get("matchLabels")
    by_labels = (
        isinstance(chosen, dict) and set(chosen) == {"matchLabels"} and not spec.keys() & {"targetRef", "targetRefs"}
    )
    if labels and by_labels:
        found = _denying_all(namespace, name, {"selector": chosen})
        if found is not None:
            return found
    return _denying_all(namespace, name) or _denying_all(namespace, _STAND_IN)


def _denying_all(namespace: str, name: str, where: Mapping[str, object] = {}) -> Document | None:
    spec = {"action": "DENY", "rules": [{}], **where}
    return _document("security.istio.io/v1", "AuthorizationPolicy", namespace, spec, name)


def _selects_in(document: Document, namespace: str) -> bool:
    """Whether this is a policy that selects workloads of the namespace by their labels."""
    spec = document.spec
    if not isinstance(spec, AuthorizationPolicy) or not spec.selector.match_labels:
        return False
    return document.metadata.namespace in (namespace, ROOT_NAMESPACE)


def _nobodys(held: Held) -> Document | None:
    """The service with what can be read of it, and without anybody to serve it."""
    _, namespace, name = held.key
    spec = _mapping(_mapping(_plain(held.raw)).get("spec"))
    ports = [_only(_mapping(port), _PORT_FIELDS) for port in _items(spec.get("ports"))]
    addresses = [each for each in _items(spec.get("addresses")) if isinstance(each, str)]
    told = {"ports": ports, "exportTo": ["*"], "subjectAltNames": [_NOBODY]}  # who knew it goes on knowing it
    for more in ({"addresses": addresses}, {}):
        found = _document("sidecar/v1", "Service", namespace, told | more, name)
        if found is not None:
            return found
    return None


def _document(version: str, kind: str, namespace: str, spec: object, name: str = _STAND_IN) -> Document | None:
    document, _ = parse(
        {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec}
    )
    return document


def _plain(raw: bytes) -> object:
    try:
        return msgspec.json.decode(raw)
    except (ValueError, RecursionError):
        return None


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _items(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _only(mapping: dict[str, Any], fields: Iterable[str]) -> dict[str, Any]:
    return {field: mapping[field] for field in fields if field in mapping}
