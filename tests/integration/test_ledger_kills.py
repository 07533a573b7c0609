"""Killed anywhere, the ledger has everything that was acknowledged, and no budget is exceeded."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import subprocess
import sys
from pathlib import Path

from serving.access.ledger import Ledger

KILLS = int(os.environ.get("PERIMETER_LEDGER_KILLS", "20"))
BUDGET = 200_000
CHILD = """
import os, random, sys
from datetime import date
from pathlib import Path
from serving.access.ledger import Ledger, Reservation
from serving.access.prices import Price, Tokens
from serving.access.quota import Limits
import serving.access.ledger as module
module._FLUSH_S = 0.002
price = Price(date(2026, 1, 1), "*", "*", 10**6, 10**6, 10**6, 10**6, "v1")
limits = Limits(cost_in_all=int(sys.argv[2]))
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        chance = random.Random(line)
        ledger = Ledger(Path(sys.argv[1]), timeout_s=0.05)
        held = []
        while True:
            made = ledger.reserve("key", "one", limits, model="demo", engine="e", prompt=chance.randrange(9),
                                  answer=chance.randrange(9), price=price)
            if isinstance(made, Reservation):
                os.write(1, b"r %d %d\\n" % (made.id, made._reserved.hold.cost))
                held.append(made)
            if len(held) > 5 or not isinstance(made, Reservation):
                if not held:
                    os.write(1, b"full\\n")
                    os._exit(0)
                made = held.pop(chance.randrange(len(held)))
                used = chance.randint(0, made._reserved.hold.cost)
                made.settle(Tokens(fresh=used))
                os.write(1, b"s %d %d\\n" % (made.id, used))
    os.write(1, b"p %d\\n" % child)
    os.waitpid(child, 0)
    os.write(1, b"end\\n")
"""
"""Ledgers, each in a process forked for it; what it was told is acknowledged on stdout, in one write a line."""


def test_kills_lose_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """At random moments of reserving, settling and flushing. Each time, the next process finds every acknowledged
    settlement at its cost and every acknowledged reservation open or settled, and the budget holds."""
    chance = random.Random(7)
    argv = [sys.executable, "-c", CHILD, str(tmp_path), str(BUDGET)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    reserved: dict[int, int] = {}
    settled: dict[int, int] = {}

    def told(line: str) -> None:
        kind, number, cost = line.split()
        assert kind == "s" or int(number) not in reserved, "a number came twice"
        (reserved if kind == "r" else settled)[int(number)] = int(cost)

    for number in range(KILLS):
        process.stdin.write(f"{number}\n")
        process.stdin.flush()
        child = 0
        left = chance.randrange(1, 1500)  # lines that it gets to say
        for line in process.stdout:
            if line.startswith("p "):
                child = int(line.split()[1])
            elif line == "end\n":
                break
            elif line != "full\n":
                told(line)
            left -= 1
            if child and left == 0:
                os.kill(child, 9)
        ledger = Ledger(tmp_path, timeout_s=3600)
        usage, still = ledger.usage("one"), dict(ledger._open)
        ledger.close()
        with contextlib.closing(sqlite3.connect(tmp_path / "access.sqlite")) as connection:
            found = dict(connection.execute("SELECT reservation, cost FROM usage"))
            estimated = {row[0] for row in connection.execute("SELECT reservation FROM usage WHERE estimated")}
        for each, cost in settled.items():
            assert found.get(each) == cost, f"settlement {each} of {cost} is {found.get(each)}"
        for each, cost in reserved.items():
            assert each in still or each in found, f"reservation {each} is lost"
            assert each not in estimated or found[each] == cost
        assert usage.all_cost == sum(found.values()) + sum(each.hold.cost for each in still.values())
        assert usage.all_cost <= BUDGET
    process.communicate(timeout=20)
    assert len(settled) > 50 * KILLS
