"""The call that describes all calls. It says the same to everybody, and shows nothing of the mesh."""

from __future__ import annotations

import hashlib

import msgspec

from control.middleware import CallRequest, CallResponse


class OpenApi:
    """Made when it is first asked for: nobody else needs the schemas."""

    def __init__(self) -> None:
        self._body = b""
        self._tag = ""

    async def openapi_get(self, asked: CallRequest) -> CallResponse:
        """OpenAPI 3.1."""
        if not self._body:
            from control.openapi.document import document

            self._body = msgspec.json.encode(document())
            self._tag = hashlib.sha256(self._body).hexdigest()[:16]
        return CallResponse(body=self._body, etag=self._tag)
