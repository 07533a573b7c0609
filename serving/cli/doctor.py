"""`serve doctor`."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from serving.cli.options import settings_for
from serving.cli.runtime import cache_dir, catalogue_of, look_at_cache_dir, look_at_runtime_dir
from serving.cli.show import print_json
from serving.doctor import Finding, examine, gather, read_models
from serving.doctor.finding import Status
from serving.engines.spec import SYSTEM_PATH
from serving.errors import UnhealthyHost
from serving.hardware import detect
from serving.settings import Settings

_ORDER: tuple[Status, ...] = ("problem", "warning", "unknown", "good")


def show_health(config: Path | None, *, as_json: bool, measured: bool) -> int:
    """Print what is right and wrong with this host. Raises UnhealthyHost where there is a problem, after printing."""
    settings = settings_for(config)
    models = read_models(lambda: catalogue_of(settings, os.environ))
    if measured and not as_json:
        sys.stderr.write("measuring for some seconds …\n")
    machine = detect(disk=models.paths[0].parent if models.paths else None)
    vllm = settings.engines.vllm
    facts = gather(
        machine,
        models=models,
        runtime=lambda: look_at_runtime_dir(settings.paths.runtime_dir, os.environ),
        cache=lambda: look_at_cache_dir(settings.paths.cache_dir, os.environ),
        require_gpu=settings.hardware.require_gpu,
        vllm_python=str(vllm.python or sys.executable),
        vllm_environment=vllm_environment(settings) if machine.gpus or vllm.python else None,
        measured=measured,
    )
    findings = examine(facts)
    problems = [finding.name for finding in findings if finding.status == "problem"]
    if as_json:
        print_json({"healthy": not problems, "findings": findings, "facts": facts})
    else:
        sys.stdout.write(page(findings, shutil.get_terminal_size((120, 24)).columns))
    if problems:
        what = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        message = f"this host has {what}: {', '.join(dict.fromkeys(problems))}"
        raise UnhealthyHost(message, hint="each is described above, with what to do about it")
    return 0


def vllm_environment(settings: Settings) -> dict[str, str]:
    """What of vLLM's environment decides where it looks for things: as `serve` gives it to the engine."""
    cache = cache_dir(settings.paths.cache_dir, os.environ)
    return {
        "PATH": SYSTEM_PATH,
        "VLLM_CACHE_ROOT": str(cache / "vllm"),
        "TRITON_CACHE_DIR": str(cache / "triton"),
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
        "FLASHINFER_WORKSPACE_BASE": str(cache),
        **settings.engines.vllm.environment,
    }


def page(findings: Sequence[Finding], columns: int = 120) -> str:
    """The findings for people, the worst first, each with its advice beneath; lines are at most `columns` wide."""
    widest = max((len(finding.name) for finding in findings), default=0)
    indent = " " * (widest + len("problem") + 4)
    room = max(40, columns - len(indent))
    lines = []
    for finding in sorted(findings, key=lambda finding: _ORDER.index(finding.status)):
        first, *more = textwrap.wrap(finding.found, room, break_on_hyphens=False, break_long_words=False)
        lines.append(f"{finding.status:<7}  {finding.name:<{widest}}  {first}")
        lines += [indent + line for line in more]
        if finding.advice is not None:
            advice = textwrap.wrap(finding.advice, room - 2, break_on_hyphens=False, break_long_words=False)
            lines += [f"{indent}{'> ' if number == 0 else '  '}{line}" for number, line in enumerate(advice)]
    counts = ", ".join(_count(status, findings) for status in _ORDER)
    return "\n".join([*lines, "", counts]) + "\n"


def _count(status: Status, findings: Sequence[Finding]) -> str:
    number = sum(finding.status == status for finding in findings)
    plural = "s" if number != 1 and status in ("problem", "warning") else ""
    return f"{number} {status}{plural}"
