"""A process that keeps content until it is killed, and prints what is acknowledged: what is kept, what is erased."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from serving.audit.shelf import Erasing
from tests.support.contents import Keeping, keeping

AT_ONCE = 6


def text_of(name: int, count: int) -> bytes:
    """What a client says; found again by whoever knows its name and count."""
    return b"%d asks for the %d. time " % (name, count) * (1 + count % 40)


async def work(kept: Keeping) -> None:
    async def client(name: int) -> None:
        count = 0
        while True:
            count += 1
            text = text_of(name, count)
            asked, said = await kept.request(text, [text, b"answer"])
            if said is None:
                raise AssertionError
            # one write: what is printed was acknowledged, whenever the end comes
            os.write(1, f"kept {asked.content} {said.content} {name} {count}\n".encode())
            if count % 7 == name:
                await asyncio.to_thread(kept.store.erase, Erasing((asked.content,), "uid 1", "test"))
                os.write(1, f"erased {asked.content}\n".encode())

    await asyncio.gather(*map(client, range(AT_ONCE)))


if __name__ == "__main__":
    with keeping(Path(sys.argv[1])) as kept:
        asyncio.run(work(kept))
