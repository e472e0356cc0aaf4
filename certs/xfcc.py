"""The x-forwarded-client-cert element that tells the app who called: Envoy's form, made by us alone.

The subject is the one part that a foreign authority may fill as it likes. Envoy quotes it and leaves RFC 4514's own
backslashes in, on which readers differ (is the quote in ``"a\\\\"`` the end?). So backslashes and quotes are written
as RFC 4514's hex pairs: no quote inside, none behind a backslash, and every reader finds the same end.

Source: Envoy, HTTP header manipulation, x-forwarded-client-cert; RFC 4514 section 2.4.
"""

from __future__ import annotations

import re
from typing import Final

from certs.spiffe import SpiffeId

HEADER: Final = b"x-forwarded-client-cert"
SUBJECT_CHARS: Final = 1024  # of it, as it is written; a longer one is left out, Hash and URI say who it is

_PAIR: Final = re.compile(r'\\([\\"])|(\\(?![0-9A-Fa-f]{2}|[ #+,;<=>])|["\x00-\x1f\x7f-\U0010ffff])')


def element(by: SpiffeId, fingerprint: str, subject: str, uri: SpiffeId) -> str:
    """``By=...;Hash=...;Subject="...";URI=...`` in ASCII: ``by`` is who serves, the rest is the peer's.

    ``fingerprint`` is the leaf's SHA-256 in hex; ``subject`` RFC 4514 text, whatever the peer's authority let it say:
    it can't leave its quotes, nor its line.
    """
    written = _PAIR.sub(_as_hex, subject)
    if len(written) > SUBJECT_CHARS:
        written = ""
    return f'By={by};Hash={fingerprint};Subject="{written}";URI={uri}'


def _as_hex(match: re.Match[str]) -> str:
    text = match[1] or match[2]
    return "".join(f"\\{byte:02X}" for byte in text.encode("utf-8", "surrogateescape"))
