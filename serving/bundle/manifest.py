"""What a bundle says of itself, in the one way it can be written; who signs it signs these bytes.

The members follow from the rest: nothing can travel in a bundle that is not a model's file, its licence, a wheel or the
bill of materials.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from serving.bundle.form import Member, refuse_name
from serving.errors import BadFile
from serving.registry.schema import check_entries
from serving.store.accepted import is_licence
from serving.store.accepted import refuse_name as is_refused
from serving.store.lock import lock_of
from serving.store.manifest import DIGEST, MAX_SIZE, Manifest, manifest_of

FORMAT: Final = "perimeter-bundle"
VERSION: Final = 1
SBOM: Final = "sbom.cdx.json"
REQUIREMENTS: Final = "wheels/requirements.txt"
MAX_SERIAL: Final = (1 << 53) - 1
MAX_WHEELS: Final = 2048
LEVELS: Final = (1, 2, 3, 4)
FINGERPRINT: Final = re.compile(r"[a-z2-7]{4}(-[a-z2-7]{4}){7}")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PYTHON: Final = re.compile(r"3\.\d{1,2}")


@dataclass(frozen=True, slots=True)
class Wheel:
    """One wheel that travels."""

    file: str
    """Its own name, which says project, version and platform."""
    sha256: str
    level: int | None = None
    """Of x86-64 (1 to 4): what a processor must have; None where it does not matter."""

    @property
    def member(self) -> str:
        """Its name in the bundle: wheels of one name for several levels lie in a directory for each."""
        return f"wheels/{self.file}" if self.level is None else f"wheels/x86-64-v{self.level}/{self.file}"

    @property
    def project(self) -> str:
        """What it is a wheel of, in its normal form."""
        return str(parse_wheel_filename(self.file)[0])

    @property
    def version(self) -> str:
        """Its version."""
        return str(parse_wheel_filename(self.file)[1])


@dataclass(frozen=True, slots=True)
class Wheels:
    """The Python packages that travel, and what they are for."""

    extra: str
    platform: str
    """A platform's tag, such as `manylinux_2_31_x86_64`."""
    python: str
    """Such as `3.11`."""
    files: tuple[Wheel, ...]
    """In the order of their names in the bundle."""


@dataclass(frozen=True, slots=True)
class BundleManifest:
    """Everything that is in a bundle."""

    created: str
    """UTC, as `2026-01-31T12:00:00Z`."""
    serial: int
    """Grows with each bundle of a publisher."""
    publisher: str | None
    """Fingerprint of the key that signs it; None where none does."""
    models: tuple[Manifest, ...]
    """What the store has of each model, and the lock of the host that made the bundle."""
    entries: Mapping[str, Mapping[str, Any]]
    """The catalogue's entry for each model, in the form of models.toml, without paths."""
    licences: Mapping[str, tuple[str, ...]]
    """Names in the bundle of each model's licence texts."""
    wheels: Wheels | None
    members: tuple[Member, ...]
    """All files, in the order in which they stand in the bundle."""

    def member(self, name: str) -> Member:
        """The member of that name, which is there."""
        return next(member for member in self.members if member.name == name)


def canonical(manifest: BundleManifest) -> bytes:
    """The one way to write it: JSON in ASCII, keys in order, no spaces, one newline at its end."""
    value = {"format": FORMAT, "version": VERSION, **asdict(manifest)}
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode() + b"\n"


def parse(raw: bytes, where: str) -> BundleManifest:
    """The manifest that `raw` is, checked in every field. `where` names the bundle in errors. Raises BadFile."""
    try:
        return _parse(raw, where)
    except RecursionError:
        raise _bad(where, "is nested deeper than any is") from None


