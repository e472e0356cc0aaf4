"""The table of calls: which there are, and which roles may make them. Pure.

Who reads it: ``control.app`` builds the router from it, so that a call without a row can't exist; the tests walk it
with every role. What is not listed is denied.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from control import rate_limits


class Role(Enum):
    """What a caller is, which says all that it may do. A caller has one."""

    WORKLOAD = "workload"
    OPERATOR = "operator"
    READER = "reader"


ANYONE: Final[frozenset[Role]] = frozenset(Role)
_WORKLOAD: Final = frozenset({Role.WORKLOAD})
_OPERATOR: Final = frozenset({Role.OPERATOR})
_READER: Final = frozenset({Role.OPERATOR, Role.READER})


@dataclass(frozen=True, slots=True)
class Call:
    """One call. ``roles`` None: open to whoever reaches the port, known or not; it shows nothing of the mesh.

    ``changes``: a line in the audit log for each that was granted, too. ``waits``: it may take up to a minute.
    ``body``: how many bytes it takes. ``crowd``: hundreds of replicas make it at once, all under one name: it stands in
    line for its turn, and is counted by what its path names.
    """

    name: str
    method: str
    path: str
    roles: frozenset[Role] | None
    does: str
    changes: bool = False
    waits: bool = False
    body: int = rate_limits.BODY_BYTES
    crowd: bool = False


CALLS: Final = (
    Call("certificates.issue", "POST", "/v1/certificates", _WORKLOAD, "a certificate for the caller", changes=True),
    Call("bundle.get", "GET", "/v1/bundle", ANYONE, "the roots that are trusted", waits=True),
    Call("crl.get", "GET", "/v1/crl", ANYONE, "what has been taken back", waits=True),
    Call("revocations.list", "GET", "/v1/revocations", _OPERATOR, "who and what is revoked"),
    Call("revocations.add", "POST", "/v1/revocations", _OPERATOR, "revoke a certificate or an identity", changes=True),
    Call("revocations.lift", "DELETE", "/v1/revocations/{id}", _OPERATOR, "issue again for an identity", changes=True),
    Call("ca.rotate", "POST", "/v1/ca:rotate", _OPERATOR, "replace the root", changes=True),
    Call("ca.get", "GET", "/v1/ca", _OPERATOR, "the authority's roots and how far a rotation is"),
    Call("tokens.create", "POST", "/v1/tokens", _OPERATOR, "make a token; its text is shown once", changes=True),
    Call("tokens.list", "GET", "/v1/tokens", _OPERATOR, "the tokens that are good, without their secrets"),
    Call("tokens.delete", "DELETE", "/v1/tokens/{id}", _OPERATOR, "make a token void", changes=True),
    Call("resources.list", "GET", "/v1/resources", _READER, "documents, page by page"),
    Call("resources.of", "GET", "/v1/resources/{kind}/{namespace}", _READER, "those of a kind in a namespace"),
    Call("resources.get", "GET", "/v1/resources/{kind}/{namespace}/{name}", _READER, "one document"),
    Call("resources.history", "GET", "/v1/resources/{kind}/{namespace}/{name}/history", _READER,
         "what it was, who changed it and when"),
    Call("resources.put", "PUT", "/v1/resources/{kind}/{namespace}/{name}", _OPERATOR, "write a document",
         changes=True, body=rate_limits.DOCUMENT_BODY_BYTES),
    Call("resources.delete", "DELETE", "/v1/resources/{kind}/{namespace}/{name}", _OPERATOR, "take a document away",
         changes=True),
    Call("resources.apply", "POST", "/v1/resources:apply", _OPERATOR, "write several documents, all or none",
         changes=True, body=rate_limits.APPLY_BODY_BYTES),
    Call("resources.check", "POST", "/v1/resources:check", _OPERATOR, "what an apply would say",
         body=rate_limits.APPLY_BODY_BYTES),
    Call("resources.rollback", "POST", "/v1/resources:rollback", _OPERATOR, "write what a document was", changes=True),
    Call("services.put", "PUT", "/v1/services/{namespace}/{name}", _OPERATOR, "write the document of a service",
         changes=True, body=rate_limits.DOCUMENT_BODY_BYTES),
    Call("services.delete", "DELETE", "/v1/services/{namespace}/{name}", _OPERATOR,
         "take the document of a service away", changes=True),
    Call("backup.get", "GET", "/v1/backup", _OPERATOR, "a copy of the whole store", changes=True),
    Call("services.list", "GET", "/v1/services", _READER, "services, and who serves them"),
    Call("services.get", "GET", "/v1/services/{namespace}/{name}", _READER, "one service, and who serves it"),
    Call("endpoints.put", "PUT", "/v1/services/{namespace}/{name}/endpoints/{id}", _WORKLOAD, "register an endpoint",
         changes=True, body=rate_limits.ENDPOINT_BODY_BYTES, crowd=True),
    Call("endpoints.heartbeat", "POST", "/v1/services/{namespace}/{name}/endpoints/{id}/heartbeat", _WORKLOAD,
         "say that it is there, and how well", body=rate_limits.ENDPOINT_BODY_BYTES, crowd=True),
    Call("endpoints.delete", "DELETE", "/v1/services/{namespace}/{name}/endpoints/{id}", _WORKLOAD,
         "take an endpoint back", changes=True, crowd=True),
    Call("snapshot.get", "GET", "/v1/snapshot", _WORKLOAD, "what the caller is to obey", waits=True),
    Call("snapshot.status", "POST", "/v1/snapshot/status", _WORKLOAD, "whether the caller took it, and why not",
         crowd=True),
    Call("proxies.list", "GET", "/v1/proxies", _READER, "what each proxy holds, refused, and when it was heard"),
    Call("openapi.get", "GET", "/openapi.json", None, "all of this, as OpenAPI 3.1"),
    Call("healthz", "GET", "/healthz", None, "the process serves"),
    Call("readyz", "GET", "/readyz", None, "certificates can be had"),
    Call("metrics", "GET", "/metrics", None, "figures for Prometheus"),
)  # fmt: skip
