"""One name means one thing, whichever engine it comes from."""

from __future__ import annotations

from serving.hf import metrics
from serving.hf.engine import Counters
from serving.llamacpp.metrics import FAMILIES


def test_the_names_are_those_of_the_other_engine() -> None:
    """With the same type, and no other."""
    for name, (kind, field, _) in metrics.FAMILIES.items():
        assert (kind, field) == FAMILIES[name][:2]


def test_each_figure_is_written_with_its_type() -> None:
    """In Prometheus' format."""
    lines = metrics.render(Counters(running=1)).splitlines()
    assert "# TYPE perimeter_engine_running gauge" in lines
    assert "perimeter_engine_running 1" in lines
    assert len(lines) == 3 * len(metrics.FAMILIES) + 3
