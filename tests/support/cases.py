"""Cases of `serve cost` for tests."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from serving.economics.books import Market
from serving.economics.inputs import SECTIONS, Case
from serving.economics.reading import Loaded, load_market, make_case

ROOT = Path(__file__).parents[2]
TODAY = date(2026, 6, 1)
NOTHING = dict.fromkeys(SECTIONS, 0)


def api(**others: Any) -> dict[str, Any]:
    """An API whose prices and sections are as they are given."""
    return {"prices": {"input": Decimal("2.5"), "output": 10}, "sections": NOTHING, **others}


def own(**others: Any) -> dict[str, Any]:
    """A rented machine, as it is given."""
    capacity = {"prefill_tokens_per_s": 8000, "decode_tokens_per_s": 1500, "measured": "together"}
    return {"gpus": 1, "rented": {"per_gpu_hour": 3}, "spares": 1, "capacity": capacity, "sections": NOTHING, **others}


def tables(**others: Any) -> dict[str, Any]:
    """A case's file as tables: 5 M tokens a day, an API and a rented machine."""
    return {
        "version": 1,
        "title": "a case",
        "currency": "USD",
        "horizon_months": 36,
        "day": TODAY,
        "workload": {"input_tokens_per_day": 3_750_000, "output_tokens_per_day": 1_250_000},
        "api": api(),
        "own": own(),
        **others,
    }


def market() -> Market:
    """The book that ships."""
    return load_market(ROOT / "configs" / "market.toml")


def load(content: Mapping[str, Any], book: Market | None = None) -> Loaded:
    """The case that these tables are, as of `TODAY`."""
    return make_case(content, book or Market(version=1), TODAY, "the case")


def case(**others: Any) -> Case:
    """The case of `tables`."""
    return load(tables(**others)).case
