"""`serve audit content`: what was recorded of prompts and answers, for the auditor."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import serving
from serving.audit import Audit
from serving.audit.auditor import load_private_auditor, make_auditor
from serving.audit.content import ContentStore, content_directory
from serving.audit.counter import ask, key_from, show
from serving.audit.inventory import list_contents
from serving.audit.log import places_of
from serving.audit.reading import read_lines
from serving.cli.options import settings_for
from serving.cli.show import print_json, print_rows
from serving.errors import UsageError
from serving.keyfiles import fingerprint_of
from serving.settings import Settings


def make_auditor_keys(path: Path, *, as_json: bool) -> int:
    """Make the auditor's pair."""
    public = make_auditor(path)
    told = {
        "private_key": path,
        "public_key": path.with_name(f"{path.name}.pub"),
        "fingerprint": fingerprint_of(public),
    }
    if as_json:
        print_json(told)
    else:
        print_rows([(name.replace("_", " "), str(value)) for name, value in told.items()])
        sys.stderr.write(
            "the server gets the public key (audit.content.public_key); keep the private one away from its host\n"
        )
    return 0


def show_content(content: str, key: Path, reason: str, config: Path | None) -> int:
    """Print one prompt or answer; that is in the audit log before."""
    settings = settings_for(config)
    private = load_private_auditor(key)

    def wrapped_key_of(content: str) -> bytes:
        return key_from(_ask(settings, "read", {"content": content, "reason": reason}))

    heading, text = show(content_directory(settings.audit.content, os.environ), content, private, wrapped_key_of)
    cut = f"; cut: {heading.kept:,} of {heading.size:,} bytes" if heading.is_cut else ""
    sys.stderr.write(f"{heading.kind} of the key {heading.key}, request {heading.request}, {heading.at}{cut}\n")
    sys.stderr.flush()
    if sys.stdout.isatty():
        sys.stdout.write(harmless(text.decode("utf-8", "replace")) + "\n")
    else:
        sys.stdout.buffer.write(text)
    sys.stdout.flush()
    return 0


def erase_content(
    content: str | None, key: str | None, before: str | None, reason: str, config: Path | None, *, as_json: bool
) -> int:
    """Erase what is named; that is in the audit log before."""
    if content is None and key is None and before is None:
        raise UsageError("nothing is named that is to be erased", hint="an ID, --key-id KEY or --before DAY")
    if content is not None and (key is not None or before is not None):
        raise UsageError("an ID is one record, and goes with nothing else", hint="leave --key-id and --before out")
    named = {"content": content, "key": key, "before": before}
    body = {name: value for name, value in named.items() if value is not None}
    erased = _ask(settings_for(config), "erase", {**body, "reason": reason})["erased"]
    if as_json:
        print_json({"erased": erased})
    else:
        sys.stderr.write(f"{len(erased)} erased\n")
    return 0


def list_content(key: str | None, config: Path | None, *, as_json: bool) -> int:
    """Print which records there are."""
    audit = settings_for(config).audit
    lines = read_lines(places_of(audit, os.environ).directory)
    found = list(list_contents(lines, content_directory(audit.content, os.environ), key or ""))
    if as_json:
        print_json([{**asdict(heading), "is_cut": heading.is_cut, "is_erased": gone} for heading, gone in found])
        return 0
    rows = [("ID", "TIME", "KIND", "KEY", "REQUEST", "BYTES", "STATE")]
    for each, is_erased in found:
        state = "erased" if is_erased else "kept"
        state += f"; cut, had {each.size}" if each.is_cut else ""
        rows.append((each.content, each.at, each.kind, each.key, harmless(each.request), str(each.kept), state))
    print_rows(rows)
    return 0


def _ask(settings: Settings, operation: str, body: Mapping[str, object]) -> dict[str, Any]:
    places = places_of(settings.audit, os.environ)

    @contextlib.contextmanager
    def opened() -> Iterator[ContentStore]:
        audit = Audit.from_settings(places, settings.audit, version=serving.__version__)
        try:
            directory = content_directory(settings.audit.content, os.environ)
            store = ContentStore.from_settings(directory, settings.audit.content, audit)
            try:
                yield store
            finally:
                store.close()
        finally:
            audit.close()

    return ask(places.directory, operation, body, opened)


def harmless(text: str) -> str:
    """The text with everything escaped that could steer a terminal."""
    return "".join(each if each.isprintable() or each in "\n\t" else repr(each)[1:-1] for each in text)
