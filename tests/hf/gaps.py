"""`python -m tests.hf.gaps`: for each list of tokens on stdin, a line with the two likeliest next ones and their gap.

Runs in the engine's environment; answers are computed as the engine computes them, in float32.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from serving.hf.binding import Model, read_config
from serving.hf.directory import inspect

DEMO = Path(__file__).parents[2] / "serving" / "models" / "demo" / "hf"


def main() -> None:
    contents = inspect(DEMO)
    model = Model(contents, read_config(contents), dtype="float32", device="cpu", threads=1)
    for line in sys.stdin:
        row = model.begin().compute(json.loads(line))
        second, first = (int(token) for token in row.argsort()[-2:])
        print(json.dumps({"likeliest": [first, second], "gap": float(row[first] - row[second])}))  # noqa: T201


if __name__ == "__main__":
    main()
