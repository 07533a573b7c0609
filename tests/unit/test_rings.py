"""Nothing that the gateway starts can make an io_uring."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

from serving.rings import filter_program

ROOT = Path(__file__).parents[2]
RING = "import ctypes; libc = ctypes.CDLL(None, use_errno=True); libc.syscall(425, 8, None); print(ctypes.get_errno())"
REFUSED = f"""
import platform, subprocess, sys, threading
held = threading.Event()
found = []
def ring():
    held.wait()
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall(425, 8, None)
    found.append(ctypes.get_errno())
thread = threading.Thread(target=ring)
thread.start()
from serving.rings import refuse_rings
print(refuse_rings(platform.machine()))
held.set()
thread.join()
print(found[0])
print(subprocess.run([sys.executable, "-c", {RING!r}], capture_output=True, text=True, check=True).stdout.strip())
import asyncio, uvloop
async def works():
    return await asyncio.to_thread(lambda: "works")
print(uvloop.run(works()))
"""


def run(script: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.split()


def test_a_ring_is_refused_to_all_threads_and_children() -> None:
    """As by a kernel that has none (ENOSYS, 38): threads that run already, children, and uvloop, which does without."""
    assert run(REFUSED) == ["True", "38", "38", "works"]


def test_an_architecture_that_is_not_known_is_refused_too() -> None:
    """By the older call, for the thread that asks and what it starts."""
    script = f"from serving.rings import refuse_rings; print(refuse_rings('another')); {RING}"
    assert run(script) == ["True", "38"]


def test_the_filter_refuses_one_call() -> None:
    """Five steps: load the number, compare with two spellings of one call, refuse or allow."""
    assert len(filter_program()) == 5 * 8
    assert platform.system() == "Linux"
