"""`python -m tests.support.install_in_forks BUNDLE ROOT`: for each line on stdin an installation in its own process.

Its id goes to stdout when it begins, and `ended` when it has; after one more line, so that nobody else has the id until
then, its status. What is imported is imported once: nearly all of a child's life is the installation.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from serving.bundle import Exceptions, Wishes, complete, install, open_head, record, source_of
from serving.bundle.host import Host
from serving.bundle.keys import Trust
from serving.store.cas import Store
from tests.support.bundles import MACHINE, PYTHON


def bring(bundle: Path, root: Path) -> None:
    store = Store(root / "store")
    with source_of(bundle) as source, complete(source):
        head = open_head(source, Trust(root / "trust"), Exceptions())
        install(source, head, store, Host(MACHINE, PYTHON, 40, frozenset()), Wishes())
    record(store, head)


def main() -> None:
    bundle, root = (Path(argument) for argument in sys.argv[1:])
    while sys.stdin.readline():
        child = os.fork()
        if child == 0:
            bring(bundle, root)
            os._exit(0)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        sys.stdout.write("ended\n")
        sys.stdout.flush()
        sys.stdin.readline()
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.stdout.write(f"{status}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
