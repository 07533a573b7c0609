"""A process that has a store of tainted texts, does what it is told by lines, and is killed."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from serving.policy.taint_store import TaintStore


def main() -> None:
    store = TaintStore(Path(sys.argv[1]), bytes(range(32)), keep_s=86_400, most=1 << 16)
    by = store.fingerprinter("here")
    opened: list[int] = []
    os.write(1, b"ready\n")
    for line in sys.stdin:
        word, _, text = line.rstrip("\n").partition(" ")
        if word == "add":
            store.add(by.keep([text]))
        elif word == "open":
            opened.append(store.open_answer())
        elif word == "close":
            store.add(by.keep([text]), closes=opened.pop())
        os.write(1, b"done\n")


if __name__ == "__main__":
    main()
