"""What a turn of a long conversation costs the processes that scan: milliseconds by turn, as it comes and as it leaves.

`python -m benchmarks.turns [--turns N] [--chars N]`: a conversation grows to so many characters; each turn is scanned
as the gateway asks, and again with what would be sent to a vendor. By the policy that ships, with the model of names.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from pathlib import Path

from benchmarks.detection import ENGLISH, RUSSIAN, prose
from serving.egress.texts import every_text
from serving.egress.vendors import Anthropic, OutCall
from serving.egress.workers import Scanners
from serving.policy.detect import parts_of
from serving.policy.load import load_policy
from serving.policy.model import Policy

POLICY = Path(__file__).parents[1] / "configs" / "policy.toml"
SHOWN = 5
"""Of the turns, as evenly as they come, and the last."""


async def grow(kind: str, piece: str, policy: Policy, turns: int, chars: int) -> None:
    scanners = Scanners(1, 120.0, 4 * chars)
    await scanners.start(policy)
    text, count = prose(piece)(random.Random(8), chars), 2 * turns - 1
    each = chars // count
    said = [
        {"role": "assistant" if at % 2 else "user", "content": text[at * each : (at + 1) * each]} for at in range(count)
    ]
    vendor = Anthropic(name="vendor")
    try:
        for turn in range(1, turns + 1):
            body: dict[str, object] = {"model": "demo", "messages": said[: 2 * turn - 1], "max_tokens": 64}
            sent = json.loads(vendor.request(OutCall("/v1/chat/completions", body, "their-model")).body)
            asked, leaving = parts_of(body), every_text(sent)
            began = time.perf_counter()
            await scanners.scan(asked, policy, "team")
            judged = time.perf_counter()
            await scanners.scan(asked, policy, "team")
            await scanners.scan(leaving, policy, "team")
            ended = time.perf_counter()
            if turn in {1, turns} or turn % max(1, turns // SHOWN) == 0:
                print(f"{kind:8} {turn:5} {(judged - began) * 1e3:10.1f} {(ended - judged) * 1e3:10.1f}", flush=True)
    finally:
        await scanners.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--chars", type=int, default=64_000)
    chosen = parser.parse_args()
    policy = load_policy(POLICY)
    print(f"{'kind':8} {'turn':>5} {'judged ms':>10} {'sent ms':>10}")
    for kind, piece in (("russian", RUSSIAN), ("english", ENGLISH)):
        asyncio.run(grow(kind, piece, policy, chosen.turns, chosen.chars))


if __name__ == "__main__":
    main()
