"""The processors: model, cores, which of them are ours, and what they can compute."""

from __future__ import annotations

from pathlib import Path

from serving.hardware.files import parse_list, read_text
from serving.hardware.machine import Cpu

ISA_THAT_MATTERS = (
    "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "avx512_bf16",
    "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16", "amx_fp16",
    "asimd", "asimddp", "i8mm", "bf16", "sve", "sve2",
)  # fmt: skip
"""Flags as /proc/cpuinfo spells them, x86 first, then ARM."""


def read_cpu(root: Path, quota: float | None) -> Cpu:
    """The processors as the files under `root` show them; `quota` is the control group's, in processors."""
    facts = _first_processor(read_text(root / "proc/cpuinfo") or "")
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    online = parse_list(read_text(root / "sys/devices/system/cpu/online") or "")
    usable = _affinity(root) or online
    siblings = {cpu: _siblings(root, cpu) for cpu in sorted({*online, *usable})}
    taken: set[int] = set()
    cores: list[int] = []
    for cpu in usable:
        if cpu not in taken:
            cores.append(cpu)
            taken.update(siblings[cpu])
    nodes = parse_list(read_text(root / "sys/devices/system/node/online") or "")
    return Cpu(
        model=facts.get("model name") or facts.get("Model") or None,
        architecture="x86_64" if "flags" in facts else "aarch64" if "Features" in facts else None,
        logical=len(online) or None,
        physical=len({siblings[cpu] for cpu in online}) or None,
        usable=usable,
        cores=tuple(cores),
        quota=quota,
        isa=tuple(flag for flag in ISA_THAT_MATTERS if flag in flags),
        numa_nodes=len(nodes) or None,
    )


def _first_processor(cpuinfo: str) -> dict[str, str]:
    facts: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            facts.setdefault(name.strip(), value.strip())
    return facts


def _affinity(root: Path) -> tuple[int, ...]:
    for line in (read_text(root / "proc/self/status") or "").splitlines():
        name, _, value = line.partition(":")
        if name == "Cpus_allowed_list":
            return parse_list(value)
    return ()


def _siblings(root: Path, cpu: int) -> tuple[int, ...]:
    """The hardware threads of one core; the thread alone where the kernel does not say."""
    text = read_text(root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    return parse_list(text or "") or (cpu,)
