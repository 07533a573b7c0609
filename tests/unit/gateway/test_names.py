"""What requests may call a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.engines.spec import EngineSpec
from serving.errors import UsageError
from serving.gateway.run import check_specs


def spec(model: str, *adapters: str) -> EngineSpec:
    """An engine that could be started."""
    return EngineSpec(model, "vllm", ("vllm",), socket=Path(f"/run/{model}.sock"), adapters=adapters)


def test_models_and_adapters_share_one_set_of_names() -> None:
    """A name selects one thing: an adapter called as a model, its own or another, or as another adapter, is refused."""
    check_specs([spec("a", "legal", "medical"), spec("b")])
    for specs in ([spec("a", "a")], [spec("a", "b"), spec("b")], [spec("a", "legal"), spec("b", "legal")]):
        with pytest.raises(UsageError, match="given twice"):
            check_specs(specs)
