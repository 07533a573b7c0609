"""`serve audit show|verify|export|keygen`: the record, for those who read and check it."""

from __future__ import annotations

import json
import os
import re
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from serving.audit.inventory import Inventory, take_inventory
from serving.audit.keys import make_keys
from serving.audit.log import places_of
from serving.audit.reading import read_lines, verify_log
from serving.audit.verify import Report
from serving.cli.options import settings_for
from serving.cli.show import print_json, print_rows
from serving.errors import AuditBroken, BadFile, UsageError

_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d(T\d\d(:\d\d(:\d\d(\.\d{1,6})?)?)?)?Z?")
_NAMES_KEY: Final = ("key", "successor")
_UNSHOWN: Final = frozenset({"kind", "signature", "chain", "log", "previous"})


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which entries; what is None or empty does not restrict."""

    kinds: tuple[str, ...] = ()
    key: str | None = None
    request: str | None = None
    since: str | None = None
    until: str | None = None

    def __post_init__(self) -> None:
        for flag, time in (("--since", self.since), ("--until", self.until)):
            if time is not None and not _TIME.fullmatch(time):
                raise UsageError(
                    f"`{flag} {time}` is no time", hint="in UTC, such as `2026-01-31` or `2026-01-31T12:00`"
                )

    def takes(self, entry: Mapping[str, Any]) -> bool:
        """Whether an entry is one of them. Times are texts of one form, so that they compare as such."""
        record, at = entry["record"], entry["at"]
        return (
            (not self.kinds or record["kind"] in self.kinds)
            and (self.key is None or self.key in [record.get(name) for name in _NAMES_KEY])
            and (self.request is None or record.get("request") == self.request)
            and (self.since is None or at >= self.since.removesuffix("Z"))
            and (self.until is None or at < self.until.removesuffix("Z"))
        )


def show_records(directory: Path | None, wanted: Wanted, last: int, config: Path | None, *, as_json: bool) -> int:
    """Print entries."""
    chosen = deque((entry for _, entry in _entries(directory, config, wanted)), maxlen=last or None)
    if as_json:
        print_json(list(chosen))
        return 0
    rows = [(str(entry["seq"]), entry["at"], entry["record"]["kind"], _told(entry["record"])) for entry in chosen]
    print_rows([("SEQ", "TIME", "KIND", "WHAT"), *rows])
    return 0


def export_records(directory: Path | None, output: Path | None, wanted: Wanted, config: Path | None) -> int:
    """Write entries as they stand."""
    lines = (line for line, _ in _entries(directory, config, wanted))
    if output is None:
        sys.stdout.flush()
        sys.stdout.buffer.writelines(lines)
        sys.stdout.buffer.flush()
        return 0
    try:
        with output.open("xb") as file:
            file.writelines(lines)
    except FileExistsError:
        raise UsageError(f"`{output}` is there already", hint="name another file") from None
    except OSError as error:
        raise UsageError(f"`{output}` cannot be written: {error.strerror}") from None
    return 0


def verify_records(
    directory: Path | None,
    keys: Sequence[Path],
    anchors: Sequence[Path],
    content: Path | None,
    config: Path | None,
    *,
    as_json: bool,
) -> int:
    """Check a log. Raises AuditBroken where it is not what was written, after saying where."""
    places = places_of(settings_for(config).audit, os.environ)
    where = directory or places.directory
    public = keys or [places.signing_key.with_name(f"{places.signing_key.name}.pub")]
    report = verify_log(where, public, anchors)
    inventory = None if content is None else take_inventory(read_lines(where), content)
    if as_json:
        told = {} if inventory is None else {"content": {"sound": inventory.is_sound, **asdict(inventory)}}
        print_json({"sound": report.is_sound, "directory": where, **asdict(report), **told})
    else:
        _print_report(report)
        if inventory is not None:
            _print_inventory(inventory)
    if not report.is_sound:
        count = len(report.breaks) + report.further_breaks
        message = f"the audit log in `{where}` is not what was written: {count} break{'s' if count > 1 else ''}"
        raise AuditBroken(message, hint="keep the files as they are, and compare them with what left the host")
    if inventory is not None and not inventory.is_sound:
        message = f"the content in `{content}` is not what the audit log names"
        raise AuditBroken(message, hint="keep the files as they are; a copy of them may have what is missing")
    return 0


def make_audit_keys(config: Path | None, *, as_json: bool) -> int:
    """Make the keys."""
    places = places_of(settings_for(config).audit, os.environ)
    public = make_keys(places.signing_key, places.fingerprint_key)
    told = {
        "signing_key": places.signing_key,
        "public_key": places.signing_key.with_name(f"{places.signing_key.name}.pub"),
        "fingerprint_key": places.fingerprint_key,
        "fingerprint": public.fingerprint,
    }
    if as_json:
        print_json(told)
    else:
        print_rows([(name.replace("_", " "), str(value)) for name, value in told.items()])
        sys.stderr.write(
            "hand the public key to those who verify, and keep a copy of both others where none may read\n"
        )
    return 0


def _entries(directory: Path | None, config: Path | None, wanted: Wanted) -> Iterator[tuple[bytes, dict[str, Any]]]:
    where = directory or places_of(settings_for(config).audit, os.environ).directory
    for number, line in enumerate(read_lines(where), 1):
        try:
            entry = json.loads(line)
            is_wanted = wanted.takes(entry)
        except (ValueError, TypeError, KeyError, AttributeError):
            message = f"line {number} of the audit log in `{where}` is no entry"
            raise BadFile(message, hint="`serve audit verify` says what is wrong") from None
        if is_wanted:
            yield line, entry


def _told(record: Mapping[str, Any]) -> str:
    """The fields of a record on one line that steers no terminal."""
    words = [f"{name}={json.dumps(value)}" for name, value in record.items() if name not in _UNSHOWN]
    return " ".join(words)


def _print_report(report: Report) -> None:
    rows = [
        ("entries", f"{report.entries} in {report.segments} segments, from {report.first_seq} to {report.last_seq}"),
        ("signed", f"to entry {report.signed_through}"),
        ("ended", "in order" if report.is_closed else "not, or not yet"),
        ("open intents", _numbers(report.open_intents)),
        ("kinds", ", ".join(f"{count} {kind}" for kind, count in report.kinds.items()) or "–"),
    ]
    print_rows([("log", "sound" if report.is_sound else "BROKEN"), *rows])
    for note in report.notes:
        sys.stdout.write(f"note: {note}\n")
    for each in report.breaks:
        sys.stdout.write(f"- {each}\n")
    if report.further_breaks:
        sys.stdout.write(f"- and {report.further_breaks} more\n")


def _print_inventory(inventory: Inventory) -> None:
    told = [f"{inventory.named} named", f"{inventory.sound} sound", f"{inventory.erased} erased"]
    told += [f"{inventory.removed} removed", f"{inventory.lost} could not be written"]
    print_rows([("content", f"{'sound' if inventory.is_sound else 'BROKEN'}: {', '.join(told)}")])
    for note in inventory.notes:
        sys.stdout.write(f"note: {note}\n")
    for problem in inventory.problems:
        sys.stdout.write(f"- {problem}\n")
    if inventory.further_problems:
        sys.stdout.write(f"- and {inventory.further_problems} more\n")


def _numbers(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:10]))
    return f"{len(numbers)}: {shown}{', …' if len(numbers) > 10 else ''}" if numbers else "none"