def _parse(raw: bytes, where: str) -> BundleManifest:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError):
        raise _bad(where, "is not JSON") from None
    if not isinstance(value, dict) or value.pop("format", None) != FORMAT:
        raise _bad(where, "is not one of a bundle")
    version = value.pop("version", None)
    if version != VERSION:
        raise BadFile(f"{where} is of version {version!r}", hint=f"this program reads version {VERSION}")
    if value.keys() != BundleManifest.__dataclass_fields__.keys():
        raise _bad(where, "has not the fields of one")
    models, publisher, wheels = _models(value["models"], where), value["publisher"], value["wheels"]
    manifest = BundleManifest(
        created=_text(value["created"], _TIME, "created", where),
        serial=_number(value["serial"], 1, MAX_SERIAL, "serial", where),
        publisher=None if publisher is None else _text(publisher, FINGERPRINT, "publisher", where),
        models=models,
        entries=_entries(value["entries"], models, where),
        licences=_licences(value["licences"], models, where),
        wheels=None if wheels is None else _wheels(wheels, where),
        members=tuple(_member(each, where) for each in _list(value["members"], "members", where)),
    )
    _check_members(manifest, where)
    try:
        is_canonical = canonical(manifest) == raw
    except (ValueError, RecursionError):
        is_canonical = False
    if not is_canonical:
        raise _bad(where, "is not written as this program writes it")
    return manifest


def model_members(models: Iterable[Manifest]) -> dict[str, str]:
    """Digest → name in the bundle of every file of these models; one that several have travels once."""
    names: dict[str, str] = {}
    for model in models:
        for file in model.files:
            names.setdefault(file.sha256, f"models/{model.model}/{model.variant}/{file.name}")
    return names


def requirements_of(wheels: Wheels) -> bytes:
    """What pip is to install, each project with its version and the digests of its wheels."""
    digests: dict[str, list[str]] = {}
    for wheel in wheels.files:
        digests.setdefault(f"{wheel.project}=={wheel.version}", []).append(wheel.sha256)
    lines = [f"{name} {' '.join(f'--hash=sha256:{each}' for each in digests[name])}\n" for name in sorted(digests)]
    return "".join(lines).encode()


def names_of(models: Iterable[Manifest], licences: Mapping[str, tuple[str, ...]], wheels: Wheels | None) -> list[str]:
    """The names of all members, in their order: what is small and may be refused comes before the weights."""
    found = [name for model in sorted(licences) for name in licences[model]]
    found.append(SBOM)
    if wheels is not None:
        found += [REQUIREMENTS, *(wheel.member for wheel in wheels.files)]
    return [*found, *model_members(models).values()]


def _check_members(manifest: BundleManifest, where: str) -> None:
    names = [member.name for member in manifest.members]
    if names != names_of(manifest.models, manifest.licences, manifest.wheels) or len(set(names)) != len(names):
        raise _bad(where, "names members that are not those of its models, licences and wheels")
    members = {member.name: member for member in manifest.members}
    carried = model_members(manifest.models)
    for model in manifest.models:
        for file in model.files:
            member = members[carried[file.sha256]]
            if (member.sha256, member.size) != (file.sha256, file.size):
                raise _bad(where, f"says two things of `{member.name}`")
    if manifest.wheels is not None:
        for wheel in manifest.wheels.files:
            if members[wheel.member].sha256 != wheel.sha256:
                raise _bad(where, f"says two things of `{wheel.member}`")


def _models(value: object, where: str) -> tuple[Manifest, ...]:
    models = tuple(manifest_of(each, where) for each in _list(value, "models", where))
    if models != lock_of(models).entries or len({(each.model, each.variant) for each in models}) != len(models):
        raise _bad(where, "names a variant twice, or its models out of order")
    return models


