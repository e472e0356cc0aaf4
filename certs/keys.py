"""Keys and serial numbers: the only place where certificates meet chance.

A key or a serial number that can be foretold is worth nothing, so these two come from OpenSSL's generator and can't be
given by a caller; all else in this package is a function of its arguments. A private key has a text form for the two
places that may keep one (the authority's own directory, and an identity directory on tmpfs); nothing here writes it.
"""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from certs.errors import IdentityError, Refusal

PrivateKey = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey

KEY_BYTES: Final = 16 * 1024  # of a key's PEM file
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1)


def new_key() -> PrivateKey:
    """A new P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def new_serial() -> int:
    """A serial number of 159 random bits, positive (RFC 5280 section 4.1.2.2; CA/B asks for 64)."""
    return x509.random_serial_number()


def key_to_pem(key: PrivateKey) -> bytes:
    """PKCS #8, not encrypted. Whoever writes it: mode 0600, and where design and docs allow it alone."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def key_from_pem(pem: bytes) -> PrivateKey:
    """The private key in the text: P-256 or P-384, PKCS #8 or SEC 1, not encrypted. Raises IdentityError(BAD_KEY)."""
    if len(pem) > KEY_BYTES:
        raise IdentityError(Refusal.BAD_KEY, f"a private key of more than {KEY_BYTES} bytes")
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError:
        raise IdentityError(Refusal.BAD_KEY, "the private key is encrypted; give it without a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise IdentityError(Refusal.BAD_KEY, "no PEM private key that can be read") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, _CURVES):
        raise IdentityError(Refusal.BAD_KEY, "the private key is neither P-256 nor P-384")
    return key


def check_public_key(key: object) -> PublicKey:
    """The key, if a leaf may have it: P-256 or P-384. Raises IdentityError(BAD_KEY)."""
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, _CURVES):
        raise IdentityError(Refusal.BAD_KEY, "the key is neither P-256 nor P-384")
    return key
