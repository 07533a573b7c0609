"""Write the corpus, a row of JSON per line.

python -m benchmarks.corpus --seed 1 --count 10000 [--part second|held-out] --out corpus.jsonl
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TextIO

from benchmarks.corpus import PARTS, Row, rows


def main() -> int:
    """Write and say how many of them are sensitive."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--count", type=int, required=True, help="rows, half of them sensitive")
    parser.add_argument("--part", choices=[part.replace("_", "-") for part in PARTS], default="open")
    parser.add_argument("--out", type=Path, required=True, help="a file that is written anew; - for stdout")
    options = parser.parse_args()
    if options.count < 0:
        parser.error(f"--count `{options.count}` is below 0")
    part = next(part for part in PARTS if part.replace("_", "-") == options.part)
    made = rows(options.seed, options.count, part)
    if str(options.out) == "-":
        sensitive = sum(_written(row, sys.stdout) for row in made)
    else:
        with options.out.open("w", encoding="utf-8") as file:
            sensitive = sum(_written(row, file) for row in made)
    print(f"{options.count} rows, {sensitive} of them sensitive", file=sys.stderr)
    return 0


def _written(row: Row, file: TextIO) -> bool:
    file.write(row.line() + "\n")
    return row.is_sensitive


if __name__ == "__main__":
    sys.exit(main())