def _entries(value: object, models: tuple[Manifest, ...], where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or value.keys() != {model.model for model in models}:
        raise _bad(where, "has not one entry of the catalogue for each model")
    if not _is_printable(value):
        raise _bad(where, "has an entry of the catalogue with characters that cannot be shown")
    check_entries(value, f"the manifest of {where}")
    for name, entry in value.items():
        told = [(each["name"], each["format"]) for each in entry["variants"]]
        if sorted(told) != [(model.variant, model.format) for model in models if model.model == name]:
            raise _bad(where, f"has an entry for `{name}` that is not of its variants")
        if any("path" in each for each in entry["variants"]):
            raise _bad(where, f"has an entry for `{name}` with a path, which is the host's to say")
    return value


def _is_printable(value: object) -> bool:
    if isinstance(value, dict):
        return all(_is_printable(each) for each in (*value.keys(), *value.values()))
    if isinstance(value, list):
        return all(map(_is_printable, value))
    return value.isprintable() if isinstance(value, str) else True


def _licences(value: object, models: tuple[Manifest, ...], where: str) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, dict) or value.keys() != {model.model for model in models}:
        raise _bad(where, "has not a licence for each model")
    found = {}
    for model, names in value.items():
        told = _list(names, "licences", where)
        for name in told:
            directory, _, last = name.rpartition("/") if isinstance(name, str) else ("", "", "")
            if directory != f"licences/{model}" or not is_licence(last) or is_refused(last):
                raise _bad(where, f"has a licence of `{model}` that is none: {name!r}")
        if not told or told != sorted(set(told)):
            raise _bad(where, f"has no licence for `{model}`, or its texts out of order")
        found[model] = tuple(told)
    return found


def _wheels(value: object, where: str) -> Wheels:
    if not isinstance(value, dict) or value.keys() != Wheels.__dataclass_fields__.keys():
        raise _bad(where, "has wheels without extra, platform, Python or files")
    files = tuple(_wheel(each, where) for each in _list(value["files"], "wheels", where))
    names = [wheel.member for wheel in files]
    if names != sorted(set(names)) or not 1 <= len(files) <= MAX_WHEELS:
        raise _bad(where, "has no wheels, one twice, or they are out of order")
    return Wheels(
        _text(value["extra"], _WORD, "extra", where),
        _text(value["platform"], _WORD, "platform", where),
        _text(value["python"], _PYTHON, "Python", where),
        files,
    )


def _wheel(value: object, where: str) -> Wheel:
    if not isinstance(value, dict) or value.keys() != Wheel.__dataclass_fields__.keys():
        raise _bad(where, "has an entry that is no wheel")
    file, level = value["file"], value["level"]
    try:
        project = parse_wheel_filename(file)[0] if isinstance(file, str) and "/" not in file else None
    except (InvalidWheelFilename, ValueError):  # a version of some thousand digits
        project = None
    if project is None or project != canonicalize_name(str(project)):
        raise _bad(where, f"has a wheel whose name is none: {file!r}")
    if level is not None and (isinstance(level, bool) or level not in LEVELS):
        raise _bad(where, f"gives `{file}` a level that is not known ({level!r})")
    return Wheel(file, _text(value["sha256"], DIGEST, "wheel", where), level)


def _member(value: object, where: str) -> Member:
    if not isinstance(value, dict) or value.keys() != Member.__dataclass_fields__.keys():
        raise _bad(where, "has an entry that is no member")
    name = value["name"]
    refusal = refuse_name(name) if isinstance(name, str) else "it is no text"
    if refusal is not None:
        raise _bad(where, f"names a member {name!r}: {refusal}")
    size = _number(value["size"], 0, MAX_SIZE, f"size of `{name}`", where)
    return Member(name, size, _text(value["sha256"], DIGEST, f"digest of `{name}`", where))


def _list(value: object, what: str, where: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > 1 << 16:
        raise _bad(where, f"has no list of {what}")
    return value


def _text(value: object, form: re.Pattern[str], what: str, where: str) -> str:
    if not isinstance(value, str) or not form.fullmatch(value):
        raise _bad(where, f"has a {what} that is none ({value!r:.60})")
    return value


def _number(value: object, least: int, most: int, what: str, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise _bad(where, f"has a {what} that is none ({value!r:.60})")
    return value


def _bad(where: str, problem: str) -> BadFile:
    return BadFile(f"the manifest of {where} {problem}", hint="it was not written by `serve bundle create`")
