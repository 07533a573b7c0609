"""Advice for people and programs. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from serving.economics.advise import Advice
from serving.economics.report.words import Speech


def advice_lines(advice: Advice, speech: Speech) -> Iterator[str]:
    """What is advised, then each way with what it lacks."""
    ways = ", ".join(speech(f"option.{way}") for way in advice.advised)
    yield speech("advice.some", ways=ways) if ways else speech("advice.none")
    for way, unmet in advice.unmet.items():
        yield speech("advice.unmet" if unmet else "advice.met", way=speech(f"option.{way}"))
        for condition in unmet:
            yield f"  - {speech(f'condition.{condition.code}')}: {condition.there}"


def advice_as_json(advice: Advice) -> dict[str, Any]:
    """By way: what is not met, and what would be."""
    return {
        "advised": list(advice.advised),
        "unmet": {
            way: [{"code": each.code, "asked": each.asked, "there": each.there} for each in unmet]
            for way, unmet in advice.unmet.items()
        },
    }
