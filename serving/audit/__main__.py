"""`python -m serving.audit FD`: the process that writes a host's audit log (`process.py`)."""

import os
import sys

from serving.audit.process import main

if __name__ == "__main__":
    os.umask(0o077)
    sys.exit(main(int(sys.argv[1])))
