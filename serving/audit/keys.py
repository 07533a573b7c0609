"""The two keys of an audit log: one signs checkpoints, one makes fingerprints. Each is a file for one user alone."""

from __future__ import annotations

import hmac
import os
import secrets
import stat
from pathlib import Path
from typing import Final, Literal

from serving.audit.chain import Signer
from serving.errors import BadFile, FileMissing, Untrusted, UsageError
from serving.keyfiles import Publisher, fingerprint_of, load_private, load_public, make_pair
from serving.store.files import write_whole

_BYTES: Final = 32
Part = Literal["prompt", "answer"]


class Fingerprints:
    """Keyed fingerprints (HMAC-SHA-256). Without the key nobody can try out which text one belongs to."""

    def __init__(self, key: bytes) -> None:
        self._keys = {part: hmac.digest(key, part.encode(), "sha256") for part in ("prompt", "answer", "id")}
        self._begun = {part: hmac.new(key, digestmod="sha256") for part, key in self._keys.items()}
        """Copied for each: half of the time of beginning anew."""
        self.id = self._keys["id"].hex()[:16]
        """Tells keys apart, and tells nothing of them."""

    def of(self, part: Part, content: bytes) -> str:
        """The fingerprint of a prompt or an answer, 64 hex digits. A prompt's is never an answer's."""
        begun = self._begun[part].copy()
        begun.update(content)
        return begun.hexdigest()

    def begin(self, part: Part) -> hmac.HMAC:
        """For what comes in pieces: `update` with each, `hexdigest` is what `of` gives for all of them together."""
        return self._begun[part].copy()


def load_signer(path: Path) -> Signer:
    """The key that signs checkpoints. Raises FileMissing, BadFile, Untrusted."""
    key = load_private(path)
    public = Publisher(path.name, fingerprint_of(key.public_key()), key.public_key())
    return Signer(key.sign, public.fingerprint, public.has_signed)


def load_verifier(path: Path) -> Publisher:
    """The public half. Raises FileMissing, BadFile."""
    return load_public(path, path.name)


def load_fingerprints(path: Path) -> Fingerprints:
    """The key for fingerprints. Raises FileMissing, BadFile, Untrusted where others may read it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise FileMissing(f"`{path}` does not exist", hint="`serve audit keygen` makes the keys") from None
    except OSError as error:
        raise BadFile(f"`{path}` cannot be read: {error.strerror}") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BadFile(f"`{path}` is no file", hint="`serve audit keygen` makes the keys")
        if status.st_mode & 0o077 or status.st_uid not in (0, os.geteuid()):
            message = f"others may read the fingerprint key `{path}` (mode {stat.S_IMODE(status.st_mode):o})"
            raise Untrusted(message, hint=f"chmod 600 {path}; who had it can try out texts against fingerprints")
        text = os.read(descriptor, 4 * _BYTES).strip()
    finally:
        os.close(descriptor)
    try:
        key = bytes.fromhex(text.decode())
    except ValueError:
        key = b""
    if len(key) != _BYTES:
        raise BadFile(f"`{path}` is no fingerprint key", hint="it holds 64 hex digits; `serve audit keygen` makes one")
    return Fingerprints(key)


def make_keys(signing: Path, fingerprint: Path) -> Publisher:
    """Make both keys, mode 0600, and `signing`.pub for those who verify. Raises UsageError where one is there."""
    if os.path.lexists(fingerprint):
        raise UsageError(f"`{fingerprint}` is there already", hint="a key is never overwritten: name another file")
    for each in (signing, fingerprint):
        try:
            each.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"`{each.parent}` cannot be made: {error.strerror}") from None
    public = make_pair(signing)
    write_whole(fingerprint, secrets.token_hex(_BYTES).encode() + b"\n", 0o600)
    return public
