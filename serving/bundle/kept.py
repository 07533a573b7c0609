"""What a host keeps of the bundles that were installed, beside the weights in the store.

bundles/catalogue/MODEL.toml     the catalogue's entry of a model that came in a bundle
bundles/installed/DIGEST/        the manifest, its signature, the bill of materials, licences and wheels of a bundle
bundles/serials.json             which bundle of each publisher was installed last
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from serving.bundle.manifest import FINGERPRINT, MAX_SERIAL
from serving.bundle.trust import Last
from serving.errors import BadFile
from serving.registry.schema import format_entry
from serving.store.files import sync_directory, write_whole
from serving.store.manifest import DIGEST

_MAX_SERIALS: Final = 1 << 20


class Kept:
    """The directory `bundles` of a store."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.catalogue = root / "catalogue"
        self._installed = root / "installed"
        self._serials = root / "serials.json"

    def place(self, manifest_sha256: str) -> Path:
        """Where that bundle's papers and wheels are or would be."""
        return self._installed / manifest_sha256[:16]

    def last(self, fingerprint: str) -> Last | None:
        """The bundle of that publisher that was installed last. Raises BadFile where that cannot be read."""
        return self._read_serials().get(fingerprint)

    def settle(self, half: Path, manifest_sha256: str) -> Path:
        """Move a finished directory to its place, in one rename."""
        place = self.place(manifest_sha256)
        place.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        shutil.rmtree(place, ignore_errors=True)
        half.rename(place)
        sync_directory(place.parent)
        return place

    def write_entry(self, model: str, entry: Mapping[str, Any]) -> None:
        """Put a model's entry into the catalogue, in place of what an earlier bundle said of it."""
        self.catalogue.mkdir(mode=0o750, parents=True, exist_ok=True)
        write_whole(self.catalogue / f"{model}.toml", format_entry(model, entry), 0o644)

    def record(self, fingerprint: str, last: Last) -> None:
        """Remember the bundle as its publisher's last."""
        serials = {**self._read_serials(), fingerprint: last}
        told = {key: {"serial": each.serial, "sha256": each.manifest_sha256} for key, each in serials.items()}
        self._root.mkdir(mode=0o750, parents=True, exist_ok=True)
        write_whole(self._serials, json.dumps(told, sort_keys=True, indent=1).encode() + b"\n", 0o644)

    def _read_serials(self) -> dict[str, Last]:
        try:
            with self._serials.open("rb") as file:
                told = json.loads(file.read(_MAX_SERIALS))
            found = {key: Last(value["serial"], value["sha256"]) for key, value in told.items()}
            is_sound = all(_is_sound(key, last) for key, last in found.items())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            found, is_sound = {}, False
        if not is_sound:
            message = f"`{self._serials}`, which says what was installed last, cannot be read"
            raise BadFile(message, hint="restore it from a backup; without it an old bundle could come in")
        return found


def _is_sound(fingerprint: str, last: Last) -> bool:
    is_number = isinstance(last.serial, int) and 0 < last.serial <= MAX_SERIAL
    return bool(FINGERPRINT.fullmatch(fingerprint) and is_number and DIGEST.fullmatch(last.manifest_sha256))
