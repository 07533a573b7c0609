"""The model shows, before it serves, that computing a prompt piece by piece gives what computing it at once gives.

An oracle that is wrong is worse than none, and some are: recurrent layers of several architectures continue from their
state by single tokens only, and begin anew with every chunk.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from serving.errors import BadFile
from serving.hf.engine import Model

_LENGTH = 32
_MOST_EXACT = 0.02
_MOST_ROUNDED = 0.5
"""Largest difference between two rows of logits that is rounding, in standard deviations of a row: for float32, and for
types of 16 bits. A state that was lost makes several."""


def takes_chunks(model: Model) -> bool:
    """Whether a prompt may be computed in chunks; False: only at once. Raises BadFile where neither is right."""
    tokens = [(place * 7919 + 11) % model.n_vocab for place in range(_LENGTH)]
    whole = model.begin().compute(tokens)
    if not np.isfinite(whole).all():
        raise BadFile(
            f"the model computes numbers that are none in {model.dtype}",
            hint="try --dtype float32; if that is no better, the weights are damaged",
        )
    most = _MOST_EXACT if model.dtype == "float32" else _MOST_ROUNDED

    def differs(*pieces: Sequence[int]) -> bool:
        run = model.begin()
        row = [run.compute(piece) for piece in pieces][-1]
        return not float(np.abs(row - whole).max()) <= most * float(whole.std())

    half = _LENGTH // 2
    if differs(tokens[:half], *([token] for token in tokens[half:])):
        raise BadFile(
            f"the model's cache does not give in {model.dtype} what the whole prompt gives",
            hint="try --dtype float32; if that is no better, this architecture needs another version of Transformers",
        )
    return not differs(tokens[:half], tokens[half:])
