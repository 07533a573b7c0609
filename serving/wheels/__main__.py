"""`python -m serving.wheels WHEEL…`: what each wheel takes for granted of the processor, as JSON lines on stdout.

Ends with a StartError's exit status where one of them is not portable. Needs no package beside Python.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from serving.errors import StartError
from serving.wheels.llamacpp import read_wheel


def main() -> int:
    """Describe the wheels that are named on the command line."""
    try:
        for path in sys.argv[1:]:
            wheel = read_wheel(Path(path))
            sys.stdout.write(json.dumps({**dataclasses.asdict(wheel), "level": wheel.level}) + "\n")
    except StartError as error:
        sys.stderr.write(error.for_terminal() + "\n")
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
