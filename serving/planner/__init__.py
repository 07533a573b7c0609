"""(Machine, Model, Wishes) → Plan | NoFit, with every number and reason. Pure."""

from serving.planner.plan import decide_wait_policy, plan
from serving.planner.text import gib
from serving.planner.types import MemoryLine, NearestFit, NoFit, Plan, Rejected, Wishes

__all__ = [
    "MemoryLine",
    "NearestFit",
    "NoFit",
    "Plan",
    "Rejected",
    "Wishes",
    "decide_wait_policy",
    "gib",
    "plan",
]
