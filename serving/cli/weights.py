"""The weights that a start is about to serve: verified, and held open until the engines have them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from serving.cli.runtime import cache_dir, open_store, signing_of
from serving.engines.spec import EngineSpec
from serving.errors import BadSettings, Unverified
from serving.planner import AnyPlan, VllmPlan
from serving.settings import Settings
from serving.store.accepted import SIGNATURE
from serving.store.cas import Store
from serving.store.lock import Lock, lock_of
from serving.store.manifest import Manifest, digest_of
from serving.store.shipped import files_of, shipped_lock
from serving.store.signature import check_signature
from serving.store.verify import DAY_S, Opened, open_locked, open_verified

OnShare = Callable[[str, float], None]
"""Told of a model how much of its weights has been looked at, from 0 to 1."""
_RECORD: Final = "verified.json"


@dataclass(frozen=True, slots=True)
class Held:
    """The weights of one plan."""

    files: tuple[tuple[int, Path], ...]
    """Open descriptors of verified files, each with the path that the plan knows it by; () where nothing was locked."""
    places: tuple[Path, ...] = ()
    """Files and directories that are wholly among them."""
    unlocked: str | None = None
    """Why they are not what somebody has accepted, as a sentence."""
    sha256: str | None = None
    """Stands for all of them (`store.manifest.digest_of`); None where they were not verified."""


def hold_weights(
    outcomes: Sequence[AnyPlan],
    settings: Settings,
    *,
    paranoid: bool = False,
    on_share: OnShare = lambda _model, _share: None,
) -> list[Held]:
    """Verify and open what each plan serves, adapters included.

    What is in the store must be what it was when it was locked. Files elsewhere are looked for in the lock by their
    content, and with `sealed = "require"` they have to be in it. Raises Unverified, FileMissing or BadFile.
    """
    store = open_store(settings, os.environ)
    return [_hold(outcome, store, settings, on_share, paranoid=paranoid) for outcome in outcomes]


def with_weights(spec: EngineSpec, held: Held) -> EngineSpec:
    """The engine with the verified files in place of the paths that they were found at."""
    reads = tuple(path for path in spec.reads if path not in held.places)
    return replace(spec, weights=held.files, weights_sha256=held.sha256, reads=reads)


def _hold(outcome: AnyPlan, store: Store, settings: Settings, on_share: OnShare, *, paranoid: bool) -> Held:
    rehash_s = settings.store.rehash_days * DAY_S
    files: list[tuple[int, Path]] = []
    held: list[Path] = []
    digests: list[tuple[str, str]] = []
    unlocked = None
    places = [] if outcome.weights is None else [outcome.weights]
    if isinstance(outcome, VllmPlan):
        places += [adapter.path for adapter in outcome.adapters]
    for place in places:
        manifest = store.of_path(place)
        if manifest is not None:
            done, total = 0, max(1, manifest.size_bytes)

            def on_bytes(count: int, total: int = total) -> None:
                nonlocal done
                done += count
                on_share(outcome.model, min(1.0, done / total))

            found = open_verified(store, manifest, rehash_s=rehash_s, paranoid=paranoid, progress=on_bytes)
            tree = store.tree(manifest)
            _see_tree(store, manifest)
            signature = next((each.path for each in found if each.file.name == SIGNATURE), None)
            check_signature(str(manifest), manifest.files, signature, signing_of(settings))
            files += [(each.descriptor, tree / each.file.name) for each in found]
            digests += [(each.file.name, each.file.sha256) for each in found]
            held.append(place)
            continue
        check_signature(f"`{place}`", (), None, signing_of(settings))
        try:
            opened = _elsewhere(place, store, settings, rehash_s, paranoid=paranoid)
        except Unverified as error:
            if settings.sealed == "require":
                hint = "`serve models import` brings it in and locks it; `sealed` set to another mode takes it as it is"
                raise Unverified(f"{error.message}, and `sealed` is `require`", hint=hint) from None
            unlocked = error.message
            continue
        files += [(each.descriptor, each.path) for each in opened]
        digests += [(each.file.name, each.file.sha256) for each in opened]
        held.append(place)
    return Held(tuple(files), tuple(held), unlocked, digest_of(digests) if digests and unlocked is None else None)


def _see_tree(store: Store, manifest: Manifest) -> None:
    """See that the names under which an engine may open the files lead to those that were verified.

    A tree that a kill left with another file than the blob is mended. Raises Unverified where it cannot be.
    """
    with contextlib.suppress(BadSettings):
        store.mend(manifest)
    stray = store.astray(manifest)
    if stray:
        raise Unverified(stray[0], hint="`serve models verify` tells all that is wrong; import or pull the model again")


def _elsewhere(place: Path, store: Store, settings: Settings, rehash_s: float, *, paranoid: bool) -> tuple[Opened, ...]:
    """Files outside the store, verified against the lock. Raises Unverified where they are not in it."""
    files = files_of(place)
    lock = lock_of(_merged(store.lock(), shipped_lock()))
    targets = {name: path.resolve() for name, path in files.items()}  # a snapshot of a cache is made of links
    if not _could_be(targets, lock):
        raise Unverified(f"`{place}` is in no lock")
    record = cache_dir(settings.paths.cache_dir, os.environ)
    record.mkdir(parents=True, exist_ok=True)
    _, opened = open_locked(targets, lock, record / _RECORD, rehash_s=rehash_s, paranoid=paranoid)
    return tuple(replace(each, path=files[each.file.name]) for each in opened)


def _merged(own: Lock, shipped: Lock) -> list[Manifest]:
    return [*own.entries, *(entry for entry in shipped.entries if own.find(entry.model, entry.variant) is None)]


def _could_be(files: Mapping[str, Path], lock: Lock) -> bool:
    """Whether it is worth reading them: some entry has files of just these sizes."""
    sizes = {file.size for entry in lock.entries for file in entry.files}
    try:
        return all(path.stat().st_size in sizes for path in files.values())
    except OSError:  # a link that leads nowhere
        return False
