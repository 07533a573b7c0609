"""What a run leaves behind: the result's format, as it is written, read again and published (docs/bench-result.json).

Durations are seconds, rates are per second, energy is joules. What is not known is null. A newer file may have fields
that this program passes over; one of a newer `format` is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving.errors import BadFile, FileMissing

FORMAT: Final = 1
"""Grows when a field changes its meaning or goes away."""
CURVE_POINTS: Final = 101


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Figure(_Part):
    """A figure, and the interval that holds the truth in 95 of 100 such runs."""

    value: float
    low95: float | None = Field(default=None, description="null where there is too little data for an interval")
    high95: float | None = None


class Distribution(_Part):
    """What one duration was over all requests (or over all gaps)."""

    count: int
    mean: Figure | None = None
    p50: Figure | None = Field(
        default=None, description="null, like each quantile, where too few lie beyond it to know it"
    )
    p90: Figure | None = None
    p99: Figure | None = None
    least: float | None = None
    most: float | None = None
    curve: tuple[float, ...] = Field(
        default=(), description="the quantiles 0, 0.01, … 1 as they were seen, for drawing"
    )


class Rates(_Part):
    """What was completed in a second of the window."""

    output_tokens_per_s: Figure | None = None
    prompt_tokens_per_s: Figure | None = None
    total_tokens_per_s: Figure | None = None
    requests_per_s: Figure | None = None


class Goodput(_Part):
    """Requests that met the objective; those that failed are in the denominator."""

    share: Figure | None = Field(default=None, description="from when they were due, where there is a timetable")
    share_from_sent: Figure | None = Field(default=None, description="from when they were sent; null without one")
    per_s: float | None = None


class Window(_Part):
    """The time that rates are of, in seconds from the stage's beginning."""

    begin: float
    end: float
    kind: Literal["steady", "whole"] = Field(description="steady: from the first request to the last one sent")
    left_out: int = Field(
        default=0, description="requests before the steady state, beside the warm-up's: in no figure, rate or goodput"
    )


class Tokens(_Part):
    """Counts, and what speaks against them."""

    prompt: int = 0
    cached: int | None = Field(
        default=None, description="of the prompts', already computed; null where the server is silent"
    )
    output: int = 0
    events: int = Field(default=0, description="events with output, of which each may hold several tokens")
    prompt_off: float | None = Field(
        default=None, description="share by which the server's count of prompts differs from ours"
    )
    recounted: int = Field(default=0, description="answers whose text was counted again")
    output_off: float | None = Field(
        default=None, description="share by which the server's count of those differs from ours"
    )


class Energy(_Part):
    """What the window took, by the meters of the machine that serves."""

    meters: tuple[str, ...] = Field(description="`nvml` for GPUs, `rapl` for processors")
    mean_w: float
    joules_per_output_token: float | None = None
    joules_per_request: float | None = None
    output_tokens_per_s_per_w: float | None = None
    utilisation: float | None = Field(default=None, description="mean over the GPUs, 0 to 1")
    memory_peak_bytes: int | None = None
    clock_mhz: float | None = Field(default=None, description="mean of the streaming multiprocessors'")


class Slice(_Part):
    """One of the equal parts of a stage's time line."""

    at: float = Field(description="its middle, in seconds from the stage's beginning")
    output_tokens_per_s: float
    running: float = Field(description="requests under way, in the mean")
    ttft: float | None = Field(default=None, description="mean of the requests whose first token came in it")
    power_w: float | None = None
    memory_bytes: int | None = None
    utilisation: float | None = None


