"""Whether a bundle is taken: decided from its signature and its number, before anything else of it is looked at."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from serving.bundle.manifest import BundleManifest
from serving.errors import Untrusted
from serving.keyfiles import Publisher


@dataclass(frozen=True, slots=True)
class Exceptions:
    """What the operator lets pass by name."""

    unsigned: bool = False
    """A bundle that nobody signed, or somebody who is not enrolled."""
    downgrade: bool = False
    """One that is not newer than the last."""


NO_EXCEPTIONS: Final = Exceptions()


@dataclass(frozen=True, slots=True)
class Last:
    """The bundle of a publisher that was installed last."""

    serial: int
    manifest_sha256: str


def decide_exceptions(wanted: Exceptions, *, sealed: bool) -> Exceptions:
    """The exceptions, where there may be any. Raises Untrusted in sealed mode."""
    for flag, is_wanted in (("--allow-unsigned", wanted.unsigned), ("--allow-downgrade", wanted.downgrade)):
        if sealed and is_wanted:
            message = f'`{flag}` is not possible with `sealed = "require"`'
            raise Untrusted(message, hint="install a newer bundle that an enrolled publisher signed")
    return wanted


def decide_publisher(
    raw: bytes, signature: bytes, enrolled: Iterable[Publisher], exceptions: Exceptions, where: str
) -> Publisher | None:
    """Who of those enrolled signed these bytes; None for nobody, where that may be. Raises Untrusted.

    The bytes are not looked into: whose they claim to be plays no part.
    """
    known = tuple(enrolled)
    for publisher in known:
        if signature and publisher.has_signed(raw, signature):
            return publisher
    if exceptions.unsigned:
        return None
    if not signature:
        message = f"{where} is not signed"
    elif not known:
        message = f"{where} is signed, and no publisher is enrolled on this host"
    else:
        names = ", ".join(f"`{publisher.name}`" for publisher in known)
        message = f"{where} is not signed by any who is enrolled on this host ({names})"
    hint = "`serve trust add` enrols a publisher's key; `--allow-unsigned` takes the bundle as it is"
    raise Untrusted(message, hint=hint)


def check_claim(
    manifest: BundleManifest, signature: bytes, publisher: Publisher | None, enrolled: Iterable[Publisher], where: str
) -> None:
    """See that a bundle is of whom it says. Raises Untrusted where its signature is not that one's."""
    if publisher is not None:
        if manifest.publisher != publisher.fingerprint:
            message = f"{where} says that it is of {manifest.publisher}, and `{publisher.name}` signed it"
            raise Untrusted(message, hint="do not use it, and tell its publisher")
        return
    claimed = next((each for each in enrolled if each.fingerprint == manifest.publisher), None)
    if claimed is not None and signature:
        message = f"{where} says that it is of `{claimed.name}`, and the signature is not that key's"
        raise Untrusted(message, hint="it was changed after it was signed: do not use it, and tell its publisher")


def decide_serial(
    manifest: BundleManifest,
    manifest_sha256: str,
    publisher: Publisher | None,
    last: Last | None,
    exceptions: Exceptions,
) -> None:
    """See that a publisher's bundle is newer than the last that was installed, or that very one again.

    Of bundles that nobody signed the number says nothing. Raises Untrusted.
    """
    if publisher is None or last is None or exceptions.downgrade or manifest.serial > last.serial:
        return
    if (manifest.serial, manifest_sha256) == (last.serial, last.manifest_sha256):
        return
    message = f"the bundle has serial number {manifest.serial}, and {last.serial} of `{publisher.name}` is installed"
    raise Untrusted(message, hint="an old bundle may bring back what was mended: `--allow-downgrade` if that is meant")
