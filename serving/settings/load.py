"""Layers of settings: defaults < file < environment < flags, and errors that say which of them is wrong."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError

from serving.errors import BadSettings
from serving.settings.callers import ClientCertificate, OidcGroup
from serving.settings.model import Served, Settings
from serving.settings.section import Section
from serving.settings.wording import also, describe, mistake, shown

SITE_FILE = Path("/etc/perimeter/serving.toml")
PREFIX = "PERIMETER_"
CONFIG_VARIABLE = "PERIMETER_CONFIG"
WITHOUT_VARIABLE = "PERIMETER_WITHOUT"
"""Tables that count as left out, whatever file and environment say: dotted names with commas between. It is for servers
that commands start for themselves, and stands in no documentation of settings."""

_OWN_VARIABLES = frozenset({CONFIG_VARIABLE, WITHOUT_VARIABLE})
_SERVICE_LINKS = tuple(
    (re.compile(rf"PERIMETER(_[A-Z0-9]+)*_({name})"), re.compile(value))
    for name, value in (
        (r"SERVICE_HOST|PORT_\d+_(TCP|UDP|SCTP)_ADDR", r"[0-9.]+|[0-9a-fA-F:]+"),
        (r"SERVICE_PORT(_[A-Z0-9]+)*|PORT_\d+_(TCP|UDP|SCTP)_PORT", r"\d+"),
        (r"PORT(_\d+_(TCP|UDP|SCTP))?", r"(tcp|udp|sctp)://\S+"),
        (r"PORT_\d+_(TCP|UDP|SCTP)_PROTO", r"tcp|udp|sctp"),
    )
)
"""What Kubernetes puts into every pod of a namespace that has a Service named `perimeter…`, names and values."""

FieldPath = tuple[str, ...]
TABLES: Final[Mapping[FieldPath, type[Section]]] = {
    ("models",): Served,
    ("access", "certificates"): ClientCertificate,
    ("access", "oidc", "groups"): OidcGroup,
}
"""The settings that are lists of tables, and what each table is."""


def load_settings(
    config: Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
    site_file: Path = SITE_FILE,
) -> Settings:
    """The settings in force.

    `config` replaces the site file and must exist; `environment` holds `PERIMETER_SECTION__FIELD` variables (and
    `PERIMETER_CONFIG`, a path, used where `config` is None, and `PERIMETER_WITHOUT`, tables that are left out); `flags`
    maps dotted names (`server.port`) to values, None meaning "not given". Raises BadSettings naming source, table,
    field, value and what is allowed.
    """
    environment = environment or {}
    if config is None and environment.get(CONFIG_VARIABLE):
        config = Path(environment[CONFIG_VARIABLE])
    layers = _Layers()
    if config is not None or site_file.is_file():
        path = config or site_file
        layers.add_tree(_read_toml(path), source=f"`{path}`")
    for name, text in sorted(environment.items()):
        if name.startswith(PREFIX) and name not in _OWN_VARIABLES and not _is_service_link(name, text):
            field = tuple(name.removeprefix(PREFIX).lower().split("__"))
            layers.add(field, _from_text(field, text, name), source=f"environment `{name}`")
    for table in filter(None, environment.get(WITHOUT_VARIABLE, "").split(",")):
        layers.leave_out(tuple(table.split(".")))
    for dotted, value in (flags or {}).items():
        if value is not None:
            layers.add(
                tuple(dotted.split(".")), value, source=f"flag `--{dotted.rpartition('.')[2].replace('_', '-')}`"
            )
    try:
        return Settings.model_validate(layers.tree)
    except ValidationError as failure:
        raise _bad_settings(failure, layers) from None


def walk_fields(section: type[Section] = Settings, prefix: FieldPath = ()) -> Iterator[tuple[FieldPath, Any]]:
    """Every setting as (path, pydantic field), in the order of the reference; tables themselves are left out."""
    for name, info in section.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, Section):
            yield from walk_fields(info.annotation, (*prefix, name))
        elif (*prefix, name) not in TABLES:
            yield (*prefix, name), info


class _Layers:
    """The merged tree, and where each value came from."""

    def __init__(self) -> None:
        self.tree: dict[str, Any] = {}
        self._sources: dict[FieldPath, str] = {}

    def add(self, path: FieldPath, value: object, *, source: str) -> None:
        table = self.tree
        for name in path[:-1]:
            table = table.setdefault(name, {})
        table[path[-1]] = value
        self._sources[path] = source

    def add_tree(self, tree: Mapping[str, object], *, source: str, prefix: FieldPath = ()) -> None:
        for name, value in tree.items():
            path = (*prefix, name)
            if _is_table(path) and not isinstance(value, dict):
                raise _no_table(path, value, source)
            if isinstance(value, dict) and _is_table(path):
                self._sources[path] = source
                self.add_tree(value, source=source, prefix=path)
                table = self.tree
                for part in path:
                    table = table.setdefault(part, {})
            else:
                self.add(path, value, source=source)

    def leave_out(self, path: FieldPath) -> None:
        """Forget a table, if there is one. Raises BadSettings where there can be none of that name."""
        if not _is_table(path) and path not in TABLES:
            message = f"environment variable `{WITHOUT_VARIABLE}`: `{'.'.join(path)}` is no table"
            raise BadSettings(message, hint="write names such as `server.tls`, with commas between")
        table: object = self.tree
        for name in path[:-1]:
            table = table.get(name) if isinstance(table, dict) else None
        if isinstance(table, dict):
            table.pop(path[-1], None)

    def source_of(self, path: FieldPath) -> str:
        for length in range(len(path), 0, -1):
            if source := self._sources.get(path[:length]):
                return source
        return "settings"


def _no_table(path: FieldPath, value: object, source: str) -> BadSettings:
    fields = ", ".join(_annotation(path).model_fields)
    name = ".".join(path)
    message = f"{source}: `{name}` = `{shown(value)}`: `{name}` must be a table"
    return BadSettings(message, hint=f"write `[{name}]` on a line of its own, and its fields below it: {fields}")


def _is_service_link(name: str, value: str) -> bool:
    return any(names.fullmatch(name) and values.fullmatch(value) for names, values in _SERVICE_LINKS)


def _is_table(path: FieldPath) -> bool:
    return isinstance(_annotation(path), type) and issubclass(_annotation(path), BaseModel)


def _annotation(path: FieldPath) -> Any:
    section: Any = Settings
    for name in path:
        if get_origin(section) is list and name.isdigit():
            (section,) = get_args(section)
            continue
        if not (isinstance(section, type) and issubclass(section, BaseModel)) or name not in section.model_fields:
            return None
        section = section.model_fields[name].annotation
    return section


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        message = f"settings file `{path}` does not exist"
        raise BadSettings(message, hint="name one that does with --config, or leave it out for the defaults") from None
    except (OSError, UnicodeDecodeError) as failure:
        message = f"cannot read settings file `{path}`: {failure}"
        raise BadSettings(message, hint="it must be a UTF-8 text file that this user may read") from None
    except tomllib.TOMLDecodeError as failure:
        message = f"settings file `{path}` is not TOML: {failure}"
        raise BadSettings(message, hint="configs/serving.toml shows every table and field") from None


def _from_text(path: FieldPath, text: str, variable: str) -> object:
    """An environment variable's text as the type of the field it names."""
    if _annotation(path) is None or _is_table(path):
        known = [PREFIX + "__".join(field).upper() for field, _ in walk_fields()]
        near = _near(variable, known)
        hint = f"did you mean {_quoted(near)}?" if near else "docs/settings.md lists all of them"
        message = f"environment variable `{variable}` names no setting"
        raise BadSettings(message, hint=hint)
    try:
        return TypeAdapter(_annotation(path)).validate_strings(text)
    except ValidationError:
        return text  # the whole tree's validation says what is wrong, with the bounds


