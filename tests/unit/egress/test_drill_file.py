"""A drill that was not ended ends by itself, whatever its file says."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from serving.egress.drill import LONGEST_S, begin_outage, end_outage, out_of_order


def test_an_outage_lasts_until_it_is_ended(tmp_path: Path) -> None:
    """And not beyond its time."""
    path, now = tmp_path / "drill", time.time()
    assert out_of_order(path, now) is None
    begin_outage(path, "vendor", now)
    assert out_of_order(path, now + 1) == "vendor"
    assert out_of_order(path, now + LONGEST_S + 1) is None
    end_outage(path)
    assert out_of_order(path, now + 1) is None


@pytest.mark.parametrize("until", [4e9, 1e300, float("inf")])
def test_no_file_holds_for_longer_than_ten_minutes(tmp_path: Path, until: float) -> None:
    """Neither by what it says nor by the time that it was given: what counts is when the kernel saw it change."""
    path, now = tmp_path / "drill", time.time()
    path.write_text(json.dumps({"destination": "vendor", "until": until}))
    os.utime(path, (now + 1e6, now + 1e6))
    assert out_of_order(path, now + 1) == "vendor"
    assert out_of_order(path, now + LONGEST_S - 10) == "vendor"
    for later in (LONGEST_S + 10, 2 * LONGEST_S, 1e6):
        assert out_of_order(path, now + later) is None


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"destination": "vendor", "until": null}', '{"until": 4e9}'])
def test_what_cannot_be_read_is_no_outage(tmp_path: Path, text: str) -> None:
    """It lets nothing out either: the rule is asked all the same."""
    (tmp_path / "drill").write_text(text)
    assert out_of_order(tmp_path / "drill", time.time()) is None
