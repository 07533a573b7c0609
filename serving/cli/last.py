"""`serve plan --last`: what was planned at the last start on this host, and what the engines then held."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from serving.cli.options import PlanOptions, settings_for
from serving.cli.runtime import look_at_runtime_dir
from serving.cli.show import print_rows
from serving.errors import UsageError
from serving.planner import AnyPlan, Plan

FILE: Final = "last-start.json"


@dataclass(frozen=True, slots=True)
class Held:
    """A model's plan, and what its engine said of itself when it was ready. None where it did not say."""

    plan: AnyPlan
    ready_at: float
    """Seconds since the epoch."""
    kv_tokens: int | None
    """Tokens that its cache holds."""
    context: int | None
    """Tokens that one sequence may have."""
    load_s: float | None

    @property
    def ratio(self) -> float | None:
        """The cache against the plan's; None where there is none to compare."""
        return self.kv_tokens / self.plan.kv_tokens if self.kv_tokens and self.plan.kv_tokens else None


class LastStart:
    """Writes down each engine as it gets ready. The file is always whole; that it cannot be written ends nothing."""

    def __init__(self, path: Path, plans: Sequence[AnyPlan]) -> None:
        self._path = path
        self._plans = {plan.model: plan for plan in plans}
        self._held: dict[str, Held] = {}

    def note(self, model: str, facts: Mapping[str, object], load_s: float | None) -> None:
        """An engine is ready, and says this of itself (docs/engine-protocol.md)."""
        plan = self._plans.get(model)
        if plan is None:
            return
        held, longest = _count(facts, "kv_tokens"), _count(facts, "n_ctx_seq")
        self._held[model] = Held(plan, time.time(), held, longest, load_s)
        partial = self._path.with_suffix(f".{os.getpid()}.partial")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            partial.write_text(json.dumps([told(one) for one in self._held.values()], default=str), encoding="utf-8")
            partial.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                partial.unlink()


def _count(facts: Mapping[str, object], name: str) -> int | None:
    value = facts.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def told(held: Held) -> dict[str, Any]:
    """As it stands in the file, and is printed with `--json`."""
    return {**asdict(held), "ratio": held.ratio}


def read_last(path: Path) -> tuple[Held, ...]:
    """What the file says. Raises UsageError where there is none, or another program's."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
        known = TypeAdapter(tuple[Held, ...])
        for entry in entries:
            entry.pop("ratio")
            entry["plan"] = Plan.from_json(json.dumps(entry["plan"]))
        return known.validate_python(entries)
    except FileNotFoundError:
        message = "nothing has been served here since the runtime directory was made"
        raise UsageError(message, hint="start a model first: `serve --model demo`") from None
    except (OSError, ValueError, ValidationError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"cannot read `{path}`: {type(error).__name__}", hint="start a model again") from None


def show_last(config: Path | None, options: PlanOptions, *, as_json: bool, model: str | None) -> int:
    """Print it. Raises UsageError for what goes with a new plan only."""
    if model is not None or options != PlanOptions():
        raise UsageError("`--last` tells of the plan of the last start", hint="leave out the model and other wishes")
    settings = settings_for(config)
    last = read_last(look_at_runtime_dir(settings.paths.runtime_dir, os.environ) / FILE)
    if as_json:
        sys.stdout.write(json.dumps([told(one) for one in last], default=str, ensure_ascii=False) + "\n")
        return 0
    for at, held in enumerate(last):
        sys.stdout.write("\n" if at else "")
        print_rows(rows_of(held))
    return 0


def rows_of(held: Held) -> list[tuple[str, str]]:
    """One model for people."""
    plan = held.plan
    cache = f"{plan.kv_tokens} tokens planned, {_or_not(held.kv_tokens)} held"
    if held.ratio is not None:
        cache += f" ({held.ratio:.2f} × the plan)"
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(held.ready_at))
    return [
        ("model", f"{plan.model}, {plan.variant}, served by {plan.engine}"),
        ("ready", at if held.load_s is None else f"{at}, after {held.load_s:.1f} s"),
        ("cache", cache if plan.kv_tokens else "none: a text is computed whole"),
        ("context", f"{plan.context} tokens planned, {_or_not(held.context)} served"),
    ]


def _or_not(number: int | None) -> str:
    return "it does not say how many" if number is None else str(number)
