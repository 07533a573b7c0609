"""Checks of the disks that weights lie on, and of our own directories."""

from __future__ import annotations

from collections.abc import Iterator

from serving.doctor.facts import Directory, Facts, Models
from serving.doctor.finding import Finding
from serving.planner.text import counted, gib

_LITTLE_BYTES = 10 * 1024**3
"""Less holds no further model worth the name."""
_SLOW_BYTES_S = 200e6
"""Below, an 8B model in q4_k_m takes half a minute to load."""
_SLOW_KINDS = {
    "9p": "a share of the host's, as of Windows under WSL",
    "drvfs": "a share of the host's, as of Windows under WSL",
    "virtiofs": "a share of the host's",
    "fuse.sshfs": "a network file system",
    "cifs": "a network file system",
    "nfs": "a network file system",
    "nfs4": "a network file system",
}
_RUNTIME_LEAST_BYTES = 16 * 1024**2
"""Room for sockets, records and logs."""


def check_storage(facts: Facts) -> Iterator[Finding]:
    """Whether weights can be kept and read, and engines have a place to live."""
    yield from _models(facts.models)
    for directory in facts.weights:
        yield _directory(directory, is_virtual=bool(facts.machine.host.virtual))
    yield from _runtime(facts)
    yield from _cache(facts)


def _models(models: Models) -> Iterator[Finding]:
    name = "models"
    if models.failure is not None:
        yield Finding(name, "problem", models.failure, models.hint or "correct `registry.site_file`")
    elif models.count is None:
        yield Finding(name, "unknown", "the catalogue was not looked at")
    else:
        for fault in models.faults:
            yield Finding(name, "warning", fault, "correct its `path` in the site's catalogue, or bring the file there")
        if not models.faults:
            found = f"{models.count} in the catalogue, {counted(len(models.paths), 'weight file')} of theirs here"
            yield Finding(name, "good", found)


def _directory(directory: Directory, *, is_virtual: bool) -> Finding:
    name, disk = "weights", directory.disk
    if disk.free_bytes is None or disk.total_bytes is None:
        return Finding(name, "unknown", f"the disk of `{directory.path}` cannot be read")
    found = f"`{directory.path}`: {gib(disk.free_bytes)} free of {gib(disk.total_bytes)}"
    if disk.filesystem is not None:
        found += f", {disk.filesystem}"
    rate = directory.read.read_bytes_s if directory.read is not None else None
    if rate is not None:
        found += f", reads {rate / 1e9:.2f} GB/s"
    elif directory.read is not None and directory.read.skipped is not None:
        found += f", speed not measured ({directory.read.skipped})"
    if rate is not None and rate < _SLOW_BYTES_S:
        return Finding(name, "warning", f"{found}: models load slowly", "keep weights on a local SSD")
    # A hypervisor's disks say that they turn unless somebody set it right.
    if rate is None and disk.rotational and not is_virtual:
        return Finding(name, "warning", f"{found}, a disk that turns: models load slowly", "keep weights on an SSD")
    if rate is None and disk.filesystem in _SLOW_KINDS:
        found += f" ({_SLOW_KINDS[disk.filesystem]}): models may load slowly"
        return Finding(name, "warning", found, "see with --measure; keep weights on a local disk")
    if disk.free_bytes < _LITTLE_BYTES:
        return Finding(name, "warning", f"{found}: little room for models", "make room, or keep weights elsewhere")
    return Finding(name, "good", found)


def _runtime(facts: Facts) -> Iterator[Finding]:
    name, runtime = "runtime directory", facts.runtime
    if runtime.failure is not None:
        advice = runtime.hint or "set `paths.runtime_dir` to a directory of this user's own"
        yield Finding(name, "problem", runtime.failure, advice)
    elif runtime.path is None:
        yield Finding(name, "unknown", "was not looked for")
    elif runtime.free_bytes is not None and runtime.free_bytes < _RUNTIME_LEAST_BYTES:
        found = f"`{runtime.path}` has {gib(runtime.free_bytes)} free: too little for logs"
        yield Finding(name, "problem", found, "make room there, or set `paths.runtime_dir`")
    else:
        yield Finding(name, "good", f"`{runtime.path}` is this user's alone, or will be")


def _cache(facts: Facts) -> Iterator[Finding]:
    """Without vLLM only `--dummy-weights` needs it, so that nothing is a problem then."""
    name, cache = "cache directory", facts.cache
    if cache.failure is not None and facts.surroundings is not None:
        yield Finding(name, "problem", f"{cache.failure}; vLLM keeps there what it compiles", cache.hint)
    elif cache.failure is not None:
        yield Finding(name, "warning", f"{cache.failure}; `--dummy-weights` needs it", cache.hint)
    elif cache.path is not None:
        room = "" if cache.free_bytes is None else f", {gib(cache.free_bytes)} free"
        yield Finding(name, "good", f"`{cache.path}`{room}")
