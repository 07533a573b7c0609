"""The scanners that `benchmarks.detection_quality` may judge: `--scanner benchmarks.scanners:with_names`."""

from __future__ import annotations

from serving.policy.detect import DetectSettings, Part, Scanner, parts_of
from serving.policy.detect.names import open_names

__all__ = ["Part", "parts_of", "with_names"]


def with_names() -> Scanner:
    """The product's, with the models of names that the shipped policy requires."""
    names = open_names()
    if names is None:
        raise SystemExit("the models of names are not installed: locks/names.lock")
    return Scanner(DetectSettings(names=True), names)
