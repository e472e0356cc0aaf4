"""What each call takes and gives: the second half of the table of calls. Pure.

Who reads it: ``document``. A test holds that every call is here, and another that the API does as it says.
"""

from __future__ import annotations

from typing import Final

from control import schemas
from control.distribution.schemas import ProxiesShown, Status
from control.documents import schemas as documents
from control.openapi.components import (
    CONTINUE,
    HELD,
    IF_MATCH,
    IF_NONE_MATCH,
    INSTANCE,
    LIMIT,
    NAMESPACE,
    PROCESS,
    SCHEMA,
    SEEN,
    TEXT,
    WAIT,
    Described,
    Parameter,
)
from control.registry.registration import Heartbeat, Registration
from control.registry.views import RegisteredShown, ServiceList, ServiceShown
from sidecar.resources.proxy_config import ProxyConfig

DOCUMENT: Final = "Document"
DOCUMENTS: Final = "Documents"
_PAGES: Final = (LIMIT, CONTINUE)
_LABEL: Final = Parameter(
    "label", "only those with this label: `KEY=VALUE`", {"type": "string", "pattern": "^[^=]+="}, many=True
)
_KIND: Final = Parameter("kind", "only those of this kind", TEXT)
_DRY_RUN: Final = Parameter("dryRun", "only say what would be", {"type": "boolean"})
_WRITE: Final = (IF_MATCH, IF_NONE_MATCH)
_SPEC: Final = {"ports": [{"port": 80, "name": "http"}], "serviceAccounts": ["web"]}
_WEB: Final = {
    "apiVersion": "sidecar/v1",
    "kind": "Service",
    "metadata": {"name": "web", "namespace": "shop"},
    "spec": _SPEC,
}
_CSR: Final = {"csr": "(PEM)"}
_OLD: Final = {"kind": "Service", "namespace": "shop", "name": "web", "generation": 1}
_WORKLOAD: Final = {"namespace": "shop", "serviceAccount": "web", "ttl": "1h"}

DESCRIBED: Final[dict[str, Described]] = {
    "certificates.issue": Described({201: schemas.Certificate}, body=schemas.CertificateRequest, example=_CSR),
    "bundle.get": Described({200: schemas.Bundle, 304: None}, (HELD, WAIT)),
    "crl.get": Described({200: schemas.Lists, 304: None}, (HELD, WAIT)),
    "revocations.list": Described({200: schemas.RevocationList}, _PAGES),
    "revocations.add": Described(
        {201: schemas.RevocationShown}, body=schemas.RevocationRequest, example={"serial": "1f"}
    ),
    "revocations.lift": Described({204: None}, problems=(409,)),
    "ca.rotate": Described(
        {202: schemas.Ca}, body=schemas.RotationRequest, optional=True, problems=(409,), example={"deadline": "1h"}
    ),
    "ca.get": Described({200: schemas.Ca}),
    "tokens.create": Described(
        {201: schemas.TokenShown}, body=schemas.TokenRequest, problems=(409,), example=_WORKLOAD
    ),
    "tokens.list": Described({200: schemas.TokenList}, _PAGES),
    "tokens.delete": Described({204: None}),
    "resources.list": Described(
        {200: documents.DocumentList}, (_KIND, NAMESPACE, _LABEL, *_PAGES), problems=(410,)
    ),
    "resources.of": Described({200: documents.DocumentList}, (_LABEL, *_PAGES), problems=(410,)),
    "resources.get": Described({200: documents.DocumentShown, 304: None}, (SEEN,), etag=True),
    "resources.history": Described({200: documents.History}, _PAGES),
    "resources.put": Described(
        {200: documents.Applied, 201: documents.Applied}, _WRITE, DOCUMENT, yaml=True, problems=(409, 412, 415, 422),
        etag=True, example=_WEB,
    ),
    "resources.delete": Described({200: documents.Applied}, (IF_MATCH,), problems=(409, 412, 422)),
    "resources.apply": Described(
        {200: documents.ApplyResult}, (_DRY_RUN,), DOCUMENTS, yaml=True, problems=(409, 415, 422), example=_WEB
    ),
    "resources.check": Described(
        {200: documents.CheckResult}, (), DOCUMENTS, yaml=True, problems=(409, 415), example=_WEB
    ),
    "resources.rollback": Described(
        {200: documents.Applied, 201: documents.Applied}, _WRITE, documents.RollbackRequest,
        problems=(404, 409, 412, 422), etag=True, example=_OLD,
    ),
    "services.put": Described(
        {200: documents.Applied, 201: documents.Applied}, _WRITE, documents.ServiceRequest, problems=(409, 412, 422),
        etag=True, example=_SPEC,
    ),
    "services.delete": Described({200: documents.Applied}, (IF_MATCH,), problems=(409, 412, 422)),
    "services.list": Described({200: ServiceList}, (NAMESPACE, *_PAGES)),
    "services.get": Described({200: ServiceShown}),
    "endpoints.put": Described({200: RegisteredShown}, body=Registration, problems=(409,), example={"port": 8080}),
    "endpoints.heartbeat": Described(
        {204: None}, body=Heartbeat, optional=True, problems=(409,), example={"healthy": True}
    ),
    "endpoints.delete": Described({204: None}, (PROCESS,), problems=(409,)),
    "snapshot.get": Described(
        {200: ProxyConfig, 304: None}, (HELD, WAIT, INSTANCE, SCHEMA, SEEN), etag=True, problems=(413,)
    ),
    "snapshot.status": Described(
        {204: None}, (INSTANCE,), Status, example={"version": "1777777777777.12", "accepted": True}
    ),
    "proxies.list": Described({200: ProxiesShown}, (NAMESPACE, *_PAGES)),
    "backup.get": Described({200: None}, media="application/vnd.sqlite3"),
    "openapi.get": Described({200: dict}),
    "healthz": Described({200: str}, media="text/plain"),
    "readyz": Described({200: str}, media="text/plain"),
    "metrics": Described({200: str}, media="text/plain"),
}  # fmt: skip
