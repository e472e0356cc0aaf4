"""The operator's own token: a file, made at the first start, that whoever runs the control plane uses to begin.

Who calls it: the composition root at each start, and ``control.api`` when the root changes. The file is the token: as
long as it is there and good it stays as it is. Where it is missing, or its token is not good any more, another one is
made, and the one before is void; so an operator who lost it deletes the file and starts again. When the root changes
the same secret is written with other pins.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

import trio

from certs.jointoken import JoinToken, parse
from control.problems import Refused
from control.routes import Role
from control.secret_files import read_private, replace_file
from control.token_store import TokenStore
from sidecar.errors import StartError

NAME: Final = "operator-token"
BY: Final = "first start"
SECONDS: Final = 365 * 86400.0
RENEW_SECONDS: Final = 30 * 86400.0  # with less left than this another one is made at the next start
_BYTES: Final = 8192
_log = logging.getLogger(__name__)


class OperatorToken:
    """The token in the file ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.token_id = ""
        self.made = False  # by this start

    async def keep(self, tokens: TokenStore, pins: tuple[bytes, ...], now: float) -> None:
        """Sees to it that the file holds a good token with these pins. StartError where the file can't be used."""
        shown = await trio.to_thread.run_sync(self._read)
        held = None
        if shown is not None:
            try:
                held = await tokens.check(str(shown), now)
            except Refused:
                held = None
        if shown is None or held is None or held.role is not Role.OPERATOR or held.token.expires - now < RENEW_SECONDS:
            await self._make(tokens, pins, now)
            return
        self.token_id = held.token.id
        if shown.pins != pins:
            await tokens.repin(held.token, pins)
            await self._write(str(JoinToken(shown.id, shown.secret, pins, shown.control_id)))
            _log.info("the operator's token in %s names the new root", self.path)

    async def _make(self, tokens: TokenStore, pins: tuple[bytes, ...], now: float) -> None:
        before = [token for token in await tokens.live(now) if token.created_by == BY]
        token, text = await tokens.create(Role.OPERATOR, pins, BY, now, SECONDS)
        await self._write(text)
        for old in before:
            await tokens.void(old.id)
        self.token_id = token.id
        self.made = True
        _log.info("the operator's token is in %s", self.path)

    async def _write(self, text: str) -> None:
        try:
            await trio.to_thread.run_sync(replace_file, self.path, text.encode() + b"\n")
        except OSError as error:
            raise StartError(f"--ca-dir: {self.path} can't be written ({error.strerror})") from None

    def _read(self) -> JoinToken | None:
        data = read_private(self.path, "--ca-dir", _BYTES)
        if data is None:
            return None
        try:
            return parse(data.decode("ascii").strip())
        except ValueError:
            raise StartError(
                f"--ca-dir: {self.path} does not hold a token; put it back, or delete the file for a new one"
            ) from None
