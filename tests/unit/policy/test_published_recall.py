"""What is published of the detectors, and decided by, is what they do."""

from __future__ import annotations

import pytest

from benchmarks.corpus import rows
from benchmarks.detection_quality import figures, judge, plugged
from serving.policy.published import published


@pytest.fixture(scope="module")
def found() -> dict:
    """The figures of a corpus that nobody has seen before: another seed than the published one."""
    pytest.importorskip("slovnet")
    return figures(judge(rows(2, 6000, "held_out"), plugged("benchmarks.scanners:with_names")))


def test_no_label_is_found_less_often_than_is_published(found: dict) -> None:
    """The upper end of what is measured here is not below the lower end of what a policy compares with."""
    assert published()
    worse = {
        each.label: (each.recall / 10_000, found["labels"][each.label]["recall_plain"])
        for each in published()
        if found["labels"][each.label]["recall_plain"]["high95"] < each.recall / 10_000
    }
    assert not worse


def test_harmless_texts_are_not_kept_more_often_than_when_it_was_published(found: dict) -> None:
    """What is always sensitive finds everything, and is of no use."""
    assert found["false_alarms"]["low95"] < 0.1  # 0.083 when it was published
