"""The wheels of a lock for one platform: from a directory where it has them, the others from the package index.

A lock names every wheel that a project published, by its digest. A wheel that is not among them is taken for what is
built by whoever makes the bundle, and for nothing else.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.markers import InvalidMarker, UndefinedEnvironmentName
from packaging.requirements import InvalidRequirement, Requirement
from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from serving.bundle.manifest import Wheel
from serving.bundle.wheels import find_wheels, pick_best, platforms_of, tags_of
from serving.errors import BadFile, FetchFailed, FileMissing, Unverified, UsageError
from serving.store.files import digest_of
from serving.wheels import read_wheel

OURS: Final = "perimeter-serving"
LLAMA_CPP: Final = "llama-cpp-python"
BUILT_HERE: Final = frozenset({OURS, LLAMA_CPP})
"""What has no wheel on the index: it is built by whoever makes the bundle, who answers for it with the signature."""
_HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})")
_LAST_WORDS: Final = 500


@dataclass(frozen=True, slots=True)
class Target:
    """What the wheels are for."""

    extra: str
    platform: str
    python: str


@dataclass(frozen=True, slots=True)
class Locked:
    """A package of a lock."""

    project: str
    version: str
    digests: frozenset[str]
    """SHA-256 of everything that was published of it."""


@dataclass(frozen=True, slots=True)
class Gathered:
    """A wheel that is to travel, and where it lies."""

    wheel: Wheel
    path: Path
    is_locked: bool
    """The lock has its digest."""


def read_lock(text: str, target: Target, where: str) -> tuple[Locked, ...]:
    """The packages that a lock, as `uv pip compile --generate-hashes --universal` writes it, has for that platform.

    Raises BadFile.
    """
    environment = _environment(target)
    found = []
    joined = re.sub(r"\\\n", " ", text)
    for line in joined.splitlines():
        told = line.strip()
        if not told or told.startswith("#"):
            continue
        try:
            wanted = Requirement(told.split(" --hash", 1)[0].strip())
            is_wanted = wanted.marker is None or wanted.marker.evaluate(environment)
        except (InvalidRequirement, InvalidMarker, UndefinedEnvironmentName):
            raise BadFile(f"{where} has a line that is no package: `{told[:60]}`", hint="make it: make locks") from None
        pins = [each.version for each in wanted.specifier if each.operator == "=="]
        digests = frozenset(_HASH.findall(told))
        if len(pins) != 1 or not digests:
            raise BadFile(f"{where} does not lock `{wanted.name}` by version and digest", hint="make it: make locks")
        if is_wanted:
            found.append(Locked(canonicalize_name(wanted.name), pins[0], digests))
    return tuple(found)


def gather(
    lock: tuple[Locked, ...], target: Target, wheelhouses: Sequence[Path], index: str | None, work: Path
) -> tuple[Gathered, ...]:
    """Every package of the lock as a wheel for the target, and our own; what is fetched is put into `work`.

    Raises FileMissing where there is no wheel of one, Unverified where its digest is not the lock's, FetchFailed.
    """
    tags = tags_of(target.platform, target.python)
    there = _choose(wheelhouses, lock, tags)
    projects = {each.wheel.project for each in there}
    lacking = [each for each in lock if each.project not in projects]
    for each in lacking:
        if each.project in BUILT_HERE:
            message = f"no wheel of `{each.project}` {each.version} for {target.platform} is at hand"
            raise FileMissing(
                message, hint="`make portable` builds it, --wheelhouse names where it is, --platform what it is for"
            )
    if lacking:
        _download(lacking, target, index, work)
        there += _choose([work], tuple(lacking), tags)
    if OURS not in projects:
        message = f"no wheel of `{OURS}` is at hand"
        raise FileMissing(message, hint="`make wheel` builds it; `--wheelhouse DIR` names the directory that it is in")
    lost = sorted({each.project for each in lock} - {each.wheel.project for each in there})
    if lost:
        raise FileMissing(f"no wheel of `{lost[0]}` for {target.platform} is at hand", hint="take another platform")
    return tuple(sorted(there, key=lambda each: each.wheel.member))


def _choose(directories: Sequence[Path], lock: tuple[Locked, ...], tags: tuple[Tag, ...]) -> list[Gathered]:
    """Of the wheels in these directories the best of each project and level that is wanted."""
    wanted = {each.project: each for each in lock}
    candidates: dict[tuple[str, int | None], list[Path]] = {}
    for path, level in (each for directory in directories for each in find_wheels(directory)):
        try:
            project, version, _, _ = parse_wheel_filename(path.name)
        except InvalidWheelFilename:
            raise BadFile(f"`{path}` has a name that no wheel has", hint="remove it") from None
        is_wanted = project in wanted and wanted[project].version == str(version).partition("+")[0]
        if is_wanted or project == OURS:
            candidates.setdefault((str(project), level), []).append(path)
    found = []
    for (name, level), paths in candidates.items():
        best = pick_best((path.name for path in paths), tags)
        if best is None:
            continue
        path = next(path for path in paths if path.name == best)
        with path.open("rb") as file:
            sha256 = digest_of(file.fileno())
        is_locked = name in wanted and sha256 in wanted[name].digests
        if not is_locked and name not in BUILT_HERE:
            message = f"`{path}` is none of the wheels of `{name}` that the lock names"
            raise Unverified(message, hint="remove it, and the index is asked; or lock it: make locks")
        needed = _level_of(path) if name == LLAMA_CPP and best.endswith("x86_64.whl") else None
        found.append(Gathered(Wheel(best, sha256, needed or level), path, is_locked))
    return found


def _level_of(path: Path) -> int | None:
    """The level of x86-64 that a wheel of llama.cpp needs; None where it runs on all.

    Raises BadFile where it was compiled for its builder's own processor.
    """
    level = read_wheel(path).level
    if level is None:
        message = f"`{path}` runs on no level of x86-64 whole"
        raise BadFile(message, hint="build one for all x86-64 processors: make portable")
    return level if level > 1 else None


def _download(lacking: list[Locked], target: Target, index: str | None, work: Path) -> None:
    """Have pip fetch these into `work`, wheels only, each with one of the lock's digests. Raises FetchFailed."""
    wanted = work / "wanted.txt"
    lines = (
        f"{each.project}=={each.version} {' '.join(f'--hash=sha256:{one}' for one in sorted(each.digests))}\n"
        for each in lacking
    )
    wanted.write_text("".join(lines), encoding="utf-8")
    short = target.python.replace(".", "")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--dest", str(work)]
    command += ["--python-version", target.python, "--implementation", "cp"]
    command += ["--abi", f"cp{short}", "--abi", "abi3", "--abi", "none"]
    command += [word for platform in platforms_of(target.platform) for word in ("--platform", platform)]
    command += ["--requirement", str(wanted)]
    if index is not None:
        command += ["--index-url", index]
    ended = subprocess.run(  # noqa: S603 - pip, with arguments that were checked
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        words = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1][-_LAST_WORDS:]
        message = f"pip could not fetch the wheels for {target.platform}: {words}"
        hint = "another --platform, an index that has them (--index-url), or a directory (--wheelhouse)"
        raise FetchFailed(message, hint=hint)


def _environment(target: Target) -> Mapping[str, str]:
    """What markers are judged by."""
    machine = platforms_of(target.platform)[-1].removeprefix("linux_")
    if not re.fullmatch(r"3\.\d{1,2}", target.python):
        raise UsageError(f"`{target.python}` is no version of Python", hint="such as 3.11")
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{target.python}.0",
        "os_name": os.name,
        "platform_machine": machine,
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{target.python}.0",
        "python_version": target.python,
        "sys_platform": "linux",
        "extra": "",
    }
