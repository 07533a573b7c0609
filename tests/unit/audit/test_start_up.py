"""What a start imports: a request is waiting, or a writer that died is to be replaced."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.harness import SOURCE


@pytest.mark.parametrize(
    ("module", "needless"),
    [
        ("serving.gateway.guard", {"serving.bundle", "serving.registry", "serving.wheels", "serving.store.cas"}),
        ("serving.audit.process", {"serving.settings", "serving.bundle", "pydantic", "fastapi", "sqlalchemy"}),
    ],
)
def test_nothing_is_imported_that_is_not_needed(module: str, needless: set[str]) -> None:
    """Of what takes long."""
    script = f"import sys, {module}; print(*sorted({needless!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], cwd=SOURCE, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
