"""(Machine, Model, Wishes) → Plan | NoFit, with every number and reason. Pure."""

from serving.planner.fleet import Wanted, plan_fleet
from serving.planner.llamacpp import decide_wait_policy
from serving.planner.plan import plan
from serving.planner.text import gib
from serving.planner.types import (
    AnyPlan,
    Engines,
    LlamacppPlan,
    MemoryLine,
    NearestFit,
    NoFit,
    Plan,
    Rejected,
    TransformersPlan,
    VllmPlan,
    Wishes,
)

__all__ = [
    "AnyPlan",
    "Engines",
    "LlamacppPlan",
    "MemoryLine",
    "NearestFit",
    "NoFit",
    "Plan",
    "Rejected",
    "TransformersPlan",
    "VllmPlan",
    "Wanted",
    "Wishes",
    "decide_wait_policy",
    "gib",
    "plan",
    "plan_fleet",
]
