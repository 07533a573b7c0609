"""`python -m serving.engines.warden ROOT PID`: outlives a gateway that is killed, and ends what it left running.

The kernel ends an engine's first process with its gateway, but not the processes that one has started: vLLM's engine
core and workers would keep their gigabytes. This process waits for the gateway's end, whatever it was, then kills what
the records under ROOT prove to be its engines, and exits. After an orderly stop there is nothing left to do.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from serving.engines.runtime import reap_leftovers

SOURCE = Path(__file__).resolve().parents[2]


def watch_over(root: Path) -> None:
    """Start a warden for this process, in a session of its own, so that no signal to ours reaches it."""
    subprocess.Popen(  # noqa: S603 - our own module
        [sys.executable, "-m", "serving.engines.warden", str(root), str(os.getpid())],
        # with a home, or Python would ask the name services of this host for one
        env={"PATH": "/usr/bin:/bin", "HOME": "/", "PYTHONPATH": str(SOURCE)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        close_fds=True,
    )


def main() -> None:
    """Wait for the gateway's end, then clear up after it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    root, gateway = Path(sys.argv[1]), int(sys.argv[2])
    try:
        handle = os.pidfd_open(gateway)
    except ProcessLookupError:
        pass
    else:
        poller = select.poll()
        poller.register(handle, select.POLLIN)
        poller.poll()
    reap_leftovers(root)


if __name__ == "__main__":
    main()
