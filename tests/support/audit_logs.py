"""Audit logs for tests: made small, with many segments; and what an attacker with the signing key can make of one."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from serving.audit import Audit, Limits, Places, Retention
from serving.audit.book import Book
from serving.audit.canonical import canonical
from serving.audit.chain import CHECKPOINT, HEAD, Link, checkpoint_body, head_body, write_entry
from serving.audit.keys import load_signer, make_keys
from serving.audit.records import Intent, Outcome, Started, Stopped, body_of

SMALL = Limits(checkpoint_records=10, checkpoint_s=3600, segment_bytes=6000, segment_s=86_400)


def places_in(directory: Path) -> Places:
    """A directory for a log with keys of its own."""
    places = Places(directory / "log", directory / "signing.key", directory / "fingerprint.key")
    if not places.signing_key.exists():
        make_keys(places.signing_key, places.fingerprint_key)
    return places


def public(places: Places) -> Path:
    return places.signing_key.with_name(f"{places.signing_key.name}.pub")


def intent(number: int = 0, **fields: object) -> Intent:
    known = {"request": f"req-{number}", "route": "chat.completions", "principal": "team-a", "model": "demo"}
    return Intent(**{**known, **fields})  # type: ignore[arg-type]


def outcome(number: int | None, request: str = "req-0", **fields: object) -> Outcome:
    known = {"request": request, "outcome": "completed", "status": 200, "output_tokens": 3}
    return Outcome(intent=number, **{**known, **fields})  # type: ignore[arg-type]


def clock() -> Callable[[], str]:
    """A time that goes on by a second whenever it is asked for."""
    seconds = itertools.count()

    def now() -> str:
        at = next(seconds)
        return f"2026-01-31T{at // 3600 % 24:02d}:{at // 60 % 60:02d}:{at % 60:02d}.000000Z"

    return now


def written_log(directory: Path, pairs: int = 60) -> Places:
    """A log that was closed in order: `pairs` intents with their outcomes, in several segments."""
    places = places_in(directory)
    now = clock()
    book = Book(places.directory, load_signer(places.signing_key), SMALL, now)
    book.write([(now(), body_of(Started(version="1", host="h", pid=1, fingerprint_key="0" * 16)))])
    for number in range(pairs):
        seq = book.write([(now(), body_of(intent(number)))])
        book.write([(now(), body_of(outcome(seq, f"req-{number}")))])
    book.write([(now(), body_of(Stopped()))])
    book.sign()
    book.release()
    return places


def files_of(places: Places) -> list[Path]:
    return sorted(places.directory.glob("audit-*.jsonl"))


def lines_of(places: Places) -> list[bytes]:
    return [line for path in files_of(places) for line in path.read_bytes().splitlines(keepends=True)]


def rewritten(places: Places, change: Callable[[dict], dict | None], *, with_key: bool = True) -> None:
    """Write the log anew, each record as `change` gives it (None leaves it out), numbered, chained and signed again."""
    signer = load_signer(places.signing_key)
    link, log = Link(), ""
    for path in files_of(places):
        lines = []
        segment = 0
        for raw in path.read_bytes().splitlines():
            entry = json.loads(raw)
            record = entry["record"]
            if record["kind"] == HEAD:
                log, segment = record["log"], record["segment"]
                body = head_body(log, segment, link, record["key"])
            elif record["kind"] == CHECKPOINT:
                body = checkpoint_body(log, segment, link, entry["at"], signer) if with_key else canonical(record)
            else:
                changed = change(record)
                if changed is None:
                    continue
                body = canonical(changed)
            line, link = write_entry(link, entry["at"], body)
            lines.append(line)
        path.write_bytes(b"".join(lines))


def open_audit(places: Places, limits: Limits = SMALL, retention: Retention | None = None, **named: object) -> Audit:
    return Audit.open(places, version="1", limits=limits, retention=retention, **named)  # type: ignore[arg-type]


def write_lines(path: Path, lines: Iterable[bytes]) -> Path:
    path.write_bytes(b"".join(lines))
    return path
