"""Further ways to prove who one is, beside a key: made from the settings where they name any."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serving.access.certificates import Certificates
    from serving.access.oidc import Issuer
    from serving.settings import Access as AccessSettings


def also_taken(settings: AccessSettings) -> tuple[Issuer | None, Certificates | None]:
    """The issuer whose tokens are taken, and the certificates that stand for keys; None where there are none.

    Raises FileMissing, BadFile, BadSettings.
    """
    # imported where they are wanted: cryptography takes a tenth of a second
    certificates = None
    if settings.certificates:
        from serving.access.certificates import Certificates, Mapped  # noqa: PLC0415

        certificates = Certificates(Mapped(each.key, each.shown) for each in settings.certificates)
    if settings.oidc.issuer is None:
        return None, certificates
    from serving.access.oidc import open_issuer  # noqa: PLC0415

    return open_issuer(settings.oidc), certificates
