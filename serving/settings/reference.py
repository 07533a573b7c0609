"""The reference of all settings, written from their descriptions: an example file, and a page of the docs."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

from serving.settings.load import TABLES, FieldPath, walk_fields
from serving.settings.model import Settings
from serving.settings.section import Section
from serving.settings.wording import allowed, describe

HEAD = """\
# Every setting with its default. Layers, the later over the earlier: these defaults, /etc/perimeter/serving.toml (or
# the file that --config or PERIMETER_CONFIG names), environment variables PERIMETER_TABLE__FIELD, flags.
# Written from serving/settings/model.py by `python -m serving.settings toml`; a test keeps it true.
"""


def to_toml() -> str:
    """The example file: every field with its default, those without one as a comment."""
    lines = [HEAD]
    table: FieldPath = ()
    for path, field in walk_fields():
        if path[:-1] != table:
            table = path[:-1]
            lines += ["", *_comment(_section(table).__doc__ or ""), f"[{'.'.join(table)}]"]
        lines += _comment(describe(field))
        value = field.get_default()
        # Only paths have no default.
        lines.append(f'# {path[-1]} = "/path"' if value is None else f"{path[-1]} = {_literal(value)}")
    for path, section in TABLES.items():
        lines += ["", *_comment(section.__doc__ or ""), f"# [[{'.'.join(path)}]]"]
        for name, field in section.model_fields.items():
            lines += _comment(describe(field))
            lines.append(f"# {name} = …")
    return "\n".join(lines).replace("\n\n\n", "\n\n") + "\n"


def to_markdown() -> str:
    """The page docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "Layers, the later over the earlier: defaults, `/etc/perimeter/serving.toml` (or the file that `--config` or",
        "`PERIMETER_CONFIG` names), environment variables (`server.port` is `PERIMETER_SERVER__PORT`), flags. An",
        "unknown name or a value out of bounds is an error that says where it stands. `configs/serving.toml` is the",
        "same as a file.",
        "",
        "Written by `python -m serving.settings markdown`.",
    ]
    table: FieldPath | None = None
    for path, field in walk_fields():
        if path[:-1] != table:
            table = path[:-1]
            title = f"`[{'.'.join(table)}]`" if table else "Outside all tables"
            about = " ".join((_section(table).__doc__ or "").split()) if table else "They stand before the first one."
            lines += ["", f"## {title}", "", about, "", "| field | default | allowed | what |"]
            lines.append("|---|---|---|---|")
        value = field.get_default()
        default = "unset" if value is None else f"`{_literal(value)}`"
        bounds = allowed(field).replace("|", "\\|")
        lines.append(f"| `{path[-1]}` | {default} | {bounds} | {field.description} |")
    for path, section in TABLES.items():
        lines += ["", f"## `[[{'.'.join(path)}]]`", "", " ".join((section.__doc__ or "").split()), ""]
        lines += ["| field | allowed | what |", "|---|---|---|"]
        for name, field in section.model_fields.items():
            bounds = allowed(field).replace("|", "\\|")
            lines.append(f"| `{name}` | {bounds} | {field.description} |")
    return "\n".join(lines) + "\n"


def _section(path: FieldPath) -> type[Section]:
    section: Any = Settings
    for name in path:
        section = section.model_fields[name].annotation
    found: type[Section] = section
    return found


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(" ".join(text.split()), 116)]


def _literal(value: object) -> str:
    return json.dumps(str(value) if isinstance(value, Path) else value)
