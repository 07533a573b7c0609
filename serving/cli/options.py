"""What the command line may ask for, apart from the settings files."""

# ruff: noqa: PLC0415 -- imports are made when a command runs, so that none pays for another

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

if TYPE_CHECKING:
    from serving.planner import Wishes
    from serving.settings import Settings


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """Wishes given as flags; None where a flag was not given. The names are those of `planner.Wishes`."""

    backend: Annotated[
        Literal["llamacpp", "vllm", "transformers"] | None,
        typer.Option("--backend", "--engine", help="Engine that serves it."),
    ] = None
    variant: Annotated[str | None, typer.Option("--variant", help="Form of the weights, such as q8_0.")] = None
    context: Annotated[int | None, typer.Option("--context", min=1, help="Tokens that one sequence may hold.")] = None
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", min=1, max=256, help="Sequences computed at the same time.")
    ] = None
    kv_layout: Annotated[
        Literal["streams", "unified"] | None, typer.Option("--kv-layout", help="Layout of the KV cache.")
    ] = None
    kv_tokens: Annotated[
        int | None,
        typer.Option("--kv-tokens", min=256, help="Cells of a unified KV cache, for all together."),
    ] = None
    kv_dtype: Annotated[
        Literal["f16", "bf16", "f32", "q8_0", "fp8"] | None, typer.Option("--kv-dtype", help="Numbers in the cache.")
    ] = None
    parallel: Annotated[
        int | None, typer.Option("--parallel", min=1, max=64, help="GPUs that hold one copy of the model (vLLM).")
    ] = None
    tensor_parallel: Annotated[
        int | None, typer.Option("--tensor-parallel", min=1, max=64, help="GPUs that share each layer (vLLM).")
    ] = None
    pipeline_parallel: Annotated[
        int | None, typer.Option("--pipeline-parallel", min=1, max=64, help="Stages that share the layers (vLLM).")
    ] = None
    data_parallel: Annotated[
        int | None, typer.Option("--data-parallel", min=1, max=64, help="Copies of the model (vLLM).")
    ] = None
    gpu_layers: Annotated[
        int | None, typer.Option("--gpu-layers", min=0, max=4096, help="Layers on a GPU (llama.cpp built with one).")
    ] = None
    threads: Annotated[int | None, typer.Option("--threads", min=1, max=1024, help="Compute threads.")] = None
    wait_policy: Annotated[
        Literal["active", "brief", "passive"] | None,
        typer.Option("--wait-policy", help="Compute threads that wait spin, spin briefly and sleep, or sleep."),
    ] = None
    load_mode: Annotated[
        Literal["mmap", "none"] | None, typer.Option("--load-mode", help="Map the weights, or read them.")
    ] = None
    ubatch: Annotated[
        int | None, typer.Option("--ubatch", min=16, max=8192, help="Tokens computed in one pass (llama.cpp).")
    ] = None
    step_tokens: Annotated[
        int | None, typer.Option("--step-tokens", min=256, max=1 << 20, help="Tokens computed in one step (vLLM).")
    ] = None


def takes_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command flags in place of each parameter that is an options dataclass, such as `PlanOptions`.

    Each field is a flag, annotated as a parameter of typer's, with a default; the parameter receives them together.
    """
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, Any] = {
        name: each.annotation for name, each in signature.parameters.items() if is_dataclass(each.annotation)
    }
    parameters = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for name, each in signature.parameters.items()
        for parameter in (_flags(name, groups[name]) if name in groups else (each,))
    ]

    @functools.wraps(command)
    def with_flags(**given: Any) -> int:
        options = {
            name: group(**{field.name: given.pop(_parameter(name, field.name)) for field in fields(group)})
            for name, group in groups.items()
        }
        return command(**given, **options)

    with_flags.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return with_flags


def _flags(name: str, group: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            _parameter(name, field.name),
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=hints[field.name],
        )
        for field in fields(group)
    ]


def _parameter(name: str, field: str) -> str:
    """What the flag of a field is called among a command's parameters, which may have one of the field's name."""
    return f"{name}_{field}"


@dataclass(frozen=True, slots=True)
class StartOptions:
    """`serve --model … [--model …]`: what to serve and how."""

    models: tuple[str, ...] = ()
    """Names or paths; () serves the set of the settings."""
    host: str | None = None
    port: int | None = None
    config: Path | None = None
    allow_insecure_bind: bool | None = None
    open: bool | None = None
    """Nobody is asked for a key."""
    sealed: str | None = None
    """As `sealed` in the settings."""
    paranoid: bool = False
    """All weights are hashed, whatever was hashed before."""
    json: bool = False
    dummy_weights: bool = False
    engine_url: str | None = None
    """A server elsewhere that serves the model."""
    engine_key_file: Path | None = None
    profiles: bool = True
    """What was found best here is used."""
    plan: PlanOptions = PlanOptions()


def settings_for(config: Path | None, flags: Mapping[str, object] | None = None) -> Settings:
    """The settings in force for this command. Raises BadSettings."""
    from serving.settings import load_settings

    return load_settings(config, environment=os.environ, flags=flags)


def wishes_from(settings: Settings, options: PlanOptions, tuned: Mapping[str, object] = MappingProxyType({})) -> Wishes:
    """The settings' wishes, with the flags over them, and beneath both what a profile found (`serving.cli.profile`).

    Reads adapters: raises FileMissing, BadFile or BadSettings.
    """
    from serving.planner import Wishes
    from serving.registry.adapter import read_adapter
    from serving.settings.model import LlamaCpp

    engine, vllm = settings.engines.llamacpp, settings.engines.vllm
    asked = {field.name: value for field in fields(options) if (value := getattr(options, field.name)) is not None}
    llamacpp = {
        "context": engine.context or None,
        "kv_layout": None if engine.kv_layout == "auto" else engine.kv_layout,
        "kv_dtype": None if engine.kv_dtype == "f16" else engine.kv_dtype,
        "threads": engine.threads or None,
        "wait_policy": None if engine.wait_policy == "auto" else engine.wait_policy,
        "load_mode": None if engine.load_mode == "auto" else engine.load_mode,
    }
    parallel = {name: getattr(vllm, name) or None for name in ("tensor_parallel", "pipeline_parallel", "data_parallel")}
    configured = {name: value for name, value in {**llamacpp, **parallel}.items() if value}
    ubatch = {} if engine.ubatch == LlamaCpp().ubatch else {"ubatch": engine.ubatch}
    together: dict[str, Any] = {**tuned, **ubatch, **configured, **asked}
    return Wishes(
        **together,
        configured=(
            *((name, "llamacpp") for name, value in llamacpp.items() if value and name not in asked),
            *((name, "vllm") for name, value in parallel.items() if value and name not in asked),
        ),
        adapters=tuple(read_adapter(name, path) for name, path in vllm.adapters.items()),
        swa_full=engine.swa_full,
        most_concurrency=engine.concurrency,
        snapshot_bytes=engine.snapshot_bytes,
        headroom=engine.headroom,
    )
