"""From a row of logits to one token, in numpy.

llama.cpp's sampler chain copies the vocabulary into an array of structures for every token and sorts it for top_p;
measured at a vocabulary of 128k that is milliseconds a token. Here the row is used as it lies in llama.cpp's buffer:

- plain temperature: inverse transform over block sums, a few passes over the row;
- top_p: draw from the full distribution and accept the token if the mass of all likelier tokens is below p. That is
  rejection sampling from exactly the nucleus, accepted with probability of at least p, and needs no sort. Below
  p = 0.1 that would take too many tries, and the candidates are searched in sorted order;
- top_k: a selection of k, then as above on k values;
- min_p: a threshold on the logit.

Order as in vLLM: bias, penalties, temperature, min_p, top_k, top_p. Decision 0003 has the measurements.
"""

from __future__ import annotations

import functools
import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from serving.openai.fields import Sampling

Row = npt.NDArray[np.float32]

_BLOCK = 256
_NUCLEUS_BY_REJECTION = 0.1
_PLAIN_TEMPERATURE = 0.5
"""Temperature below which dividing by it would leave float32's range too often."""
_GREEDY_TEMPERATURE = 1e-5
"""Below it the likeliest token is taken, as in vLLM; its inverse would leave float32's range not far below."""
_MOST_TRIES = 64
"""Draws from the whole distribution before the nucleus is sorted after all; at most one token in 800 gets there."""
_LEAST_TOTAL = 1e-20
"""Sum of exponentials below which float32 would lose tokens that count."""


class Sampler:
    """The state of one sequence's choices: its random stream and the tokens it has seen.

    The same seed, options and logits give the same tokens, whether streamed or not.
    """

    def __init__(self, options: Sampling, prompt: Sequence[int], ends: Sequence[int], n_vocab: int) -> None:
        self._options = options
        self._random = random.Random(options.seed)  # noqa: S311 - choosing words, not keys
        self._count: dict[int, int] = {}
        self._generated = 0
        self._ends = np.asarray(ends, dtype=np.intp)
        self._prompt = np.unique(np.asarray(prompt, dtype=np.intp)) if options.repetition_penalty != 1.0 else None
        self._bias_ids = np.array([token for token, _ in options.logit_bias], dtype=np.intp)
        self._bias = np.array([bias for _, bias in options.logit_bias], dtype=np.float32)
        self._penalises = bool(
            options.frequency_penalty or options.presence_penalty or options.repetition_penalty != 1.0
        )
        self._top_k = options.top_k if 0 < options.top_k < n_vocab else 0
        self._blocks = _blocks(n_vocab)
        self._scratch = self._blocks.reshape(-1)[:n_vocab]
        self._is_plain = (
            options.temperature >= _PLAIN_TEMPERATURE
            and options.top_p >= 1.0
            and options.min_p <= 0.0
            and not self._top_k
        )
        self.truncates = bool(options.top_p < 1.0 or options.min_p > 0.0 or self._top_k)
        """Some tokens are never chosen, and which depends on the others."""
        self._inverse_temperature = np.float32(1.0 / max(options.temperature, _GREEDY_TEMPERATURE))

    def sample(self, row: Row, allowed: npt.NDArray[np.bool_] | None = None) -> int:
        """One token from one row of logits, which is changed in place; of those `allowed`, where that is given.

        A token that is not allowed comes only where no other one has a probability.
        """
        options = self._options
        if len(self._bias_ids):
            row[self._bias_ids] += self._bias
        if self._penalises:
            self._penalise(row)
        if options.ignore_eos or self._generated < options.min_tokens:
            row[self._ends] = -np.inf
        if allowed is not None:
            row[~allowed] = -np.inf
        token = -1
        if options.temperature < _GREEDY_TEMPERATURE:
            token = int(row.argmax())
        elif self._is_plain:
            token = self._draw_plain(row)
        if token < 0:
            token = self._draw(row)
        self._generated += 1
        if self._penalises:
            self._count[token] = self._count.get(token, 0) + 1
        return token

    def take_back(self, token: int) -> None:
        """The last token was not used: as if it had not been chosen, but for the random stream."""
        self._generated -= 1
        if self._penalises:
            self._count[token] -= 1
            if not self._count[token]:
                del self._count[token]

    def _penalise(self, row: Row) -> None:
        options = self._options
        if self._count:
            ids = np.fromiter(self._count.keys(), dtype=np.intp, count=len(self._count))
            counts = np.fromiter(self._count.values(), dtype=np.float32, count=len(self._count))
        else:
            ids, counts = np.empty(0, dtype=np.intp), np.empty(0, dtype=np.float32)
        if self._prompt is not None:
            seen = np.union1d(self._prompt, ids)
            values = row[seen]
            penalty = np.float32(options.repetition_penalty)
            row[seen] = np.where(values > 0, values / penalty, values * penalty)
        if len(ids):
            row[ids] -= counts * np.float32(options.frequency_penalty) + np.float32(options.presence_penalty)

    def _draw_plain(self, row: Row) -> int:
        """As `_draw` where only the temperature counts; -1 where the row is out of this way's range.

        Between two steps no code of numpy's is in any cache: each kind of call costs 20 to 40 µs the first time, many
        times what it does when measured alone. So there are as few kinds as can be: no maximum is taken out first,
        and where the exponentials then leave float32's range the careful way is gone.
        """
        weights = self._scratch
        np.multiply(row, self._inverse_temperature, weights)  # the caller ignores overflow, as the engine's thread does
        np.exp(weights, weights)
        sums = np.add.reduce(self._blocks, 1).cumsum()
        total = float(sums[-1])
        if not _LEAST_TOTAL < total < math.inf:
            return -1
        target = self._random.random() * total
        block = min(int(sums.searchsorted(target, "right")), len(sums) - 1)
        part = self._blocks[block].cumsum()
        if block:
            target -= float(sums[block - 1])
        within = int(part.searchsorted(target, "right"))
        if within >= _BLOCK:  # rounding put the target past the last weight of the block, or of all
            return int(np.flatnonzero(weights[: (block + 1) * _BLOCK])[-1])
        return block * _BLOCK + within

    def _draw(self, row: Row) -> int:
        options = self._options
        top = float(row.max())
        if not math.isfinite(top):
            return int(row.argmax())
        ids: npt.NDArray[np.intp] | None = None
        if options.min_p > 0.0:
            ids = np.flatnonzero(row >= top + options.temperature * math.log(options.min_p))
            row = row[ids]
        if self._top_k and self._top_k < len(row):
            chosen = largest(row, self._top_k)
            ids = chosen if ids is None else ids[chosen]
            row = row[chosen]
        # exp((row - top) / temperature), in memory that is there already: a fresh array of a vocabulary's size comes
        # from the kernel page by page, and that was half of the time at one sequence
        weights = self._scratch[: len(row)]
        np.subtract(row, np.float32(top), out=weights)
        weights *= self._inverse_temperature
        np.exp(weights, out=weights)
        if options.top_p >= 1.0:
            picked = self._inverse(weights, _block_sums(weights))
        elif options.top_p >= _NUCLEUS_BY_REJECTION:
            picked = self._nucleus_by_rejection(row, weights)
        else:
            picked = self._nucleus_by_sorting(row, weights)
        return picked if ids is None else int(ids[picked])

    def _inverse(self, weights: Row, sums: npt.NDArray[np.float64]) -> int:
        """An index drawn in proportion to `weights`: find the block, then the place in it."""
        target = self._random.random() * sums[-1]
        block = int(np.searchsorted(sums, target, side="right"))
        block = min(block, len(sums) - 1)
        start = block * _BLOCK
        part = np.cumsum(weights[start : start + _BLOCK], dtype=np.float64)
        target -= sums[block - 1] if block else 0.0
        within = int(np.searchsorted(part, target, side="right"))
        if within >= len(part):  # rounding put the target past the last weight of the block, or of all
            return int(np.flatnonzero(weights[: start + _BLOCK])[-1])
        return start + within

    def _nucleus_by_rejection(self, row: Row, weights: Row) -> int:
        sums = _block_sums(weights)
        limit = self._options.top_p * sums[-1]
        for _ in range(_MOST_TRIES):
            picked = self._inverse(weights, sums)
            # a token is in the nucleus if the likelier ones do not fill it yet; among equals the lower id comes first
            above = row > row[picked]
            mass = float(np.dot(weights, above)) if above.any() else 0.0
            if mass < limit:
                equals = np.flatnonzero(row[:picked] == row[picked])
                if mass + len(equals) * float(weights[picked]) < limit:
                    return picked
        return self._nucleus_by_sorting(row, weights)

    def _nucleus_by_sorting(self, row: Row, weights: Row) -> int:
        limit = self._options.top_p * float(weights.sum(dtype=np.float64))
        floor = 1e-2
        while True:
            ids = np.flatnonzero(weights >= floor)
            if floor == 0.0 or float(weights[ids].sum(dtype=np.float64)) >= limit:
                break
            floor = floor * 1e-2 if floor > 1e-12 else 0.0
        order = ids[np.argsort(-row[ids], kind="stable")]
        mass = np.cumsum(weights[order], dtype=np.float64)
        count = min(int(np.searchsorted(mass, limit, side="left")) + 1, len(order))
        target = self._random.random() * mass[count - 1]
        return int(order[min(int(np.searchsorted(mass[:count], target, side="right")), count - 1)])


