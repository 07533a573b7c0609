"""A process that scans: texts come on its standard input, findings go to its standard output. It has no other way.

What it scans by comes the same way, before the first text and whenever it changes: a table is that, a list is texts.
What it has found is remembered by keyed hashes alone (`serving.policy.detect.memory`), until it is told to scan by
something else, or ends.
"""

from __future__ import annotations

import functools
import json
import os
import resource
import signal
from typing import BinaryIO

from serving.egress.workers import read_parts, unknown, written
from serving.engines.confinement.sealing import hide_memory, leave_no_core
from serving.policy.detect import DetectSettings, Finding, NameFinder, Scanner, Verdict
from serving.policy.detect.memory import Memory
from serving.policy.detect.vocabulary import Pattern, SiteVocabulary, Terms

_HEAD = 4
_MOST_BYTES = 4 << 30
"""Of address space: what takes more is ended by the kernel, and its scan is UNKNOWN."""
_MEMORY = Memory()


def main() -> None:
    """Scan until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    leave_no_core()
    hide_memory()
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
    answers, questions = os.fdopen(os.dup(1), "wb"), os.fdopen(os.dup(0), "rb")
    os.dup2(2, 1)  # whatever a library prints is no answer
    scanner: Scanner | None = None
    while (message := _next(questions)) is not None:
        told = json.loads(message)
        if isinstance(told, dict):
            _MEMORY.forget()
            scanner = _scanner(told)
            answer = Finding(Verdict.UNKNOWN, (), tuple(sorted(scanner.detectors)))
        else:
            answer = _scanned(scanner, told)
        answers.write(written(answer))
        answers.flush()


def _scanned(scanner: Scanner | None, told: object) -> Finding:
    try:
        parts, owner = read_parts(told)
        _MEMORY.enter(owner)
        return unknown("detector_failed:settings") if scanner is None else scanner.scan(parts)
    except Exception as error:  # noqa: BLE001 - what it is, is all that may be said of it
        return unknown(f"detector_failed:{type(error).__name__}")


def _scanner(told: dict[str, object]) -> Scanner:
    """A scanner by these settings; where there can be none the process ends, and says no more than why."""
    try:
        return Scanner(_settings(told), _names() if told["names"] else None)
    except Exception as error:  # noqa: BLE001 - its words may be the site's own
        raise SystemExit(f"nothing can be scanned by these settings: {type(error).__name__}") from None


def _settings(told: dict[str, object]) -> DetectSettings:
    terms = tuple(Terms(name, tuple(each)) for name, each in dict(told["terms"]).items())  # type: ignore[call-overload]
    patterns = tuple(Pattern(name, each) for name, each in dict(told["patterns"]).items())  # type: ignore[call-overload]
    return DetectSettings(
        most_chars=int(told["most_chars"]),  # type: ignore[call-overload]
        names=bool(told["names"]),
        site=SiteVocabulary(terms, patterns),
    )


@functools.cache
def _names() -> NameFinder | None:
    """What finds names, where it is installed; read once."""
    from serving.policy.detect.names import open_names  # noqa: PLC0415 - models of a hundred megabytes

    return open_names(_MEMORY)


def _next(questions: BinaryIO) -> bytes | None:
    head = questions.read(_HEAD)
    return questions.read(int.from_bytes(head, "little")) if len(head) == _HEAD else None


if __name__ == "__main__":
    main()
