"""The beginning of a bundle: who signed it, and what it says that it has. Nothing is written."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from serving.bundle.form import CutOff, Source, size_of
from serving.bundle.keys import Trust
from serving.bundle.manifest import BundleManifest, parse
from serving.bundle.trust import Exceptions, check_claim, decide_publisher
from serving.errors import BadFile, FileMissing
from serving.keyfiles import Publisher
from serving.store.files import Progress


@dataclass(frozen=True, slots=True)
class Head:
    """What stands before the members."""

    raw: bytes
    """The manifest's bytes."""
    signature: bytes
    manifest: BundleManifest
    publisher: Publisher | None
    """Whose signature it is; None where nobody's who is enrolled."""
    size_bytes: int
    """That the whole bundle has by its manifest."""

    @property
    def sha256(self) -> str:
        """Digest of the manifest, which stands for the whole bundle."""
        return hashlib.sha256(self.raw).hexdigest()


@contextlib.contextmanager
def source_of(path: Path) -> Iterator[Source]:
    """The bundle in a file, a device or a pipe; `-` is stdin. Raises FileMissing, BadFile."""
    if str(path) == "-":
        yield Source(sys.stdin.fileno(), "the bundle")
        return
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise FileMissing(f"`{path}` does not exist", hint="name the bundle's file, or `-` for stdin") from None
    except OSError as error:
        raise BadFile(f"`{path}` cannot be read: {error.strerror}") from None
    try:
        yield Source(descriptor, f"`{path}`")
    finally:
        os.close(descriptor)


def open_head(source: Source, trust: Trust, exceptions: Exceptions) -> Head:
    """Read the manifest, and see that somebody enrolled signed it before a word of it is understood.

    Raises Untrusted, BadFile; CutOff.
    """
    raw, signature = source.read_head()
    enrolled = trust.publishers()
    publisher = decide_publisher(raw, signature, enrolled, exceptions, source.name)
    manifest = parse(raw, source.name)
    check_claim(manifest, signature, publisher, enrolled, source.name)
    return Head(raw, signature, manifest, publisher, size_of(len(raw), len(signature), manifest.members))


def check_size(path: Path, head: Head) -> None:
    """See that a bundle in a file has the size that its manifest gives it. Raises BadFile."""
    try:
        status = path.stat()
    except OSError:
        return
    if stat.S_ISREG(status.st_mode) and status.st_size != head.size_bytes:
        message = f"`{path}` has {status.st_size:,} bytes, and its manifest says {head.size_bytes:,}"
        raise BadFile(message, hint="the copy broke off, or something was added: copy it again")


def read_through(source: Source, head: Head, progress: Progress) -> None:
    """Read every member and the end, and compare the digests. Raises Unverified, BadFile; CutOff."""
    for member in head.manifest.members:
        source.read(member, lambda piece: progress(len(piece)))
    source.read_end()


@contextlib.contextmanager
def complete(source: Source) -> Iterator[None]:
    """What breaks off in here, as an error: BadFile."""
    try:
        yield
    except CutOff as cut:
        reason = f": {cut}" if cut.args and cut.args[0] else ""
        message = f"{source.name} breaks off after {source.at:,} bytes{reason}"
        raise BadFile(message, hint="copy it again; an installation goes on with what has come in whole") from None