def for_choice(options: Sampling, index: int) -> Sampling:
    """The options of one of several answers to a prompt: with a seed, each draws from a stream of its own.

    The first one's is that of the only answer with this seed.
    """
    if options.seed is None or index == 0:
        return options
    digest = hashlib.sha256(f"{options.seed} {index}".encode()).digest()
    return replace(options, seed=int.from_bytes(digest[:8], "big"))


@functools.lru_cache(maxsize=1)
def _blocks(n_vocab: int) -> npt.NDArray[np.float32]:
    """Room for one row of weights, in whole blocks; what no token has is zero and stays so.

    One for all samplers: they work one after another, on the engine's thread.
    """
    return np.zeros((-(-n_vocab // _BLOCK), _BLOCK), dtype=np.float32)


def largest(row: Row, k: int) -> npt.NDArray[np.intp]:
    """Indices of the k largest values, among equals the lower index.

    The k-th largest of the blocks' maxima is a bound that at least k values reach, so only the few that reach it are
    sorted; selecting among all values directly took ten times as long at a vocabulary of 128k.
    """
    whole = len(row) // _BLOCK
    if k <= whole // 2:
        maxima = row[: whole * _BLOCK].reshape(whole, _BLOCK).max(axis=1)
        bound = np.partition(maxima, whole - k)[whole - k]
        near = np.flatnonzero(row >= bound)
    else:
        near = np.arange(len(row))
    return near[np.argsort(-row[near], kind="stable")[:k]]


def _block_sums(weights: Row) -> npt.NDArray[np.float64]:
    """Running totals at the end of each block of `_BLOCK` weights."""
    whole = len(weights) // _BLOCK * _BLOCK
    sums = weights[:whole].reshape(-1, _BLOCK).sum(axis=1, dtype=np.float32).astype(np.float64)
    if whole < len(weights):
        sums = np.append(sums, weights[whole:].sum(dtype=np.float64))
    return np.cumsum(sums)
