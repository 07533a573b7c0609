"""Print the JSON schema of a result: `python -m serving.bench > docs/bench-result.json`."""

from __future__ import annotations

import json
import sys

from serving.bench.record import schema

if __name__ == "__main__":
    sys.stdout.write(json.dumps(schema(), indent=1) + "\n")
