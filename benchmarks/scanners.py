"""The scanners that `benchmarks.detection_quality` may judge: `--scanner benchmarks.scanners:with_names`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass

from serving.egress.classifier import Classifier
from serving.policy.detect import DetectSettings, Finding, Part, Scanner, Verdict, parts_of
from serving.policy.detect.names import open_names
from serving.settings import load_settings

__all__ = ["Part", "model_alone", "parts_of", "with_model", "with_names"]


def with_names() -> Scanner:
    """The product's, with the models of names that the shipped policy requires."""
    names = open_names()
    if names is None:
        raise SystemExit("the models of names are not installed: locks/names.lock")
    return Scanner(DetectSettings(names=True), names)


@dataclass(frozen=True, slots=True)
class Asking:
    """A scanner with the model of `[egress.classifier]` behind it, as a policy has it that requires the model."""

    classifier: Classifier
    loop: asyncio.AbstractEventLoop
    scanner: Scanner | None

    def scan(self, parts: Sequence[Part]) -> Finding:
        """What the scanner finds, and what the model adds where that is CLEAN."""
        finding = Finding(Verdict.CLEAN) if self.scanner is None else self.scanner.scan(parts)
        return self.loop.run_until_complete(self.classifier.add(finding, [parts], is_required=True))


def with_model() -> Asking:
    """The product's, and the model that the settings name."""
    return _asking(Scanner())


def model_alone() -> Asking:
    """That model for itself. It names no place within what it is shown: of its spans only documents say anything."""
    return _asking(None)


def _asking(scanner: Scanner | None) -> Asking:
    settings = load_settings(environment=os.environ).egress.classifier
    if settings.url is None or settings.model is None:
        raise SystemExit("no model: egress.classifier in the file that PERIMETER_CONFIG names")
    url, model, loop = settings.url, settings.model, asyncio.new_event_loop()

    async def made() -> Classifier:
        return Classifier(settings, url, model)

    return Asking(loop.run_until_complete(made()), loop, scanner)
