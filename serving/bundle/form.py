"""The outer form of a bundle: a tar of which every byte that is not content follows from the manifest.

    MANIFEST.json    what is in it (`serving.bundle.manifest`)
    MANIFEST.sig     the publisher's signature of it, 64 bytes; none where it is not signed
    …                the members that the manifest names, in its order
    two blocks of zeros, and the end

A header has nothing in it beside a member's name and size. So the reader decodes none: it makes the header that must
stand there and compares. A link, a device, another owner, a name that leads elsewhere, a member too many: whatever it
is, it is not those bytes. Sizes from 8 GiB on are written in base 256, as GNU tar and Python do (POSIX's field ends
there).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from serving.errors import BadFile, Unverified

MANIFEST: Final = "MANIFEST.json"
SIGNATURE: Final = "MANIFEST.sig"
SIGNATURE_BYTES: Final = 64
MAX_MANIFEST: Final = 32 << 20
BLOCK: Final = 512
END: Final = bytes(2 * BLOCK)
CHUNK: Final = 4 << 20
_MTIME: Final = 315532800
"""1980-01-01: tar calls a time of 0 implausible."""
_MOST_OCTAL: Final = (1 << 33) - 1
_PART: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:+-]*")
_KINDS: Final = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"5": "a directory",
    b"6": "a pipe",
    b"x": "a PAX header",
    b"g": "a PAX header for all",
    b"L": "a GNU long name",
    b"K": "a GNU long link",
    b"S": "a sparse file",
}


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a bundle."""

    name: str
    size: int
    """Bytes."""
    sha256: str


class CutOff(Exception):
    """The bundle ends before its end: a copy that broke off, a disk that was taken out."""


def refuse_name(name: str) -> str | None:
    """Why no member of a bundle may have that name; None if one may."""
    if not all(_PART.fullmatch(part) for part in name.split("/")):
        return "it leads elsewhere, or has characters beyond letters, digits and `._:+-`"
    if _split(name) is None:
        return "it is longer than a tar's header has room for: 100 characters, and 155 for the directories before"
    return None


def header(name: str, size: int) -> bytes:
    """The 512 bytes before a member's content. Raises ValueError for a name that has no place in them."""
    parts = _split(name)
    if parts is None:
        raise ValueError(name)
    prefix, last = parts
    octal = size <= _MOST_OCTAL
    fields = (
        last.encode("ascii").ljust(100, b"\0"),
        b"0000644\0" + b"0000000\0" * 2,
        b"%011o\0" % size if octal else b"\x80" + size.to_bytes(11, "big"),
        b"%011o\0" % _MTIME,
        b" " * 8,
        b"0" + bytes(100) + b"ustar\x0000" + bytes(64) + b"0000000\0" * 2,
        prefix.encode("ascii").ljust(155, b"\0"),
    )
    block = b"".join(fields).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def padding(size: int) -> bytes:
    """The zeros that fill a member's last block."""
    return bytes(-size % BLOCK)


def size_of(manifest_bytes: int, signature_bytes: int, members: tuple[Member, ...]) -> int:
    """Bytes of a whole bundle."""
    sizes = (manifest_bytes, signature_bytes, *(member.size for member in members))
    return sum(BLOCK + size + -size % BLOCK for size in sizes) + len(END)


class Source:
    """A bundle that is read once, from its beginning to its end; what it comes from need not be seekable."""

    def __init__(self, descriptor: int, name: str) -> None:
        self._descriptor = descriptor
        self.name = name
        """As errors call it."""
        self.at = 0
        """Bytes that were read."""

    def read_head(self) -> tuple[bytes, bytes]:
        """The manifest's bytes, and the signature: 64 bytes or none. Raises BadFile, CutOff."""
        raw = self._small(MANIFEST, range(1, MAX_MANIFEST + 1))
        return raw, self._small(SIGNATURE, (0, SIGNATURE_BYTES))

    def read(self, member: Member, take: Callable[[bytes], object] = lambda _: None) -> None:
        """Hand the member that comes next to `take`, piece by piece.

        Raises BadFile where something else comes, Unverified where its content is not what the manifest says, at its
        end; CutOff.
        """
        self._expect_header(self._exactly(BLOCK), member.name, member.size)
        hasher = hashlib.sha256()
        for piece in self._pieces(member.size):
            hasher.update(piece)
            take(piece)
        self._skip_padding(member.name, member.size)
        if hasher.hexdigest() != member.sha256:
            message = f"`{member.name}` in {self.name} is not what its manifest says: SHA-256"
            message += f" {hasher.hexdigest()[:16]}…, not {member.sha256[:16]}…"
            raise Unverified(message, hint="it was damaged or exchanged on the way; copy the bundle again")

    def read_end(self) -> None:
        """See that nothing comes any more. Raises BadFile, CutOff."""
        if self._exactly(len(END)) != END or self._some(1):
            message = f"{self.name} goes on after the last member that its manifest names"
            raise BadFile(message, hint="somebody added to it; copy it again from its publisher")

    def _small(self, name: str, sizes: range | tuple[int, ...]) -> bytes:
        found = self._exactly(BLOCK)
        try:
            size = int(found[124:135], 8)
        except ValueError:
            size = -1
        if size not in sizes:
            message = f"{self.name} is no bundle: it does not begin with `{MANIFEST}` and `{SIGNATURE}`"
            raise BadFile(message, hint="`serve bundle create` writes bundles")
        self._expect_header(found, name, size)
        content = b"".join(self._pieces(size))
        self._skip_padding(name, size)
        return content

    def _expect_header(self, found: bytes, name: str, size: int) -> None:
        if found == header(name, size):
            return
        kind = _KINDS.get(found[156:157])
        other = _shown(found)
        if kind is not None:
            problem = f"{other} is {kind}, and a bundle has only files"
        elif found == bytes(BLOCK):
            problem = "it ends there"
        elif other != f"`{name}`":
            problem = f"{other} stands there"
        else:
            problem = "its header is not as this program writes it"
        message = f"{self.name} should have `{name}` of {size:,} bytes at byte {self.at - BLOCK:,}: {problem}"
        raise BadFile(message, hint="it was damaged or changed; copy it again from its publisher")

    def _skip_padding(self, name: str, size: int) -> None:
        if any(self._exactly(-size % BLOCK)):
            message = f"{self.name} has something hidden after `{name}`"
            raise BadFile(message, hint="it was damaged or changed; copy it again from its publisher")

    def _pieces(self, size: int) -> Iterator[bytes]:
        left = size
        while left:
            piece = self._some(min(left, CHUNK))
            if not piece:
                raise CutOff
            left -= len(piece)
            yield piece

    def _exactly(self, size: int) -> bytes:
        return b"".join(self._pieces(size))

    def _some(self, most: int) -> bytes:
        try:
            piece = os.read(self._descriptor, most)
        except OSError as error:
            raise CutOff(error.strerror) from None
        self.at += len(piece)
        return piece


def _shown(found: bytes) -> str:
    """The name in a header that is not to be trusted, fit for a terminal."""
    prefix, last = (part.split(b"\0")[0].decode("ascii", "backslashreplace") for part in (found[345:500], found[:100]))
    name = f"{prefix}/{last}" if prefix else last
    return f"`{name if name.isprintable() else ascii(name)}`"


def _split(name: str) -> tuple[str, str] | None:
    """A name in POSIX's two fields, the first as short as can be; None where it does not fit."""
    if len(name) <= 100:
        return "", name
    for at in (at for at, letter in enumerate(name) if letter == "/"):
        if len(name) - at - 1 <= 100:
            return (name[:at], name[at + 1 :]) if at <= 155 else None
    return None