def _bad_settings(failure: ValidationError, layers: _Layers) -> BadSettings:
    first, *others = failure.errors(include_url=False)
    path = tuple(str(part) for part in first["loc"])
    more = also(".".join(map(str, other["loc"])) for other in others)
    if first["type"] == "extra_forbidden":
        return _unknown_field(path, layers, more)
    place = f"`{'.'.join(path)}` = `{shown(first['input'])}`: " if path else ""  # else it is of several tables
    message = f"{layers.source_of(path)}: {place}{mistake(first)}"
    described = _described(path)
    hint = describe(described) if described is not None else "docs/settings.md lists all settings"
    return BadSettings(message, hint=f"{hint}{more}")


def _described(path: FieldPath) -> Any:
    """The field of that name, in a table or in one of a list of tables; None where there is none."""
    for at, section in TABLES.items():
        if path[: len(at)] == at and len(path) == len(at) + 2:
            return section.model_fields.get(path[-1])
    return dict(walk_fields()).get(path)


def _near(variable: str, known: list[str]) -> list[str]:
    """The variables that may have been meant: those that differ in underscores first, then in letters."""
    alike = [name for name in known if name.replace("_", "") == variable.replace("_", "")]
    rest = variable.removeprefix(PREFIX).replace("__", "_").replace("_", "__")
    ends = [name for name in known if name.endswith(f"__{rest}")]
    return alike or ends or difflib.get_close_matches(variable, known, n=3)


def _unknown_field(path: FieldPath, layers: _Layers, more: str) -> BadSettings:
    known = list(_annotation(path[:-1]).model_fields)
    table = ".".join(path[:-1])
    where = f"table `[{table}]`" if table else "the top level"
    near = difflib.get_close_matches(path[-1], known, n=1)
    guess = f"did you mean `{near[0]}`? " if near else ""
    message = f"{layers.source_of(path)}: {where} has no field `{path[-1]}`"
    return BadSettings(message, hint=f"{guess}allowed: {', '.join(known)}{more}")


def _quoted(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
