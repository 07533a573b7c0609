"""`serve trust`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from serving.bundle.keys import Trust
from serving.cli.options import settings_for
from serving.cli.runtime import trust_dir
from serving.cli.show import print_json, print_rows
from serving.errors import UsageError
from serving.keyfiles import load_public


def trust_of(config: Path | None) -> Trust:
    """The keys that were enrolled on this host."""
    return Trust(trust_dir(settings_for(config).paths.trust_dir, os.environ))


def add_key(file: Path, name: str | None, fingerprint: str | None, config: Path | None) -> int:
    """Enrol the key in `file` once its fingerprint has been typed."""
    publisher = load_public(file, name or file.name.removesuffix(".pub").removesuffix(".pem"))
    if fingerprint is None:
        if not sys.stdin.isatty():
            message = "the fingerprint is typed by a person, and stdin is no terminal"
            raise UsageError(message, hint="--fingerprint gives it; not the one from the file, but the publisher's own")
        sys.stderr.write(f"the key in `{file}` has the fingerprint\n\n    {publisher.fingerprint}\n\n")
        sys.stderr.write("compare it with what the publisher told you, by another way than this file, and type that: ")
        sys.stderr.flush()
        fingerprint = sys.stdin.readline()
    path = trust_of(config).add(publisher, fingerprint)
    sys.stderr.write(f"bundles of `{publisher.name}` are taken from now on: `{path}`\n")
    return 0


def list_keys(config: Path | None, *, as_json: bool) -> int:
    """Print who is enrolled."""
    publishers = trust_of(config).publishers()
    if as_json:
        print_json([{"name": each.name, "fingerprint": each.fingerprint} for each in publishers])
    else:
        print_rows([("NAME", "FINGERPRINT"), *((each.name, each.fingerprint) for each in publishers)])
    return 0


def remove_key(name: str, config: Path | None) -> int:
    """Take a key away."""
    removed = trust_of(config).remove(name)
    sys.stderr.write(f"bundles of `{removed.name}` ({removed.fingerprint}) are not taken any more\n")
    return 0
