"""How likely a token was by the model itself: log-softmax of the logits as they came, in natural logarithms.

Before bias, penalties, temperature and any constraint, which is what vLLM reports by default (`raw_logprobs`).
"""

from __future__ import annotations

import math

import numpy as np

from serving.generation.sampling import Row, largest
from serving.openai.logprobs import TokenLogprob


def log_probability(raw: Row, token: int, most: int) -> TokenLogprob:
    """The token's, and those of the `most` likeliest; `raw` is one row of logits that nothing was done to."""
    top = float(raw.max())
    normaliser = top + math.log(float(np.exp(raw - np.float32(top)).sum(dtype=np.float64)))
    likeliest = largest(raw, min(most, len(raw))) if most else ()
    return TokenLogprob(
        token,
        float(raw[token]) - normaliser,
        tuple((int(other), float(raw[other]) - normaliser) for other in likeliest),
    )
