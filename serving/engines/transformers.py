"""The Transformers engine as a child process: its command line and environment, from a plan. Pure."""

from __future__ import annotations

import sys
from pathlib import Path

from serving.engines.spec import SILENT, SYSTEM_PATH, USER, Capabilities, EngineSpec
from serving.openai.limits import Serves
from serving.planner import TransformersPlan
from serving.settings import Settings


def plan_engine(
    plan: TransformersPlan, settings: Settings, socket: Path, home: Path, *, source: Path | None = None
) -> EngineSpec:
    """How to start the engine that `plan` describes.

    `socket` is where it will listen, `home` a private directory it may write to, `source` the directory of this package
    where the interpreter does not have it installed. The environment is built from empty.
    """
    ours = settings.engines.transformers
    argv = [
        *(str(ours.python or sys.executable), "-m", "serving.hf"),
        *("--model", str(plan.weights)),
        *("--uds", str(socket)),
        *("--alias", plan.model),
        *("--ctx", str(plan.context)),
        *("--device", "cpu" if plan.gpu is None else "cuda"),
        *("--threads", str(plan.threads)),
        *(() if ours.dtype == "auto" else ("--dtype", ours.dtype)),
        *("--max-queue", str(settings.limits.queue)),
        *("--unknown-fields", settings.server.unknown_fields),
    ]
    environment = {
        "PATH": SYSTEM_PATH,
        "HOME": str(home),
        "TMPDIR": str(home),
        **SILENT,
        "LOGNAME": USER,
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONSAFEPATH": "1",
        "OMP_WAIT_POLICY": "passive",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": plan.gpu or "",
        **({} if source is None else {"PYTHONPATH": str(source)}),
    }
    return EngineSpec(
        model=plan.model,
        backend="transformers",
        argv=tuple(argv),
        env=tuple(environment.items()),
        socket=socket,
        concurrency=plan.concurrency,
        capabilities=Capabilities(serves=Serves()),
        dummy=plan.dummy,
        reads=() if plan.weights is None else (plan.weights,),
        has_gpu=plan.gpu is not None,
    )
