"""The llama.cpp engine as a child process: its command line and environment, from a plan."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from serving.engines.spec import SYSTEM_PATH, Capabilities, EngineSpec
from serving.generation.parsers import KNOWN_REASONING_PARSERS, KNOWN_TOOL_PARSERS
from serving.openai.limits import serves_of
from serving.planner import LlamacppPlan
from serving.planner.types import WaitPolicy
from serving.registry import Model
from serving.settings import Settings

WAITING: dict[WaitPolicy, dict[str, str]] = {
    "active": {},
    "brief": {"GOMP_SPINCOUNT": "5000"},
    "passive": {"OMP_WAIT_POLICY": "passive"},
}
"""How libgomp's threads wait (decision 0004). Its own default spins for some milliseconds; OMP_WAIT_POLICY=active would
spin for minutes after the last request, and burn the cores of an idle server."""


def plan_engine(
    plan: LlamacppPlan,
    settings: Settings,
    socket: Path,
    home: Path,
    *,
    model: Model | None = None,
    source: Path | None = None,
) -> EngineSpec:
    """How to start the engine that `plan` describes (docs/engine-protocol.md has the command line).

    `socket` is where it will listen, `home` a private directory it may write to, `model` the entry that names the
    parsers of its answers, `source` the directory of this package where this interpreter does not have it installed.
    The environment is built from empty: nothing of the operator's reaches the engine.
    """
    llamacpp = settings.engines.llamacpp
    argv = [
        *(sys.executable, "-P", "-m", "serving.llamacpp"),
        *("--model", str(plan.weights)),
        *("--uds", str(socket)),
        *("--alias", plan.model),
        *(("--task", plan.task) if plan.task != "generate" else ()),
        *("--kv-layout", plan.kv_layout),
        *("--parallel", str(plan.concurrency)),
        *("--ctx", str(plan.context)),
    ]
    if plan.kv_layout == "unified":
        argv += ["--kv-tokens", str(plan.kv_tokens)]
    argv += [
        *("--kv-dtype", plan.kv_dtype),
        *("--ubatch", str(plan.n_ubatch)),
        *("--threads", str(plan.threads)),
    ]
    if plan.cores:
        argv += ["--cores", ",".join(map(str, plan.cores))]
    argv += ["--load-mode", plan.load_mode]
    if plan.gpu_layers:
        argv += ["--gpu-layers", str(plan.gpu_layers)]
    if plan.swa_full:
        argv.append("--swa-full")
    argv += ["--max-queue", str(settings.limits.queue), "--step-ms", str(llamacpp.step_ms)]
    if plan.kv_layout == "streams":
        argv += ["--snapshot-bytes", str(plan.snapshot_bytes)]
    argv += ["--unknown-fields", settings.server.unknown_fields]
    tool_parser = model.tool_parser if model is not None and model.tool_parser in KNOWN_TOOL_PARSERS else None
    if tool_parser is not None:
        argv += ["--tool-parser", tool_parser]
    if model is not None and model.reasoning_parser in KNOWN_REASONING_PARSERS:
        argv += ["--reasoning-parser", str(model.reasoning_parser)]
    environment = {
        "PATH": SYSTEM_PATH,
        "HOME": str(home),
        "TMPDIR": str(home),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PYTHONNOUSERSITE": "1",
        **WAITING[plan.wait_policy],
        **(binding_of(plan.cores) if len(plan.cores) >= plan.threads else {}),
        **({"CUDA_VISIBLE_DEVICES": plan.gpu} if plan.gpu is not None else {}),
        "GGML_NO_BACKTRACE": "1",
    }
    if source is not None:
        environment["PYTHONPATH"] = str(source)
    return EngineSpec(
        model=plan.model,
        backend="llamacpp",
        argv=tuple(argv),
        env=tuple(environment.items()),
        socket=socket,
        concurrency=plan.concurrency,
        capabilities=Capabilities(tasks=frozenset({plan.task}), serves=serves_of(tool_parser)),
        dummy=plan.dummy,
        reads=() if plan.weights is None else (plan.weights,),
        has_gpu=bool(plan.gpu_layers),
    )


def binding_of(cores: Sequence[int]) -> dict[str, str]:
    """Each compute thread on a core of its own.

    Left to themselves two of them meet on one core as soon as anything else runs, and then one spins away the time
    that the other needs; bound, a neighbour costs its share and no more (decision 0004).
    """
    return {"OMP_PROC_BIND": "true", "OMP_PLACES": ",".join(f"{{{core}}}" for core in cores)}
