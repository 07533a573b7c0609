"""Whether a cache domain can tell what another one has computed: asked of vLLM itself, with the salts that the gateway
sets.

For each pair, a prefix is computed under one salt. Then it is asked for under another, and so is a prefix that nobody
has computed: both must be computed whole, and take as long.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import httpx2

from benchmarks.peers.compare import Words

PREFIX_WORDS = 600
OWN_WORDS = 20
WARMUP = 3


@dataclass(frozen=True, slots=True)
class Leaks:
    """What came of all pairs."""

    pairs: int
    leaked_tokens: int
    """Tokens of another domain's that were not computed again."""
    kept_tokens: int
    """Of its own domain's, of one pair: the cache works at all."""
    ttft_ratio: float
    """Median time to the first token of a prefix that another domain has, over that of one that nobody has."""


def measure_leaks(socket: Path, model: str, pairs: int) -> Leaks:
    """Ask the engine that listens on `socket`."""
    words, known, fresh, leaked = Words(7), [], [], 0
    with httpx2.Client(transport=httpx2.HTTPTransport(uds=str(socket)), base_url="http://engine", timeout=300) as http:

        def ask(prefix: str, salt: str) -> tuple[float, int]:
            """Seconds to the first token, and the prompt's tokens that were cached."""
            prompt = prefix + words.text(OWN_WORDS)
            body = {"model": model, "prompt": prompt, "max_tokens": 1, "temperature": 0, "cache_salt": salt}
            began = time.perf_counter()
            answer = http.post("/v1/completions", json=body)
            took = time.perf_counter() - began
            answer.raise_for_status()
            details = json.loads(answer.content)["usage"]["prompt_tokens_details"] or {}
            return took, int(details.get("cached_tokens") or 0)

        for number in range(WARMUP + pairs):
            theirs, nobodys = words.text(PREFIX_WORDS), words.text(PREFIX_WORDS)
            ask(theirs, "theirs")
            order = [(theirs, known), (nobodys, fresh)]
            for prefix, times in order if number % 2 else reversed(order):
                took, cached = ask(prefix, f"ours-{number}")
                leaked += cached
                if number >= WARMUP:
                    times.append(took)
        _, kept = ask(theirs, "theirs")
    return Leaks(pairs, leaked, kept, statistics.median(known) / statistics.median(fresh))
