"""Wheels: which of them a host takes, and that one is a wheel and no more.

pip unpacks what it is given; what must not happen then is seen here before, from the archive's own list: names that
lead elsewhere, links, sizes that no wheel has, and files that Python runs whenever it starts.
"""

from __future__ import annotations

import email.parser
import hashlib
import re
import stat
import zipfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from serving.bundle.manifest import Wheel, Wheels
from serving.errors import BadFile, NoFitError, UsageError

MAX_ENTRIES: Final = 100_000
MAX_UNPACKED: Final = 16 << 30
MAX_RATIO: Final = 100
"""Bytes of a wheel for each byte of its archive; code and libraries come to under 20."""
_SMALL: Final = 16 << 20
"""Below that much unpacked, no ratio is too high."""
_MAX_WORDS: Final = 4 << 20
_RUNS_AT_START: Final = frozenset({"sitecustomize", "usercustomize"})
"""Modules, packages or libraries that Python imports at its start."""
_INTERPRETER: Final = re.compile(r"(?:^|/)pyvenv\.cfg$|\.data/(?:data/bin|scripts)/(?:python|pip|activate)[^/]*$")
"""What an environment itself is made of, and no wheel brings."""
KNOWN_PTH: Final[dict[str, str]] = {
    "distutils-precedence.pth": "2638ce9e2500e572a5e0de7faed6661eb569d1b696fcba07b0dd223da5f5d224",
}
"""Files that Python runs at its start and that may be in a wheel, by name and SHA-256: setuptools' own distutils."""
_PLATFORM: Final = re.compile(r"manylinux_2_(\d{1,2})_([a-z0-9_]+)")
_LEGACY: Final = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}


@dataclass(frozen=True, slots=True)
class Described:
    """What a wheel says of itself."""

    project: str
    version: str
    licence: str | None
    unpacked_bytes: int


def platforms_of(platform: str) -> tuple[str, ...]:
    """The platform tags whose wheels run on `platform`, the nearest first: older glibc's, and what needs none."""
    match = _PLATFORM.fullmatch(platform)
    if match is None:
        return (platform,)
    newest, machine = int(match[1]), match[2]
    found = []
    for minor in range(newest, 4, -1):
        found.append(f"manylinux_2_{minor}_{machine}")
        if minor in _LEGACY:
            found.append(f"{_LEGACY[minor]}_{machine}")
    return (*found, f"linux_{machine}")


def tags_of(platform: str, python: str) -> tuple[Tag, ...]:
    """The tags of wheels that such a host takes, the best first."""
    version = tuple(int(part) for part in python.split("."))
    platforms = platforms_of(platform)
    interpreter = f"cp{''.join(map(str, version))}"
    return (
        *cpython_tags(version, platforms=platforms),
        *compatible_tags(version, interpreter, platforms),
    )


def pick_best(files: Iterable[str], tags: Collection[Tag]) -> str | None:
    """The wheel whose tags come first among those that a host takes; None where it takes none of them."""
    order = {tag: place for place, tag in enumerate(tags)}
    ranked = []
    for file in files:
        _, _, build, of_wheel = parse_wheel_filename(file)
        places = [order[tag] for tag in of_wheel if tag in order]
        if places:
            ranked.append((min(places), tuple(-part if isinstance(part, int) else 0 for part in build), file))
    return min(ranked)[2] if ranked else None


def choose_wheels(wheels: Wheels, level: int, lacks: str) -> tuple[Wheel, ...]:
    """Of each project the wheel for the highest level that the processor has.

    `lacks` is what keeps it from the next level, for the error. Raises NoFitError where a project has none for it.
    """
    by_project: dict[str, list[Wheel]] = {}
    for wheel in wheels.files:
        by_project.setdefault(wheel.project, []).append(wheel)
    chosen = []
    for project, candidates in by_project.items():
        fitting = [wheel for wheel in candidates if (wheel.level or 1) <= level]
        if not fitting:
            least = min(wheel.level or 1 for wheel in candidates)
            message = f"the bundle's `{project}` is for processors of x86-64-v{least} and better, and this one lacks"
            raise NoFitError(
                f"{message} `{lacks}`", hint="ask for a bundle with portable wheels, or one for this level"
            )
        chosen.append(max(fitting, key=lambda wheel: wheel.level or 0))
    return tuple(chosen)


