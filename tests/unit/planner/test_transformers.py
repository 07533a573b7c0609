"""The Transformers engine is planned only where it is asked for, for one request at a time."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from serving.engines.transformers import plan_engine
from serving.planner import Engines, NoFit, Plan, TransformersPlan, Wishes, plan
from serving.registry import load_catalogue
from serving.settings import Settings
from tests.support.machines import GIB, machine

CAN = Engines(transformers=True)
WISH = Wishes(backend="transformers")
DEMO = load_catalogue().find("demo")


def test_it_is_taken_only_where_it_is_asked_for() -> None:
    """And what is planned round-trips."""
    asked = plan(machine(16 * GIB), DEMO, WISH, CAN)
    assert isinstance(asked, TransformersPlan)
    assert (asked.concurrency, asked.variant, asked.context) == (1, "bf16", 4096)
    assert Plan.from_json(asked.to_json()) == asked
    assert plan(machine(16 * GIB), DEMO, Wishes(), CAN).engine == "llamacpp"  # type: ignore[union-attr]


def test_where_it_is_not_installed_that_is_said_with_another_way() -> None:
    """The reason is what the host lacks; the way out is an engine that is there."""
    refused = plan(machine(16 * GIB), DEMO, WISH, Engines(transformers_lacks="`python` does not have torch"))
    assert isinstance(refused, NoFit)
    assert "does not have torch" in refused.reason
    assert dict(refused.nearest[0].change)["backend"] == "llamacpp"


@pytest.mark.parametrize(
    ("wishes", "says"),
    [
        ({"concurrency": 4}, "one request at a time, 4 are asked for"),
        ({"kv_layout": "streams"}, "`kv_layout`"),
        ({"gpu_layers": 3}, "`gpu_layers`"),
        ({"context": 10**6}, "made for"),
        ({"variant": "q8_0"}, "cannot be served by Transformers"),
    ],
)
def test_what_it_cannot_do_is_refused(wishes: dict[str, object], says: str) -> None:
    """A wish that means nothing here is not ignored."""
    refused = plan(machine(16 * GIB), DEMO, dataclasses.replace(WISH, **wishes), CAN)  # type: ignore[arg-type]
    assert isinstance(refused, NoFit)
    assert says in refused.reason


def test_an_embedder_goes_elsewhere() -> None:
    """It generates text, and says who embeds."""
    refused = plan(machine(64 * GIB), load_catalogue().find("multilingual-e5-base"), WISH, CAN)
    assert isinstance(refused, NoFit)


def test_a_shape_that_nobody_knows_is_planned_with_a_reserve() -> None:
    """The other engines refuse it; where memory is short, its context is."""
    strange = dataclasses.replace(DEMO, architecture=None)
    roomy = plan(machine(16 * GIB), strange, WISH, CAN)
    small = plan(machine(2 * GIB), strange, WISH, CAN)
    assert isinstance(roomy, TransformersPlan)
    assert isinstance(small, TransformersPlan)
    assert small.context < roomy.context
    tiny = plan(machine(GIB // 2), strange, WISH, CAN)
    assert isinstance(tiny, NoFit)
    assert tiny.short_bytes
    assert isinstance(plan(machine(16 * GIB), strange, Wishes(backend="llamacpp"), CAN), NoFit)


def test_the_engine_is_started_as_planned(tmp_path: Path) -> None:
    """Its interpreter may be another; its environment is built from empty, and shows it no GPU that was not planned."""
    planned = plan(machine(16 * GIB), DEMO, dataclasses.replace(WISH, context=512), CAN)
    assert isinstance(planned, TransformersPlan)
    settings = Settings.model_validate({"engines": {"transformers": {"python": "/opt/torch/bin/python"}}})
    spec = plan_engine(planned, settings, tmp_path / "e.sock", tmp_path)
    assert spec.argv[:3] == ("/opt/torch/bin/python", "-m", "serving.hf")
    flags = dict(zip(spec.argv[3::2], spec.argv[4::2], strict=True))
    assert (flags["--ctx"], flags["--device"], flags["--alias"]) == ("512", "cpu", "demo")
    assert dict(spec.env)["CUDA_VISIBLE_DEVICES"] == ""
    assert not spec.capabilities.serves.choices
