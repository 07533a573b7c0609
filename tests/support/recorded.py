"""Recorded machines: the files of /proc and /sys that are read, and NVML's answers.

`tests/unit/hardware/machines/NAME/files.txt` holds a tree in one file: a line `-- path --`, then that file's text as
the kernel writes it. A path may stand for many: `cpu{0..127}` or `cpu{0..120:8}`; `{n}`, `{n+128}` or `{n-1}` in the
text are then that number. `nvml.json` beside it is a recording for tests.support.nvml.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.hardware import Machine, detect
from tests.support.nvml import RecordedNvml

MACHINES = Path(__file__).parents[1] / "unit/hardware/machines"
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)(?::(\d+))?\}")
_NUMBER = re.compile(r"\{n(?:([+-])(\d+))?\}")


@dataclass
class Recorded:
    """A machine laid out under a directory."""

    root: Path
    nvml: RecordedNvml

    def detect(self, environment: dict[str, str] | None = None, disk: Path | None = None) -> Machine:
        """What is seen of it."""
        return detect(self.root, disk=disk, nvml=self.nvml, environment=environment or {})

    def write(self, path: str, text: str) -> None:
        """Put another file there."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def remove(self, path: str) -> None:
        """Take a file away."""
        (self.root / path).unlink()

    def with_nvml(self, recording: dict[str, Any]) -> Recorded:
        """The same machine with other answers."""
        return Recorded(self.root, RecordedNvml(recording))

    def change(self, index: int, **answers: Any) -> Recorded:
        """The same machine with other answers of one GPU."""
        recording = json.loads(json.dumps(self.nvml.recording))
        recording["devices"][index].update(answers)
        return self.with_nvml(recording)


def names() -> list[str]:
    """All recorded machines."""
    return sorted(path.name for path in MACHINES.iterdir())


def lay_out(name: str, directory: Path) -> Recorded:
    """The recorded machine `name` as files under `directory`."""
    for path, text in expand((MACHINES / name / "files.txt").read_text()):
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return Recorded(directory, RecordedNvml.read(MACHINES / name / "nvml.json"))


def expand(archive: str) -> list[tuple[str, str]]:
    """The (path, text) pairs that an archive stands for."""
    parts = re.split(r"^-- (.+) --\n", archive, flags=re.MULTILINE)
    files: list[tuple[str, str]] = []
    for path, text in zip(parts[1::2], parts[2::2], strict=True):
        numbers = _RANGE.search(path)
        if numbers is None:
            files.append((path, text))
            continue
        first, last, step = numbers.groups()
        files += [
            (_RANGE.sub(str(n), path), _NUMBER.sub(lambda found, n=n: _shifted(found, n), text))
            for n in range(int(first), int(last) + 1, int(step or 1))
        ]
    return files


def _shifted(found: re.Match[str], n: int) -> str:
    sign, distance = found.groups()
    return str(n + (int(distance) if sign == "+" else -int(distance)) if sign else n)