class Trust(_Part):
    """How well the harness itself kept up, and what speaks against the figures."""

    loop_lag_p99_s: float | None = None
    late_p99_s: float | None = Field(default=None, description="by which requests were sent after they were due")
    delivered_ratio: float | None = Field(
        default=None, description="rate at which requests were sent over the rate intended"
    )
    cpu_share: float = Field(default=0, description="of one core, of the busiest process of the client")
    waited_share: float | None = Field(
        default=None, description="of the time in which the client was ready to run and did not"
    )
    stolen_share: float | None = Field(
        default=None, description="of the processors' time that the hypervisor gave to others"
    )
    doubts: tuple[str, ...] = ()

    @property
    def is_sound(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.doubts


class Requests(_Part):
    """How the measured requests ended. Only the first count towards throughput."""

    completed: int = 0
    short: int = 0
    truncated: int = 0
    failed: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.completed + self.short + self.truncated + self.failed


class Stage(_Part):
    """One load, measured. A sweep has several, every other scenario one."""

    load: dict[str, Any]
    level: float = Field(description="clients, or requests a second, by the load's kind")
    is_whole: bool = Field(description="false where it was stopped before its end")
    steady: bool | None = Field(
        default=None, description="false where latency still grew at the end; null for too little data"
    )
    seconds: float
    requests: Requests
    errors: dict[str, int] = {}
    window: Window | None = None
    figures: dict[str, Distribution] = Field(
        default={},
        description="ttft, e2e, normalised_latency (each also _from_due with a timetable), tpot, gap, "
        "mean_gap_of_request, stall",
    )
    rates: Rates = Rates()
    goodput: Goodput | None = None
    tokens: Tokens = Tokens()
    energy: Energy | None = None
    timeline: tuple[Slice, ...] = ()
    trust: Trust = Trust()


class Saturation(_Part):
    """Where a sweep found the end."""

    over: Literal["clients", "rate"]
    held: float | None = Field(default=None, description="the highest level that held; null where none did")
    failed: float | None = Field(
        default=None, description="the lowest that did not; null where the sweep's own bound held"
    )
    why: str = Field(description="what `held` means here")
    most_output_tokens_per_s: Figure | None = None


class Server(_Part):
    """What the server says of itself."""

    name: str | None = None
    version: str | None = None
    facts: dict[str, Any] = {}


class Started(_Part):
    """How the harness itself started the server."""

    command: tuple[str, ...]
    plan: dict[str, Any]
    engine: Server | None = Field(default=None, description="what computes behind the gateway, and its version")
    ready_s: float | None = Field(default=None, description="from the command to the first answer")
    load_s: float | None = None
    weights: str | None = None
    weights_sha256: str | None = Field(
        default=None, description="of the file; of a directory, of its files' names and digests"
    )
    dummy_weights: bool = False


class Target(_Part):
    """What was measured."""

    url: str
    model: str
    server: Server | None = None
    started: Started | None = None


class Client(_Part):
    """From where it was measured."""

    processes: int = 1
    cores: int
    is_on_the_servers_machine: bool | None = None


class Prompts(_Part):
    """How long prompts were made."""

    exact: bool
    counted_by: Literal["server", "local", "usage", "none"]


class Result(_Part):
    """A whole run."""

    format: Annotated[int, Field(ge=1)] = FORMAT
    made: str = Field(description="when, ISO 8601")
    version: str
    name: str = Field(default="", description="what comparisons call it")
    target: Target
    machine: dict[str, Any] | None = Field(
        None, description="of the server, as `serve hardware --json` has it; null where it is elsewhere and not told"
    )
    client: Client
    scenario: dict[str, Any]
    scenario_sha256: str
    prompts: Prompts
    stages: tuple[Stage, ...]
    saturation: Saturation | None = None

    @property
    def completed(self) -> int:
        """Requests completed in all stages."""
        return sum(stage.requests.completed for stage in self.stages)

    def to_json(self) -> str:
        """As it is written."""
        return self.model_dump_json(indent=1) + "\n"


def schema() -> dict[str, Any]:
    """The JSON schema of a result."""
    return Result.model_json_schema()


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no figure")


def read_result(path: Path) -> Result:
    """A result that `serve bench run` wrote. Raises FileMissing or BadFile."""
    hint = "name a file that `serve bench run -o` wrote"
    try:
        tree = json.loads(path.read_bytes(), parse_constant=_refuse)
        if isinstance(tree, dict) and isinstance(tree.get("format"), int) and tree["format"] > FORMAT:
            message = f"`{path}` is of format {tree['format']}, and this program reads {FORMAT}"
            raise BadFile(message, hint="read it with the version that wrote it, or a newer one")
        return Result.model_validate(tree)
    except OSError as error:
        raise FileMissing(f"cannot read `{path}`: {error.strerror}", hint=hint) from None
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors(include_url=False)[0]["loc"])
        raise BadFile(f"`{path}` is not a result: `{place}` is missing or wrong", hint=hint) from None
    except (ValueError, RecursionError):
        raise BadFile(f"`{path}` is not a result: it is not JSON", hint=hint) from None
