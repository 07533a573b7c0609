"""What the figures of a report mean, for whoever reads it; `serving/bench/samples.py` defines them."""

from __future__ import annotations

from typing import Final

DEFINITIONS: Final = (
    ("TTFT", "Time from sending a request to the first event that carries output."),
    ("E2E", "Time from sending a request to the last event that carries output."),
    ("TPOT", "(E2E − TTFT) / (tokens − 1): the time per output token after the first, one figure for each request."),
    ("Gap", "Time between two events that carry output (ITL): all gaps of all requests, as they are."),
    ("Mean gap of a request", "One figure for each request, so that long answers weigh no more."),
    ("Stall", "A request's longest gap, which percentiles over all gaps hide."),
    ("Normalised latency", "E2E over the output tokens."),
    (
        "From due",
        "Counted from when the timetable wanted the request sent: a slow server cannot hide load that it held back.",
    ),
    (
        "p50, p90, p99",
        "The value that 50, 90 or 99 of 100 do not exceed. Not enough data: too few lie beyond it to know it.",
    ),
    (
        "95% interval",
        (
            "Holds the truth in 95 of 100 such runs. It is drawn over blocks of time, since requests that run together "
            "suffer together. Where there is none, there were too few requests to tell."
        ),
    ),
    (
        "Rates",
        (
            "What completed requests brought in a second of the window. Requests that failed, were cut off or got "
            "fewer tokens than they asked for are counted apart."
        ),
    ),
    ("Goodput", "Share of all requests, failed ones among them, that met the objective."),
    ("Energy", "What the serving machine's meters counted in the window, idle power included."),
    ("Price", "The machine's price of an hour over the output tokens that it would write in one at that rate."),
    (
        "Difference",
        (
            "Runs are compared by the ratio of their figures, which counts as real where its 95% interval excludes 1. "
            "Of twenty such comparisons between equal machines, one shows a difference by chance."
        ),
    ),
)
"""Terms, each with its meaning."""
