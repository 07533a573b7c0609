"""Models signed in the form of OpenSSF Model Signing, checked with the site's own key.

The signature, `model.sig` beside the files, is over the digests of all of them. Those are known here: what came in was
hashed, and what is loaded is compared with the same digests. So a signature is checked at every load, and nothing is
read twice for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from serving.errors import BadSettings, StartError, Unverified
from serving.store.accepted import SIGNATURE
from serving.store.manifest import StoredFile

if TYPE_CHECKING:
    from collections.abc import Callable

_NEEDS: Final = "`pip install 'perimeter-serving[signing]'` brings what checks signatures"


@dataclass(frozen=True, slots=True)
class Signing:
    """What the site demands of signatures."""

    key: Path | None = None
    """Public key (PEM, elliptic curve) that signatures must be made with."""
    is_required: bool = False
    """Models without a signature are refused."""


UNSIGNED: Final = Signing()


def check_signature(what: str, files: Iterable[StoredFile], signature: Path | None, signing: Signing) -> None:
    """See that `files`, all of a model's, are those that its signature is over. `what` names it in errors.

    Where no key is set nothing is checked; where one is, a signature that is there must be right. Raises Unverified, or
    BadSettings where a signature cannot be checked at all.
    """
    if signing.key is None:
        if signing.is_required:
            message = "store.require_signature is set, and store.signing_key names no key"
            raise BadSettings(message, hint="name the public key that your site's models are signed with")
        return
    if signature is None:
        if signing.is_required:
            message = f"{what} has no signature (`{SIGNATURE}`), and store.require_signature is set"
            raise Unverified(message, hint=f"sign it: `model_signing sign key … --signature {SIGNATURE}`")
        return
    signed = [file for file in files if file.name != SIGNATURE]
    verify = _verifier(signing.key)
    try:
        verify(signed, signature)
    except StartError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever the library makes of a signature, it is not one
        told = " ".join(str(error).split())[:200] or type(error).__name__
        message = f"the signature of {what} is not right: {told}"
        raise Unverified(message, hint=f"it must be over just these files, by the key of `{signing.key}`") from None


def _verifier(key: Path) -> Callable[[list[StoredFile], Path], None]:
    """What checks a signature with that key. Raises BadSettings."""
    try:
        from model_signing import manifest, verifying  # noqa: PLC0415 - an extra, and a second to import
        from model_signing._hashing.hashing import Digest  # noqa: PLC0415 - it has no public name
    except ImportError as error:
        raise BadSettings(f"signatures cannot be checked here: {error}", hint=_NEEDS) from None
    try:
        configured = verifying.Config().use_elliptic_key_verifier(public_key=key)
    except Exception as error:  # noqa: BLE001 - as below
        message = f"store.signing_key `{key}` is no public key that can be used: {error}"
        raise BadSettings(message, hint="name a PEM file with an elliptic curve's public key") from None

    def verify(files: list[StoredFile], signature: Path) -> None:
        items = [
            manifest.FileManifestItem(
                path=PurePosixPath(file.name), digest=Digest("sha256", bytes.fromhex(file.sha256))
            )
            for file in files
        ]
        form = manifest._FileSerialization("sha256", allow_symlinks=False)  # noqa: SLF001 - as above
        configured.set_hashing_config(_Hashed(manifest.Manifest("model", items, form)))
        configured.verify(signature.parent, signature)

    return verify


class _Hashed:
    """Stands where the library would hash the files: they have been hashed."""

    def __init__(self, known: Any) -> None:
        self._known = known

    def add_ignored_paths(self, **_: Any) -> None:
        """What the signer left out may not be there: every file of a model is one that is served."""

    def hash(self, _path: Any, **_: Any) -> Any:
        """The digests that are known."""
        return self._known
