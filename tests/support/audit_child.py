"""A process that writes an audit log until it is killed, and prints the number of each intent that is acknowledged."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from tests.support.audit_logs import intent, open_audit, outcome, places_in

AT_ONCE = 8


async def write(directory: Path) -> None:
    audit = open_audit(places_in(directory))

    async def client(name: int) -> None:
        while True:
            number = await audit.intent(intent(name, prompt="f" * 64))
            # one write: what is printed was acknowledged, whenever the end comes
            os.write(1, f"{number}\n".encode())
            audit.outcome(outcome(number))

    await asyncio.gather(*map(client, range(AT_ONCE)))


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1])))
