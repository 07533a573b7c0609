"""`python -m tests.support.logits_of FILE`: load a GGUF, compute 64 tokens, print parameters, finiteness and spread."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from serving.llamacpp import binding


def main() -> None:
    binding.start_backend()
    model = binding.Model(Path(sys.argv[1]))
    options = binding.ContextOptions(kv_layout="streams", n_ctx=256, n_seq_max=1, n_batch=128, n_ubatch=128, threads=2)
    context = binding.Context(model, options)
    text = " ".join(f"a{second}{third}" for second in "qrstuvwx" for third in "abcdefgh")
    tokens = model.tokenize(text.encode(), add_special=False, parse_special=True)[:64]
    context.prefill(0, tokens, 0, wants_logits=True)
    row = context.logits(1)[0]
    print(model.n_params, bool(np.isfinite(row).all()), float(row.std()))  # noqa: T201 - this is what it is for


if __name__ == "__main__":
    main()
