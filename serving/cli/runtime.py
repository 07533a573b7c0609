"""Where engines' sockets and state are, and what can be made again, unless the settings say."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from serving.engines.runtime import check_private, private_directory
from serving.errors import BadSettings
from serving.hardware.disk import mount_of, read_mounts
from serving.registry import Catalogue, load_catalogue
from serving.registry.catalogue import load_entries
from serving.settings import Settings
from serving.store.cas import Store
from serving.store.signature import Signing

_KERNEL_FILES: Final = frozenset({"proc", "sysfs", "cgroup", "cgroup2", "devpts", "debugfs", "tracefs", "securityfs"})
"""File systems of the kernel, in which nobody makes directories, whatever their modes say."""


def runtime_dir(configured: Path | None, environment: Mapping[str, str]) -> Path:
    """The runtime directory, made if need be, mode 0700 and ours. Raises BadSettings."""
    path = runtime_path(configured, environment)
    private_directory(path)
    return path


def runtime_path(configured: Path | None, environment: Mapping[str, str]) -> Path:
    """Where the runtime directory is or would be, an absolute path; nothing is made.

    A directory for everybody's files (sticky, such as /tmp) is not ours to have: there it is one of our own in it.
    """
    path = _absolute(configured or _default(environment))
    return path / f"perimeter-{os.getuid()}" if _is_shared(path) else path


def look_at_runtime_dir(configured: Path | None, environment: Mapping[str, str]) -> Path:
    """The runtime directory as `runtime_dir` would have it, found without making or changing anything.

    Raises BadSettings where it could not be had.
    """
    path = runtime_path(configured, environment)
    if os.path.lexists(path):
        check_private(path)
    else:
        _check_makeable(path, "runtime directory", "paths.runtime_dir")
    return path


def cache_dir(configured: Path | None, environment: Mapping[str, str]) -> Path:
    """The directory for files that can be made again, an absolute path; not made here."""
    if configured is not None:
        return _absolute(configured)
    base = environment.get("XDG_CACHE_HOME") or Path(environment.get("HOME") or Path.home()) / ".cache"
    return _absolute(Path(base)) / "perimeter"


def trust_dir(configured: Path | None, environment: Mapping[str, str]) -> Path:
    """The directory of the keys whose bundles are taken, an absolute path; not made here."""
    if configured is not None:
        return _absolute(configured)
    base = environment.get("XDG_CONFIG_HOME") or Path(environment.get("HOME") or Path.home()) / ".config"
    return _absolute(Path(base)) / "perimeter" / "trust"


def open_store(settings: Settings, environment: Mapping[str, str]) -> Store:
    """The store of weights as the settings say; nothing is made yet."""
    directory = settings.store.directory
    if directory is None:
        base = environment.get("XDG_DATA_HOME") or Path(environment.get("HOME") or Path.home()) / ".local" / "share"
        directory = Path(base) / "perimeter" / "store"
    lock_file = settings.store.lock_file
    return Store(_absolute(directory), None if lock_file is None else _absolute(lock_file))


def signing_of(settings: Settings) -> Signing:
    """What the settings demand of models' signatures."""
    return Signing(settings.store.signing_key, settings.store.require_signature)


def catalogue_of(settings: Settings, environment: Mapping[str, str]) -> Catalogue:
    """The models that can be named: the catalogue, the site's on top, and what is in the store. Raises BadSettings."""
    store = open_store(settings, environment)
    return load_catalogue(settings.registry.site_file, shelf=store.shelf(), bundled=_bundled(store))


def catalogue_entries(settings: Settings, environment: Mapping[str, str]) -> dict[str, Any]:
    """What the catalogue's files say of each model, as tables. Raises BadSettings."""
    return load_entries(settings.registry.site_file, bundled=_bundled(open_store(settings, environment)))


def _bundled(store: Store) -> Path:
    return store.bundles / "catalogue"


def look_at_cache_dir(configured: Path | None, environment: Mapping[str, str]) -> Path:
    """The cache directory, seen to be one that can be written to, or made. Raises BadSettings; changes nothing."""
    path = cache_dir(configured, environment)
    _check_makeable(path, "cache directory", "paths.cache_dir")
    return path


def _check_makeable(path: Path, what: str, setting: str) -> None:
    """See that `path` is a directory that may be written to, or that one could be made there. Raises BadSettings."""
    there = next(each for each in (path, *path.parents) if os.path.lexists(each))
    mount = mount_of(there.resolve(), read_mounts(Path("/")))
    problem = None
    if not there.is_dir():
        problem = f"`{there}` is not a directory"
    elif mount is not None and mount.filesystem in _KERNEL_FILES:
        problem = f"`{there}` is the kernel's ({mount.filesystem})"
    elif not os.access(there, os.W_OK | os.X_OK):
        problem = f"`{there}` cannot be written to"
    if problem is not None:
        message = f"the {what} `{path}` cannot be used: {problem}"
        raise BadSettings(message, hint=f"set {setting} to a directory that this user may write to")


def _is_shared(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISDIR(mode) and bool(mode & stat.S_ISVTX) and bool(mode & stat.S_IWOTH)


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


def _default(environment: Mapping[str, str]) -> Path:
    base = environment.get("XDG_RUNTIME_DIR")
    if base and os.access(base, os.W_OK):
        return Path(base) / "perimeter"
    return Path(environment.get("TMPDIR") or "/tmp") / f"perimeter-{os.getuid()}"  # noqa: S108 -- checked to be ours
