"""How one prompt or answer is sealed: under a key of its own, which is wrapped for the auditor alone.

The text is encrypted with AES-256-GCM under 32 random bytes that are used for nothing else (so its nonce may be zero).
Those are wrapped with HPKE (RFC 9180: base mode, X25519, HKDF-SHA256, AES-256-GCM) for the auditor's public key. What
stands about the record in its heading is bound to both: it is the text's associated data and, but for the digest of
the wrapped key, the `info` of the wrapping. Nothing here has the private key but `unseal`.

A sealed record is `PCS1`, the heading's length (4 bytes, big-endian), the body's (8), the heading in canonical JSON,
the body (the text encrypted, and 16 bytes of tag), and the SHA-256 of all that: the digest that the audit log names.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from serving.audit.canonical import NotCanonical, canonical, parse_canonical

SECRET_BYTES: Final = 32
WRAPPED_BYTES: Final = 80
"""32 of the encapsulated key, 32 of the record's, 16 of tag."""
MAGIC: Final = b"PCS1"
PREFIX: Final = struct.Struct(">4sIQ")
DIGEST_BYTES: Final = 32
TAG_BYTES: Final = 16
MOST_HEADING: Final = 4096
"""Bytes of a heading; ids are bounded where they come in."""
_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_INFO: Final = b"perimeter content 1\n"
_NONCE: Final = bytes(12)
_PIECE: Final = 1 << 18
"""Bytes that are encrypted at a time: the interpreter is held meanwhile."""
Kind = Literal["prompt", "answer"]


class BrokenSeal(ValueError):
    """Not what was sealed, or not with this key."""


@dataclass(frozen=True, slots=True)
class Heading:
    """What can be read of a sealed record without a key, and cannot be changed without that being found."""

    content: str
    """Its id."""
    at: str
    key: str
    """Id of the API key."""
    kind: Kind
    request: str
    to: str
    """Fingerprint of the auditor's key."""
    size: int
    """Bytes of the prompt or the answer."""
    kept: int
    """Bytes of them that are in it, from the beginning."""
    intent: int | None = None
    """Number of the intent's entry in the audit log. A prompt's is not known yet when it is sealed: there the entry
    names the record and its digest."""
    wrapped: str = ""
    """SHA-256 of the wrapped key, in hex."""

    @property
    def is_cut(self) -> bool:
        """It is not whole."""
        return self.kept < self.size


@dataclass(frozen=True, slots=True)
class Sealed:
    """A record as it is kept; `wrapped` apart from the rest."""

    heading: Heading
    raw: bytes
    wrapped: bytes

    @property
    def sha256(self) -> str:
        """What the audit log names, in hex."""
        return self.raw[-DIGEST_BYTES:].hex()


def seal(heading: Heading, text: bytes, secret: bytes, public: X25519PublicKey) -> Sealed:
    """Seal `text` under `secret`, 32 random bytes that are used for this alone."""
    wrapped = _SUITE.encrypt(secret, public, _info(heading))
    heading = replace(heading, wrapped=hashlib.sha256(wrapped).hexdigest())
    told = canonical(asdict(heading))
    encryptor = Cipher(AES(secret), GCM(_NONCE)).encryptor()
    encryptor.authenticate_additional_data(told)
    view = memoryview(text)
    parts = [PREFIX.pack(MAGIC, len(told), len(text) + TAG_BYTES), told]
    parts += [encryptor.update(view[at : at + _PIECE]) for at in range(0, len(text), _PIECE)]
    parts += [encryptor.finalize(), encryptor.tag]
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(part)
    return Sealed(heading, b"".join([*parts, hasher.digest()]), wrapped)


def unseal(raw: bytes, wrapped: bytes, private: X25519PrivateKey) -> tuple[Heading, bytes]:
    """The heading and the text of a record. Raises BrokenSeal for anything but what was sealed for this key."""
    if len(raw) < PREFIX.size + DIGEST_BYTES:
        raise BrokenSeal("the record is too short")
    magic, heading_bytes, body_bytes = PREFIX.unpack_from(raw)
    begin = PREFIX.size + heading_bytes
    if magic != MAGIC or begin + body_bytes + DIGEST_BYTES != len(raw) or body_bytes < TAG_BYTES:
        raise BrokenSeal("the record has not the form of one")
    if hashlib.sha256(raw[:-DIGEST_BYTES]).digest() != raw[-DIGEST_BYTES:]:
        raise BrokenSeal("the record was changed: its digest is another")
    heading = heading_of(raw[PREFIX.size : begin])
    if hashlib.sha256(wrapped).hexdigest() != heading.wrapped:
        raise BrokenSeal("the wrapped key is not the record's")
    tag_at = begin + body_bytes - TAG_BYTES
    try:
        secret = _SUITE.decrypt(wrapped, private, _info(heading))
        decryptor = Cipher(AES(secret), GCM(_NONCE, raw[tag_at : tag_at + TAG_BYTES])).decryptor()
        decryptor.authenticate_additional_data(raw[PREFIX.size : begin])
        text = decryptor.update(memoryview(raw)[begin:tag_at]) + decryptor.finalize()
    except InvalidTag:
        raise BrokenSeal("the record does not open with this key: it was changed, or sealed for another") from None
    if len(text) != heading.kept:
        raise BrokenSeal("the record is not as long as its heading says")
    return heading, text


def heading_of(told: bytes) -> Heading:
    """The heading in these bytes. Raises BrokenSeal."""
    try:
        heading = Heading(**parse_canonical(told))
    except (NotCanonical, TypeError):
        raise BrokenSeal("the record has no heading") from None
    if not all(_is_right(name, value) for name, value in asdict(heading).items()):
        raise BrokenSeal("the record's heading has another form")
    return heading


def _is_right(name: str, value: Any) -> bool:
    if name in ("size", "kept"):
        return type(value) is int and value >= 0
    if name == "intent":
        return value is None or type(value) is int
    return type(value) is str and (name != "kind" or value in ("prompt", "answer"))


def _info(heading: Heading) -> bytes:
    return _INFO + canonical(asdict(replace(heading, wrapped="")))
