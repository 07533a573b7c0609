"""`python -m serving.settings toml|markdown`: the reference of all settings, on stdout."""

from __future__ import annotations

import sys

from serving.settings.reference import to_markdown, to_toml

FORMS = {"toml": to_toml, "markdown": to_markdown}

if __name__ == "__main__":
    wanted = sys.argv[1] if len(sys.argv) == 2 else ""
    if wanted not in FORMS:
        sys.stderr.write("usage: python -m serving.settings toml|markdown\n")
        sys.exit(2)
    sys.stdout.write(FORMS[wanted]())
