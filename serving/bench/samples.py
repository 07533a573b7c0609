"""What the client saw of one request, and what each figure means. The definitions of the harness are these. Pure.

Every duration comes twice where the load has a timetable: *service*, from the moment the request was sent, and
*response*, from the moment it was due. A server that is too slow for the timetable makes its clients late, and counted
from the moment of sending alone that wait would not show (coordinated omission).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

Outcome = Literal["completed", "short", "truncated", "failed"]
"""*completed*: all that was asked for. *short*: ended well, with fewer tokens than were asked for. *truncated*: the
stream ended without its end. *failed*: an error, or no answer. Only the first counts towards throughput."""
Since = Literal["sent", "due"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One request. Times are seconds on one clock of the client, which runs from the beginning of the run."""

    due: float
    """When the timetable wanted it; where there is none, when its client was free to send it."""
    sent: float
    """When it was written, on a connection that was there or made first; what making one took lies before."""
    arrivals: tuple[float, ...]
    """When output arrived: one entry for each event that carries some, as many tokens as it may hold."""
    ended: float
    """When the answer ended, or what took its place."""
    outcome: Outcome
    prompt_tokens: int | None = None
    """By the server's own count, like the next two; None where it gave none."""
    cached_tokens: int | None = None
    output_tokens: int | None = None
    error: str = ""
    """What went wrong, in few words, never text of an answer."""
    written_tokens: int | None = None
    """That the prompt was written to have, by the harness's own count."""


def tokens_of(sample: Sample) -> int:
    """Tokens of its output: by the server's count; its events, one taken for a token, where it has none."""
    return len(sample.arrivals) if sample.output_tokens is None else sample.output_tokens


def ttft(sample: Sample, since: Since = "sent") -> float | None:
    """Time to the first token, in seconds: to the first event that carries output. None where there was none."""
    return sample.arrivals[0] - _start(sample, since) if sample.arrivals else None


def e2e(sample: Sample, since: Since = "sent") -> float | None:
    """Time to the last token, in seconds: to the last event that carries output, not to what follows it."""
    return sample.arrivals[-1] - _start(sample, since) if sample.arrivals else None


def tpot(sample: Sample) -> float | None:
    """Time per output token after the first, in seconds: (E2E − TTFT) / (n − 1), n as `tokens_of` has it.

    The first token is in neither: it came with the prompt. None for fewer than two tokens.
    """
    count = tokens_of(sample)
    if count < 2 or not sample.arrivals:
        return None
    return (sample.arrivals[-1] - sample.arrivals[0]) / (count - 1)


def gaps(sample: Sample) -> tuple[float, ...]:
    """The raw gaps between arrivals, in seconds: what a reader waits. Tokens that arrive together have none between."""
    return tuple(later - earlier for earlier, later in pairwise(sample.arrivals))


def mean_gap(sample: Sample) -> float | None:
    """The mean of a request's raw gaps, in seconds: one figure for each request, so that long answers weigh no more."""
    found = gaps(sample)
    return sum(found) / len(found) if found else None


def stall(sample: Sample) -> float | None:
    """The longest raw gap of a request, in seconds. Percentiles over all gaps hide it: one stall is one gap of many."""
    return max(gaps(sample), default=None)


def normalised_latency(sample: Sample, since: Since = "sent") -> float | None:
    """Time to the last token over the tokens, in seconds each: the prompt's wait spread over what was written."""
    whole = e2e(sample, since)
    return whole / tokens_of(sample) if whole is not None and tokens_of(sample) else None


@dataclass(frozen=True, slots=True)
class Objective:
    """What a request must meet to be of use (an SLO). None sets no bound; all in seconds."""

    ttft: float | None = None
    tpot: float | None = None
    e2e: float | None = None
    stall: float | None = None


def meets(sample: Sample, objective: Objective, since: Since = "due") -> bool:
    """Whether it was completed and met every bound. What cannot be told is not met; a lone token has no gap."""
    if sample.outcome != "completed":
        return False
    found = (
        (objective.ttft, ttft(sample, since)),
        (objective.e2e, e2e(sample, since)),
        (objective.tpot, 0.0 if tokens_of(sample) == 1 else tpot(sample)),
        (objective.stall, stall(sample) if len(sample.arrivals) > 1 else 0.0),
    )
    return all(bound is None or (value is not None and value <= bound) for bound, value in found)


def _start(sample: Sample, since: Since) -> float:
    return sample.sent if since == "sent" else sample.due
