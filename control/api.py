"""The calls themselves: one method per row of ``control.routes``, named after it.

Who calls it: ``control.middleware``, when the caller is known, may make the call, and has sent a body that is not too
long. A workload gets what is its own by who it is; nothing that it sends names it. Operators are told what was wrong
with what they sent; workloads are told nothing of why they get no certificate.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from starlette.requests import Request

from certs import facts, spiffe
from certs.errors import IdentityError
from control import ca_rotation, long_poll, metrics, pagination, schemas
from control.ca_rotation import Generation
from control.certificate_authority import Authority
from control.issued_certificates import Ledger, Revocation
from control.middleware import CallRequest, CallResponse
from control.operator_token import OperatorToken
from control.problems import Invalid, Refused
from control.registry import address_check
from control.routes import Role
from control.schemas import moment
from control.token_store import Token, TokenStore
from control.version import Version
from control.watchable import Waiters, Watchable

LONGEST_DEADLINE: Final = 30 * 86400.0
_SERIAL: Final = re.compile(r"[0-9a-fA-F]{1,40}", re.ASCII)
_T = TypeVar("_T")


class Api:
    """All calls. Each method takes what was asked and returns the answer, or raises Refused or Invalid."""

    def __init__(
        self,
        authority: Authority,
        tokens: TokenStore,
        ledger: Ledger,
        waiters: Waiters,
        shown: metrics.Figures,
        clock: Callable[[], float],
        operator: OperatorToken,
    ) -> None:
        self._authority = authority
        self._tokens = tokens
        self._ledger = ledger
        self._waiters = waiters
        self._figures = shown
        self._clock = clock
        self._operator = operator

    # -- for everyone ------------------------------------------------------------------------------------------------

    async def healthz(self, asked: CallRequest) -> CallResponse:
        """The process serves."""
        return CallResponse(body=b"ok\n", content_type="text/plain")

    async def readyz(self, asked: CallRequest) -> CallResponse:
        """Certificates can be had: the authority is good, and what is issued can be written down."""
        await self._ledger.ping()
        if self._authority.issuer.not_after <= self._clock():
            raise Refused(503, "the authority has expired")
        return CallResponse(body=b"ok\n", content_type="text/plain")

    async def metrics(self, asked: CallRequest) -> CallResponse:
        """Figures."""
        return CallResponse(body=self._figures.render(), content_type=metrics.CONTENT_TYPE)

    # -- certificates and trust --------------------------------------------------------------------------------------

    async def certificates_issue(self, asked: CallRequest) -> CallResponse:
        """A certificate for the caller's own identity."""
        csr = schemas.read(asked.body, schemas.CertificateRequest).csr
        identity = asked.who.identity
        assert identity is not None  # the table lets only workloads in, and they have one
        key = self._authority.read(csr, identity)
        if asked.who.held is not None:
            await self._tokens.spend(asked.who.held)  # before it is issued: a second caller must lose
        shown = "" if asked.who.key == asked.who.name else asked.who.key  # a token is not used up by a certificate
        granted = await self._authority.issue(identity, key, shown)
        certificate = schemas.Certificate(
            granted.chain, granted.roots, str(granted.bundle_version), moment(granted.expires)
        )
        return CallResponse(201, certificate, f"{identity} serial {granted.serial}")

    async def bundle_get(self, asked: CallRequest) -> CallResponse:
        """The roots; with ``version``, once there are others than in that."""
        version = long_poll.version_of(asked.request)
        if version is not None and asked.who.role is Role.WORKLOAD and asked.who.identity is not None:
            by_certificate = asked.who.key != asked.who.name
            self._authority.confirm(asked.who.key, asked.who.identity, version, by_certificate=by_certificate)
        if not await self._newer(asked, self._authority.bundle, version):
            return CallResponse(304)
        held = self._authority.bundle
        return CallResponse(body=schemas.Bundle(self._authority.control_id.trust_domain, str(held.version), held.value))

    async def crl_get(self, asked: CallRequest) -> CallResponse:
        """The lists of what was taken back; with ``version``, once there are others than in that."""
        if not await self._newer(asked, self._authority.lists, long_poll.version_of(asked.request)):
            return CallResponse(304)
        held = self._authority.lists
        return CallResponse(
            body=schemas.Lists(str(held.version), [schemas.List(one.crl, one.chain) for one in held.value])
        )

    async def _newer(self, asked: CallRequest, published: Watchable[_T], version: Version | None) -> bool:
        """Waits for another version, as long as the caller says and stays."""
        held = () if version is None else (version,)
        return await long_poll.wait_other_than(held, published, self._waiters, asked.request, asked.who.name)

    # -- revocations -------------------------------------------------------------------------------------------------

    async def revocations_list(self, asked: CallRequest) -> CallResponse:
        """A page of what is revoked."""
        found, more = _page(self._ledger.revocations(), lambda entry: (entry.at, entry.id), asked.request)
        return CallResponse(body=schemas.RevocationList([_revocation(entry) for entry in found], more))

    async def revocations_add(self, asked: CallRequest) -> CallResponse:
        """Revokes a certificate by its number, or an identity."""
        wanted = schemas.read(asked.body, schemas.RevocationRequest)
        if bool(wanted.serial) == bool(wanted.spiffe_id):
            raise Invalid("name either a serial or a spiffeId")
        if wanted.serial:
            serial = wanted.serial.replace(":", "")
            if not _SERIAL.fullmatch(serial) or not int(serial, 16):
                raise Invalid("serial: write the certificate's serial number in hexadecimal")
            entry = await self._authority.revoke_serial(f"{int(serial, 16):x}", asked.who.name)
        else:
            try:
                identity = spiffe.parse(wanted.spiffe_id)
            except IdentityError as error:
                raise Invalid(f"spiffeId: {error.detail}") from None
            if identity.workload() is None or identity.trust_domain != self._authority.control_id.trust_domain:
                raise Invalid("spiffeId: it is not that of a workload of this trust domain")
            entry = await self._authority.revoke_identity(identity, asked.who.name)
        return CallResponse(201, _revocation(entry), entry.identity or f"serial {entry.serial}")

    async def revocations_lift(self, asked: CallRequest) -> CallResponse:
        """Issues for an identity again."""
        entry = await self._authority.lift(asked.request.path_params["id"])
        if entry is None:
            raise Invalid("nothing is revoked under this id", 404)
        return CallResponse(204, subject=entry.identity)

    # -- the authority -----------------------------------------------------------------------------------------------

    async def ca_get(self, asked: CallRequest) -> CallResponse:
        """The roots, and how far a rotation is."""
        return CallResponse(body=self._ca())

    async def ca_rotate(self, asked: CallRequest) -> CallResponse:
        """Begins to replace the root. Tokens that only the old one answers for are void then, which wants a yes."""
        wanted = schemas.read(asked.body or b"{}", schemas.RotationRequest)
        deadline = schemas.seconds(wanted.deadline, "deadline")
        if deadline > LONGEST_DEADLINE:
            raise Invalid(f"deadline: at most {LONGEST_DEADLINE / 86400:g} days")
        pinned = [one for one in await self._tokens.live(self._clock()) if one.id != self._operator.token_id]
        if pinned and not wanted.void_tokens:
            raise Invalid(
                "these tokens name the root that is to be replaced, and would be void; say voidTokens: true to go on",
                409,
                {"tokens": [_token(token) for token in pinned]},
            )
        fresh = await self._authority.rotate(deadline)
        for token in pinned:
            await self._tokens.void(token.id)
        await self._operator.keep(self._tokens, self._authority.pins(), self._clock())
        return CallResponse(202, self._ca(), f"root {fresh.id}, {len(pinned)} tokens void")

    def _ca(self) -> schemas.Ca:
        authority = self._authority
        waits = ca_rotation.coming(authority.generations) is not None
        return schemas.Ca(
            authority.control_id.trust_domain,
            str(authority.bundle.version),
            [_root(one) for one in authority.generations],
            authority.unconfirmed() if waits else [],
        )

    # -- tokens ------------------------------------------------------------------------------------------------------

    async def tokens_create(self, asked: CallRequest) -> CallResponse:
        """A new token. Its text is in this answer, and nowhere else."""
        wanted = schemas.read(asked.body, schemas.TokenRequest)
        roles = {role.value: role for role in Role}
        if wanted.role not in roles:
            raise Invalid(f"role: one of {', '.join(roles)}")
        try:
            token, text = await self._tokens.create(
                roles[wanted.role],
                self._authority.pins(),
                asked.who.name,
                self._clock(),
                schemas.seconds(wanted.ttl, "ttl"),
                bound_to=(wanted.namespace, wanted.service_account),
                single_use=wanted.single_use,
                addresses=address_check.networks(wanted.addresses),
            )
        except IdentityError as error:
            raise Invalid(error.detail) from None
        return CallResponse(201, _token(token, text), f"token:{token.id}")

    async def tokens_list(self, asked: CallRequest) -> CallResponse:
        """A page of those that are good."""
        live = await self._tokens.live(self._clock())
        found, more = _page(live, lambda token: (token.created, token.id), asked.request)
        return CallResponse(body=schemas.TokenList([_token(token) for token in found], more))

    async def tokens_delete(self, asked: CallRequest) -> CallResponse:
        """Makes one void, from the next call on."""
        token_id = asked.request.path_params["id"]
        if not await self._tokens.void(token_id):
            raise Invalid("there is no token with this id", 404)
        return CallResponse(204, subject=f"token:{token_id}")


def _page(items: Iterable[_T], since: Callable[[_T], tuple[float, str]], request: Request) -> tuple[list[_T], str]:
    """A page of what has a time and an id, the oldest first, and how to go on."""
    wanted = pagination.Wanted.read(request.query_params)
    found, last = pagination.page(items, lambda item: "{:017.6f} {}".format(*since(item)), wanted)
    return found, str(pagination.Mark(last)) if last else ""


def _revocation(entry: Revocation) -> schemas.RevocationShown:
    return schemas.RevocationShown(entry.id, moment(entry.at), entry.by, entry.serial, entry.identity)


def _root(one: Generation) -> schemas.RootShown:
    until = moment(one.until) if one.until else ""
    pin = facts.key_id_of(one.issuer.root).hex()
    return schemas.RootShown(one.id, one.phase.value, moment(one.since), moment(one.issuer.not_after), pin, until)


def _token(token: Token, text: str = "") -> schemas.TokenShown:
    return schemas.TokenShown(
        id=token.id,
        role=token.role,
        created=moment(token.created),
        created_by=token.created_by,
        expires=moment(token.expires),
        namespace=token.namespace,
        service_account=token.service_account,
        single_use=token.single_use,
        addresses=token.addresses,
        token=text,
    )
