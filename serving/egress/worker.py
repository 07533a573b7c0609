"""A process that scans: texts come on its standard input, findings go to its standard output. It has no other way."""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from typing import BinaryIO

from serving.egress.workers import read_parts, unknown, written
from serving.engines.confinement.sealing import hide_memory, leave_no_core
from serving.policy.detect import DetectSettings, Finding, NameFinder, Scanner, Verdict
from serving.policy.detect.vocabulary import Pattern, SiteVocabulary, Terms

_HEAD = 4
_MOST_BYTES = 4 << 30
"""Of address space: what takes more is ended by the kernel, and its scan is UNKNOWN."""


def main() -> None:
    """Scan until the other end closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    leave_no_core()
    hide_memory()
    told = json.loads(sys.argv[1])
    scanner = Scanner(_settings(told), _names() if told["names"] else None)
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_BYTES, _MOST_BYTES))
    answers, questions = os.fdopen(os.dup(1), "wb"), os.fdopen(os.dup(0), "rb")
    os.dup2(2, 1)  # whatever a library prints is no answer
    answers.write(written(Finding(Verdict.UNKNOWN, (), tuple(sorted(scanner.detectors)))))
    answers.flush()
    while (message := _next(questions)) is not None:
        try:
            finding = scanner.scan(read_parts(json.loads(message)))
        except Exception as error:  # noqa: BLE001 - what it is, is all that may be said of it
            finding = unknown(f"detector_failed:{type(error).__name__}")
        answers.write(written(finding))
        answers.flush()


def _settings(told: dict[str, object]) -> DetectSettings:
    terms = tuple(Terms(name, tuple(each)) for name, each in dict(told["terms"]).items())  # type: ignore[call-overload]
    patterns = tuple(Pattern(name, each) for name, each in dict(told["patterns"]).items())  # type: ignore[call-overload]
    return DetectSettings(
        most_chars=int(told["most_chars"]),  # type: ignore[call-overload]
        names=bool(told["names"]),
        site=SiteVocabulary(terms, patterns),
    )


def _names() -> NameFinder | None:
    """What finds names, where it is installed."""
    from serving.policy.detect.names import open_names  # noqa: PLC0415 - models of a hundred megabytes

    return open_names()


def _next(questions: BinaryIO) -> bytes | None:
    head = questions.read(_HEAD)
    return questions.read(int.from_bytes(head, "little")) if len(head) == _HEAD else None


if __name__ == "__main__":
    main()
