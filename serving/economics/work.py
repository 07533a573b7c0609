"""What a workload comes to in a month: tokens by kind, and the load of its busiest hour. Pure.

A conversation of n requests sends with the k-th what was said in the k - 1 before it. So of each question and each
answer (n - 1) / 2 further copies are sent in the mean, and a month's input is

    input + (input + output) × (turns - 1) / 2

Hidden reasoning is paid for and computed; it is not sent again, since the providers leave it out.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Final, NamedTuple

from serving.economics.inputs import DAY_H, WEEK_DAYS, Workload

_HOUR_S: Final = 3600


@dataclass(frozen=True, slots=True)
class Month:
    """Tokens of a month, each of one kind."""

    question: Decimal
    """Of questions and documents, each once."""
    sent: Decimal
    """All input: these, and what was said before, sent again."""
    output: Decimal
    reasoning: Decimal
    cached: Decimal
    """Of those sent."""
    written: Decimal
    """Of those sent."""
    requests: Decimal | None

    @property
    def fresh(self) -> Decimal:
        """Of those sent, neither found computed nor kept."""
        return self.sent - self.cached - self.written

    @property
    def served(self) -> Decimal:
        """What people asked and were answered, each token once: what a cost per million tokens is of."""
        return self.question + self.output


class Part(NamedTuple):
    """Of the work, what somebody does: shares of its input and of its output."""

    input: Decimal
    output: Decimal

    @property
    def rest(self) -> Part:
        """What it leaves."""
        return Part(1 - self.input, 1 - self.output)


ALL: Final = Part(Decimal(1), Decimal(1))


@dataclass(frozen=True, slots=True)
class Load:
    """Tokens a second."""

    prefill: Decimal
    decode: Decimal


def month_of(work: Workload, scale: Decimal = Decimal(1), part: Part = ALL) -> Month:
    """A month of so many times the workload, or of a part of it; its ranges count as their `likely`.

    Requests are those of the whole: nobody says how many a part of the tokens is.
    """
    days = work.days_per_month.likely * scale
    question, output = (each * share * days for each, share in zip(_daily(work), part, strict=True))
    sent = question + (question + output) * (work.turns.likely - 1) / 2
    return Month(
        question=question,
        sent=sent,
        output=output,
        reasoning=output * work.reasoning.likely,
        cached=sent * work.cached.likely,
        written=sent * work.cache_writes.likely,
        requests=None if work.requests_per_day is None else work.requests_per_day.likely * days,
    )


def _daily(work: Workload) -> tuple[Decimal, Decimal]:
    """Input and output of the mean day."""
    if work.tokens_per_day is not None and work.input_share is not None:
        tokens, share = work.tokens_per_day.likely, work.input_share.likely
        return tokens * share, tokens * (1 - share)
    if work.input_tokens_per_day is None or work.output_tokens_per_day is None:
        raise LookupError("a workload without tokens is not made")
    return work.input_tokens_per_day.likely, work.output_tokens_per_day.likely


def busy_hours(work: Workload) -> Decimal:
    """Of a month: those in which work comes."""
    return work.hours_per_day.likely * work.days_per_month.likely * work.days_per_week.likely / WEEK_DAYS


def all_hours(work: Workload) -> Decimal:
    """Of a month."""
    return work.days_per_month.likely * DAY_H


def peak_load(work: Workload, month: Month, reuse: Decimal) -> Load:
    """Of the busiest hour, on engines that find the share `reuse` of what is sent computed."""
    factor = work.peak.likely / (busy_hours(work) * _HOUR_S)
    return Load(month.sent * (1 - reuse) * factor, (month.output + month.reasoning) * factor)
