"""`serve route replay`: the decisions of the record, decided again under another policy."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from serving.audit.chain import NotAnEntry, read_entry
from serving.audit.reading import read_lines
from serving.audit.records import Routed
from serving.cli.options import settings_for
from serving.cli.show import print_json
from serving.egress.rooms import rooms_of
from serving.policy.load import load_policy
from serving.policy.published import published
from serving.policy.replay import Change, Decided, decided, replay, replay_text


def replay_log(directory: Path | None, policy: Path, config: Path | None, *, as_json: bool) -> int:
    """Print what the policy in a file would change. Raises ServingError."""
    new = load_policy(policy)
    log = directory or rooms_of(settings_for(config), os.environ).audit.directory
    read = list(_decided(log))
    found = [each for each in read if each is not None]
    unread = len(read) - len(found)
    changes = replay(found, new)
    if as_json:
        print_json({
            "policy": new.digest,
            "requests": len(found),
            "unread": unread,
            "changes": [_plain(each) for each in changes],
        })  # fmt: skip
        return 0
    sys.stdout.write(f"{replay_text(changes, len(found))}\n")
    if unread:
        sys.stdout.write(f"{unread} lines of the record could not be read, and count for nothing here\n")
    return 0


def _decided(log: Path) -> Iterator[Decided | None]:
    """The decisions that the gateway was told, in order; None for a line that says nothing that is understood."""
    figures = published()
    mark = f'"kind":"{Routed.kind}"'.encode()
    for line in read_lines(log):
        if mark not in line:
            continue
        try:
            entry = read_entry(line.rstrip(b"\n"))
            if entry.kind == Routed.kind and (one := decided(entry.record, figures)) is not None:
                yield one
        except (NotAnEntry, ValueError, KeyError):
            yield None


def _plain(change: Change) -> dict[str, object]:
    return {
        "request": change.at,
        "before": change.before,
        "after": change.after.destination,
        "zone": change.after.zone,
        "rule": change.after.rule,
        "why": [each.why for each in change.after.reasons],
    }
