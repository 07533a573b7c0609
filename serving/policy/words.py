"""A site's own words and patterns as the policy has them: written there, or kept in a file that only few may read.

A file's bytes are part of the policy: its SHA-256 goes into the policy's digest. A line of random letters in a comment
keeps somebody who has the digest and the rest of the policy from trying out what the words may be.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field

from serving.errors import BadSettings
from serving.policy.detect.site import refusal, words_of
from serving.policy.detect.vocabulary import Pattern, SiteVocabulary, Terms
from serving.policy.model import SiteWords

WordsName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,47}$")]
_MOST_BYTES: Final = 4 << 20
_MOST_TERMS: Final = 10_000
_MOST_PATTERNS: Final = 100
"""Each may take the memory of an automaton in every process that scans."""
_BY_OTHERS: Final = 0o027
"""Others may not read it, and nobody but its owner may write it."""


def site_words(
    terms: Mapping[str, object], patterns: Mapping[str, object], where: str, directory: Path
) -> tuple[SiteWords, ...]:
    """The tables `detection.terms` and `detection.patterns`, checked; `where` names the policy in errors.

    Raises BadSettings that names the field, and a pattern that stands in the policy; what a file keeps is not shown.
    """
    found = [_terms(name, terms[name], where, directory) for name in sorted(terms)]
    if sum(len(each.texts) for each in found) > _MOST_TERMS:
        raise BadSettings(f"{where}: `detection.terms` has more than {_MOST_TERMS:,} terms")
    found += [_pattern(name, patterns[name], where, directory) for name in sorted(patterns)]
    if len(patterns) > _MOST_PATTERNS:
        raise BadSettings(f"{where}: `detection.patterns` has more than {_MOST_PATTERNS} patterns")
    return tuple(found)


def named_files(policy: Path) -> tuple[Path, ...]:
    """The files of words that the policy in a file names, as far as it can be read at all. Never raises."""
    try:
        with policy.open("rb") as file:
            detection = tomllib.loads(file.read(_MOST_BYTES).decode())["detection"]
        tables = [detection.get(name, {}) for name in ("terms", "patterns")]
        entries = [entry for table in tables for entry in table.values()]
    except (OSError, ValueError, LookupError, RecursionError, AttributeError):
        return ()
    names = [entry.get("file") for entry in entries if isinstance(entry, dict)]
    return tuple(policy.parent / name for name in names if isinstance(name, str) and "\0" not in name)


def _terms(name: str, value: object, where: str, directory: Path) -> SiteWords:
    field = f"{where}: `detection.terms.{name}`"
    sha256 = None
    if isinstance(value, dict):
        lines, sha256 = _kept(value, field, directory)
    elif isinstance(value, list) and all(isinstance(each, str) for each in value):
        lines = value
    else:
        raise BadSettings(f"{field} must be a list of texts", hint='or `{ file = "PATH" }`, with a term on each line')
    if not lines:
        raise BadSettings(f"{field} has no term", hint="leave it out")
    for number, term in enumerate(lines, 1):
        _check_term(name, term, f"{field}: term {number}")
    return SiteWords(name, "terms", tuple(lines), sha256)


def _check_term(name: str, term: str, field: str) -> None:
    try:
        SiteVocabulary(terms=(Terms(name, (term,)),))
    except BadSettings:
        raise BadSettings(f"{field} is empty, too long, or has no letter") from None
    if not words_of(term):
        raise BadSettings(f"{field} could never be found: nothing of it is a letter or a digit")


def _pattern(name: str, value: object, where: str, directory: Path) -> SiteWords:
    field = f"{where}: `detection.patterns.{name}`"
    sha256 = None
    shown = ""
    if isinstance(value, dict):
        lines, sha256 = _kept(value, field, directory)
        if len(lines) != 1:
            raise BadSettings(f"{field}: its file must have one line that is no comment")
        regex = lines[0]
    elif isinstance(value, str):
        regex, shown = value, f" = `{value}`"
    else:
        raise BadSettings(f"{field} must be a text", hint='or `{ file = "PATH" }`, with the pattern on one line')
    try:
        SiteVocabulary(patterns=(Pattern(name, regex),))
    except BadSettings:
        raise BadSettings(f"{field} is empty, or has too many characters") from None
    why = refusal(regex)
    if why is not None:
        told = why if sha256 is None else why.partition(":")[0]  # behind the colon it repeats the pattern
        hint = "RE2's syntax: no references back (`\\1`) and no look-around; docs/detection.md"
        raise BadSettings(f"{field}{shown}: RE2 does not take it: {told}", hint=hint)
    return SiteWords(name, "pattern", (regex,), sha256)


def _kept(value: Mapping[str, object], field: str, directory: Path) -> tuple[Sequence[str], str]:
    """The lines of a file that are no comments, and the SHA-256 of all of it. Raises BadSettings."""
    name = value.get("file")
    if not isinstance(name, str) or not name or "\0" in name or value.keys() != {"file"}:
        raise BadSettings(f"{field} must name a file and nothing else", hint='write `{ file = "PATH" }`')
    path = directory / name
    raw = _read(path, field)
    try:
        lines = [line.strip() for line in raw.decode("utf-8-sig").split("\n")]
    except UnicodeDecodeError:
        raise BadSettings(f"{field}: the file `{path}` is not UTF-8") from None
    return [line for line in lines if line and not line.startswith("#")], hashlib.sha256(raw).hexdigest()


def _read(path: Path, field: str) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise BadSettings(f"{field}: the file `{path}` cannot be read: {error.strerror}") from None
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode):
            raise BadSettings(f"{field}: `{path}` is no file")
        if facts.st_mode & _BY_OTHERS:
            message = f"{field}: others may read or write the file `{path}` (mode {stat.S_IMODE(facts.st_mode):o})"
            raise BadSettings(message, hint=f"chmod 640 {path}, and give it to the group of `serve egress`")
        if facts.st_size > _MOST_BYTES:
            raise BadSettings(f"{field}: the file `{path}` has more than {_MOST_BYTES:,} bytes")
        with os.fdopen(os.dup(descriptor), "rb") as file:
            return file.read(_MOST_BYTES)
    except OSError as error:
        raise BadSettings(f"{field}: the file `{path}` cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)
