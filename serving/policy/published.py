"""How much of what there is the detectors find, as it was measured and published with this release."""

from __future__ import annotations

import functools
import json
from importlib.resources import files

from serving.policy.facts import Published


@functools.cache
def published() -> tuple[Published, ...]:
    """The lower ends of the intervals in `recall.json`, which `benchmarks.detection_quality` writes."""
    told = json.loads(files("serving.policy").joinpath("recall.json").read_text(encoding="utf-8"))
    return tuple(Published(label, recall) for label, recall in sorted(told["recall"].items()))
