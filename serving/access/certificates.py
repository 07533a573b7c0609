"""Client certificates that stand for keys. Which one a client holds the TLS handshake has shown; here is only whose."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

Shown = Callable[[], bytes | None]
"""The certificate that a connection's other end has shown, in DER, verified; None where it has shown none."""
Telling = tuple[str, str]
"""A field that tells a certificate (`sha256`, `common_name`, `uri`, `dns`, `email`), and its value."""
_MOST_REMEMBERED: Final = 4096


@dataclass(frozen=True, slots=True)
class Mapped:
    """A certificate that stands for a key."""

    key_id: str
    by: Telling


def decide_keys(names: Iterable[Telling], mapped: Mapping[Telling, str]) -> frozenset[str]:
    """The ids of the keys that a certificate of these names and fingerprint stands for.

    Its fingerprint stands over its names. More than one id: nobody can say which is meant.
    """
    all_names = list(names)
    exact = {mapped[each] for each in all_names if each[0] == "sha256" and each in mapped}
    return frozenset(exact or {mapped[each] for each in all_names if each in mapped})


def names_of(certificate: bytes) -> list[Telling]:
    """What a certificate in DER says of its holder; nothing where it cannot be read.

    Of several common names none counts: what they are read as differs from one program to the next.
    """
    try:
        read = x509.load_der_x509_certificate(certificate)
        common = [str(each.value) for each in read.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        found = [("common_name", name) for name in common] if len(common) == 1 else []
        alternative = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return found
    except (ValueError, x509.DuplicateExtension):
        return []
    kinds = (("uri", x509.UniformResourceIdentifier), ("dns", x509.DNSName), ("email", x509.RFC822Name))
    return found + [(name, value) for name, kind in kinds for value in alternative.get_values_for_type(kind)]


class Certificates:
    """All that are mapped; for one thread at a time."""

    def __init__(self, mapped: Iterable[Mapped]) -> None:
        self._mapped = {each.by: each.key_id for each in mapped}
        self._has_names = any(field != "sha256" for field, _ in self._mapped)
        self._remembered: dict[str, frozenset[str]] = {}

    @property
    def key_ids(self) -> frozenset[str]:
        """Those of the keys that certificates stand for."""
        return frozenset(self._mapped.values())

    def find(self, certificate: bytes) -> tuple[str, frozenset[str]]:
        """The certificate's fingerprint, and the ids of the keys that it stands for."""
        fingerprint = hashlib.sha256(certificate).hexdigest()
        found = self._remembered.get(fingerprint)
        if found is None:
            names = names_of(certificate) if self._has_names else []
            found = decide_keys([("sha256", fingerprint), *names], self._mapped)
            if len(self._remembered) >= _MOST_REMEMBERED:
                self._remembered.clear()
            self._remembered[fingerprint] = found
        return fingerprint, found
