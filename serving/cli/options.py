"""What the command line may ask for, apart from the settings files."""

# ruff: noqa: PLC0415 -- imports are made when a command runs, so that none pays for another

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serving.planner import Wishes
    from serving.planner.types import KvDtype, KvLayout, LoadMode, WaitPolicy
    from serving.settings import Settings


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """Wishes given as flags; None where a flag was not given."""

    variant: str | None = None
    context: int | None = None
    concurrency: int | None = None
    kv_layout: KvLayout | None = None
    kv_tokens: int | None = None
    kv_dtype: KvDtype | None = None
    threads: int | None = None
    wait_policy: WaitPolicy | None = None
    load_mode: LoadMode | None = None


@dataclass(frozen=True, slots=True)
class StartOptions:
    """`serve --model …`: what to serve and how."""

    model: str
    host: str | None = None
    port: int | None = None
    config: Path | None = None
    allow_insecure_bind: bool | None = None
    json: bool = False
    plan: PlanOptions = PlanOptions()


def settings_for(config: Path | None, flags: Mapping[str, object] | None = None) -> Settings:
    """The settings in force for this command. Raises BadSettings."""
    from serving.settings import load_settings

    return load_settings(config, environment=os.environ, flags=flags)


def wishes_from(settings: Settings, options: PlanOptions) -> Wishes:
    """The settings' wishes, with the flags over them."""
    from serving.planner import Wishes

    engine = settings.engines.llamacpp
    given = {field.name: getattr(options, field.name) for field in fields(options)}
    configured = {
        "context": engine.context or None,
        "kv_layout": None if engine.kv_layout == "auto" else engine.kv_layout,
        "kv_dtype": engine.kv_dtype,
        "threads": engine.threads or None,
        "wait_policy": None if engine.wait_policy == "auto" else engine.wait_policy,
        "load_mode": None if engine.load_mode == "auto" else engine.load_mode,
    }
    return Wishes(
        **{**configured, **{name: value for name, value in given.items() if value is not None}},
        swa_full=engine.swa_full,
        ubatch=engine.ubatch,
        most_concurrency=engine.concurrency,
        snapshot_bytes=engine.snapshot_bytes,
        headroom=engine.headroom,
    )
