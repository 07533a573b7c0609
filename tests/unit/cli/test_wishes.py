"""What stands in one engine's settings is no wish to another; what is asked for by a flag is, to all."""

from __future__ import annotations

import pytest

from serving.cli.options import PlanOptions, StartOptions, wishes_from
from serving.cli.wanted import elsewhere_of, wanted_of
from serving.errors import BadSettings, UsageError
from serving.planner import Engines, LlamacppPlan, NoFit, TransformersPlan, VllmPlan, plan
from serving.registry import load_catalogue
from serving.settings import Settings
from tests.support.machines import GIB, machine

ALL = Engines(vllm_cpu=True, transformers=True)
SET = Settings.model_validate(
    {"engines": {"llamacpp": {"threads": 1, "kv_layout": "unified", "context": 512}, "vllm": {"tensor_parallel": 2}}}
)


def test_settings_of_one_engine_leave_the_others_alone() -> None:
    """Each is planned, with its own."""
    demo = load_catalogue().find("demo")
    made = {
        name: plan(machine(16 * GIB), demo, wishes_from(SET, PlanOptions(backend=name)), ALL)
        for name in ("llamacpp", "transformers")
    }
    ours, oracle = made["llamacpp"], made["transformers"]
    assert isinstance(ours, LlamacppPlan)
    assert (ours.threads, ours.kv_layout, ours.context) == (1, "unified", 512)
    assert isinstance(oracle, TransformersPlan)
    assert oracle.context == 4096
    without = Settings.model_validate({"engines": {"llamacpp": {"threads": 1, "kv_layout": "unified"}}})
    assert isinstance(plan(machine(16 * GIB), demo, wishes_from(without, PlanOptions(backend="vllm")), ALL), VllmPlan)


def test_a_flag_is_a_wish_to_every_engine() -> None:
    """Also where the settings say the same: one that means nothing there is refused."""
    demo = load_catalogue().find("demo")
    for backend in ("vllm", "transformers"):
        wishes = wishes_from(SET, PlanOptions(backend=backend, kv_layout="unified"))
        assert ("kv_layout", "llamacpp") not in wishes.configured
        assert isinstance(plan(machine(16 * GIB), demo, wishes, ALL), NoFit)


def test_tables_of_servers_elsewhere_are_held_to_what_goes_with_them() -> None:
    """A key without a server, a wish beside one, and flags where nothing is served here."""
    far: dict[str, object] = {"name": "far", "url": "http://10.0.0.7:8000"}
    for table, says in (
        ({"name": "demo", "key_file": "/key"}, "no `url`"),
        ({**far, "context": 512}, "more than a `key_file`"),
    ):
        with pytest.raises(BadSettings, match=says):
            elsewhere_of(StartOptions(), Settings.model_validate({"models": [table]}))
    settings = Settings.model_validate({"models": [far, {"name": "demo"}]})
    (spec,) = elsewhere_of(StartOptions(), settings)
    assert (spec.model, str(spec.origin)) == ("far", "http://10.0.0.7:8000")
    assert [one.model.name for one in wanted_of(StartOptions(), settings, beside=[spec])] == ["demo"]
    alone = Settings.model_validate({"models": [far]})
    assert wanted_of(StartOptions(), alone, beside=[spec]) == ()
    with pytest.raises(UsageError, match="served here"):
        wanted_of(StartOptions(dummy_weights=True), alone, beside=[spec])
    private = Settings.model_validate({"models": [far], "server": {"share_prefixes": False}})
    with pytest.raises(BadSettings, match="share_prefixes"):
        elsewhere_of(StartOptions(), private)
