"""`python -m serving.generation.trial`: compiles grammars where nothing is lost if one of them takes this process down.

Lines of JSON: first the vocabulary, then one grammar after another; each is answered with what is wrong with it, an
empty text where nothing is. One that takes too much CPU time or memory ends the process.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from serving.generation.compiler import Vocabulary
from serving.generation.constraint import matcher_of, tokenizer_of

if TYPE_CHECKING:
    from llguidance import LLMatcher

_CPU_S: Final = 2.0
_MOST_BYTES: Final = 512 << 20
"""Memory that a grammar may take, above what the process has before it."""
_NICE: Final = 10
_STEPS: Final = 32


def main() -> None:
    """Serve until standard input ends."""
    os.nice(_NICE)
    given = json.loads(sys.stdin.readline())
    vocabulary = Vocabulary([piece.encode("latin-1") for piece in given["pieces"]], given["control"], given["ends"])
    tokenizer = tokenizer_of(vocabulary)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + _MOST_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, _CPU_S)  # its signal ends the process
        fault = fault_of(matcher_of(tokenizer, json.loads(line)), len(vocabulary.pieces))
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.write(json.dumps(fault) + "\n")
        sys.stdout.flush()


def fault_of(matcher: LLMatcher, n_vocab: int) -> str:
    """What is wrong with a compiled grammar, some of which shows only with the first steps into it."""
    chance = random.Random(0)  # noqa: S311 - any way into the grammar will do
    bits = np.zeros((n_vocab + 31) // 32, dtype=np.int32)
    for _ in range(_STEPS):
        if matcher.is_error() or matcher.is_stopped():
            break
        matcher.unsafe_compute_mask_ptr(bits.ctypes.data, bits.nbytes)
        allowed = np.flatnonzero(np.unpackbits(bits.view(np.uint8), count=n_vocab, bitorder="little"))
        if matcher.stop_reason() == "NoExtensionBias" or not len(allowed):
            return "nothing at all is valid by it"
        matcher.try_consume_tokens([int(allowed[chance.randrange(len(allowed))])])
    return matcher.get_error() if matcher.is_error() else ""


if __name__ == "__main__":
    main()