def check_wheel(path: Path, file: str) -> Described:
    """See that the file at `path` may be installed as the wheel called `file`. Nothing is unpacked. Raises BadFile."""
    shown = f"`{file}`"
    try:
        project, version, _, _ = parse_wheel_filename(file)
        with zipfile.ZipFile(path) as archive:
            unpacked = _check_sizes(archive, path.stat().st_size, shown)
            for info in archive.infolist():
                _check_entry(archive, info, shown)
            metadata = _metadata(archive, shown)
    except (zipfile.BadZipFile, NotImplementedError, InvalidWheelFilename, OSError, EOFError, ValueError) as error:
        raise BadFile(f"{shown} is no wheel: {error}", hint="take the one that its project published") from None
    parser = email.parser.HeaderParser()
    told = parser.parsestr(metadata)
    if (str(told["Version"]), _normal(str(told["Name"]))) != (str(version), str(project)):
        message = f"{shown} says of itself that it is `{told['Name']}` {told['Version']}"
        raise BadFile(message, hint="take the one that its project published")
    return Described(
        str(project), str(version), _licence(told.get("License-Expression") or told.get("License")), unpacked
    )


def _check_sizes(archive: zipfile.ZipFile, size: int, shown: str) -> int:
    """Bytes that the archive says it unpacks to, which is all that is ever read of it. Raises BadFile."""
    entries = archive.infolist()
    unpacked = sum(info.file_size for info in entries)
    packed = sum(info.compress_size for info in entries)
    # Entries that share their bytes (Fifield's bomb) come to more than the archive has.
    is_bomb = unpacked > MAX_UNPACKED or packed > size or (unpacked > _SMALL and unpacked > MAX_RATIO * size)
    if is_bomb or len(entries) > MAX_ENTRIES:
        message = f"{shown} would unpack {size:,} bytes to {unpacked:,} in {len(entries):,} files"
        raise BadFile(message, hint="no wheel does: it is made to fill the disk")
    return unpacked


def _check_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo, shown: str) -> None:
    name = info.orig_filename
    parts = name.removesuffix("/").split("/")
    problem = None
    if "\\" in name or "\0" in name or not name.isprintable() or any(part in ("", ".", "..") for part in parts):
        problem = "leads elsewhere"
    elif stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        problem = "is neither a file nor a directory"
    elif info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        problem = "is encrypted, or packed in a way that wheels are not"
    elif archive.NameToInfo[info.filename] is not info:
        problem = "is there twice"
    if problem is not None:
        raise BadFile(f"{name!a} in {shown} {problem}", hint="take the wheel that its project published")
    last = parts[-1].lower()
    is_known = {part.lower().partition(".")[0] for part in parts} & _RUNS_AT_START
    if is_known or _INTERPRETER.search(name.lower()) or (last.endswith(".pth") and not _is_known(archive, info, last)):
        message = f"`{name}` in {shown} would run whenever Python starts, and is not on the list of those that may"
        raise BadFile(message, hint="docs/bundles.md says which may, and how one is added")


def _is_known(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> bool:
    if info.file_size > _MAX_WORDS:
        return False
    return hashlib.sha256(archive.read(info)).hexdigest() == KNOWN_PTH.get(name)


def _metadata(archive: zipfile.ZipFile, shown: str) -> str:
    """The one METADATA file that a wheel has at its top."""
    found = [info for info in archive.infolist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", info.filename)]
    if len(found) != 1 or found[0].file_size > _MAX_WORDS:
        raise BadFile(f"{shown} has not one METADATA", hint="take the wheel that its project published")
    return archive.read(found[0]).decode("utf-8", "replace")


def _licence(told: str | None) -> str | None:
    """The first line, where it is one: some put the whole text there."""
    line = (told or "").strip().splitlines()[:1]
    return line[0].strip()[:200] or None if line else None


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def find_wheels(directory: Path) -> Iterator[tuple[Path, int | None]]:
    """The wheels in a directory, and in `x86-64-v2` and its like below it those for that level. Raises UsageError."""
    if not directory.is_dir():
        raise UsageError(f"`{directory}` is no directory of wheels")
    for path in sorted(directory.glob("*.whl")):
        yield path, None
    for level in (1, 2, 3, 4):
        for path in sorted((directory / f"x86-64-v{level}").glob("*.whl")):
            yield path, level
