"""What `serve bench autotune` found best for a model on this very machine, kept for `serve` to use.

A profile is beneath everything that a person asked for: a flag or a setting of the same name has its way. It is of one
machine, as far as that decides what is fast, and of no use on another.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from serving.cli.options import PlanOptions
from serving.cli.runtime import cache_dir
from serving.errors import BadSettings, NoFitError
from serving.hardware import Machine
from serving.settings import Settings


class TunedWishes(BaseModel):
    """What a profile may wish for, besides the engine: within the bounds of the flags of the same names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: str | None = None
    concurrency: int | None = Field(default=None, ge=1, le=256)
    kv_layout: Literal["streams", "unified"] | None = None
    kv_dtype: Literal["f16", "bf16", "f32", "q8_0", "fp8"] | None = None
    threads: int | None = Field(default=None, ge=1, le=1024)
    wait_policy: Literal["active", "brief", "passive"] | None = None
    ubatch: int | None = Field(default=None, ge=16, le=8192)
    step_tokens: int | None = Field(default=None, ge=256, le=1 << 20)

    @property
    def told(self) -> dict[str, str | int]:
        """Those that it has."""
        return self.model_dump(exclude_none=True)


@dataclass(frozen=True, slots=True)
class Profile:
    """The best that was found."""

    model: str
    machine: str
    """As `fingerprint` has it."""
    backend: Literal["llamacpp", "vllm", "transformers"]
    wishes: TunedWishes
    scenario: str
    made: str
    """When, ISO 8601."""
    gain: float | None = None
    """Tokens a second over those of the plan without it."""


def fingerprint(machine: Machine) -> str:
    """What decides which settings are fast: processors and GPUs."""
    cpu = machine.cpu
    gpus = ", ".join(gpu.name or "GPU" for gpu in machine.gpus) or "no GPU"
    return f"{cpu.model or 'unknown CPU'}, {len(cpu.usable)} usable, {cpu.parallel} at once, {gpus}"


def profile_path(settings: Settings, model: str) -> Path:
    """Where a model's profile is, or would be."""
    name = "".join(letter if letter.isalnum() or letter in "-._" else "_" for letter in model)
    return cache_dir(settings.paths.cache_dir, os.environ) / "profiles" / f"{name}.json"


def as_json(profile: Profile) -> dict[str, object]:
    """As it is kept and printed."""
    return {**asdict(profile), "wishes": profile.wishes.told}


def write_profile(path: Path, profile: Profile | None) -> None:
    """Keep it, or none; the file is always whole. Raises BadSettings where it cannot be written."""
    if profile is None:
        with contextlib.suppress(OSError):
            path.unlink()
        return
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial.write_text(json.dumps(as_json(profile), indent=1) + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        message = f"the profile cannot be written to `{path}`: {error.strerror}"
        raise BadSettings(message, hint="set paths.cache_dir to a directory that this user may write to") from None


def read_profile(settings: Settings, model: str, machine: Machine) -> Profile | None:
    """The profile of a model on this machine; None where there is none, or it is of another machine, or broken."""
    try:
        found = TypeAdapter(Profile).validate_json(profile_path(settings, model).read_bytes())
    except (OSError, ValidationError):
        return None
    return found if found.model == model and found.machine == fingerprint(machine) else None


def tuned_by(profile: Profile | None, options: PlanOptions) -> dict[str, Any]:
    """The wishes that a profile adds to these flags. None at all where they ask for another engine or variant."""
    if profile is None:
        return {}
    if options.backend not in (None, profile.backend):
        return {}
    if options.variant not in (None, profile.wishes.variant):
        return {}
    return {"backend": profile.backend, **profile.wishes.told}


class Profiles:
    """The profiles of this machine, as far as they are wanted, and which of them were used."""

    def __init__(self, settings: Settings, machine: Machine, *, are_wanted: bool = True) -> None:
        self._settings = settings
        self._machine = machine
        self._are_wanted = are_wanted and settings.engines.profiles
        self.used: list[Profile] = []

    def wishes_of(self, model: str, options: PlanOptions) -> dict[str, Any]:
        """What the model's profile adds to these flags."""
        profile = read_profile(self._settings, model, self._machine) if self._are_wanted else None
        found = tuned_by(profile, options)
        if found and profile is not None:
            self.used.append(profile)
        return found

    def given_up(self, refusal: NoFitError) -> list[str]:
        """Give them up, and say so. Raises the refusal where it is none of theirs."""
        if not self.used:
            raise refusal
        self.used.clear()
        return [f"the profile of `serve bench autotune` is not used: with it {refusal.message}"]

    def lines(self) -> list[str]:
        """What a person is told of those that were used."""
        return [profile_line(profile, profile_path(self._settings, profile.model)) for profile in self.used]


def profile_line(profile: Profile, path: Path) -> str:
    """What a person is told of it."""
    wishes = ", ".join(f"{name} {value}" for name, value in profile.wishes.told.items()) or "nothing changed"
    return f"tuned on {profile.made[:10]} for `{profile.scenario}`: {wishes} (`--no-profile` leaves {path} out)"
