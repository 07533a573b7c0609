"""The processors: model, cores, which of them are ours, and what they can compute."""

from __future__ import annotations

from pathlib import Path

from serving.hardware.files import parse_list, read_int, read_text
from serving.hardware.machine import Cpu, NumaNode

ISA_THAT_MATTERS = (
    "cx16", "lahf_lm", "popcnt", "pni", "ssse3", "sse4_1", "sse4_2", "bmi1", "bmi2", "abm", "movbe", "xsave",
    "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl",
    "avx512vbmi", "avx512_vnni", "avx512_bf16", "avx512_fp16",
    "amx_tile", "amx_int8", "amx_bf16", "amx_fp16",
    "asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "svei8mm", "svebf16", "sve2", "sme",
)  # fmt: skip
"""Flags as /proc/cpuinfo spells them, x86 first, then ARM: what the levels of x86-64 are made of (serving.wheels), and
what libraries for inference ask for beyond them."""

_SLOW_BELOW = 0.75
"""A core of less than this share of the largest one's capacity is a small one. ARM's big cores in one machine differ
by less (a prime core and its siblings), its small ones by more."""

_ARM_CORES = {
    (0x41, 0xD0C): "Neoverse-N1",
    (0x41, 0xD40): "Neoverse-V1",
    (0x41, 0xD42): "Cortex-A78AE",
    (0x41, 0xD49): "Neoverse-N2",
    (0x41, 0xD4F): "Neoverse-V2",
    (0x41, 0xD83): "Neoverse-V3AE",
    (0x41, 0xD84): "Neoverse-V3",
    (0x41, 0xD8E): "Neoverse-N3",
    (0xC0, 0xAC3): "Ampere-1",
    (0xC0, 0xAC4): "Ampere-1a",
}
"""ARM's /proc/cpuinfo gives numbers in place of a name: implementer and part (the Linux kernel's asm/cputype.h)."""


def read_cpu(root: Path, quota: float | None, cpuset: tuple[int, ...] = ()) -> Cpu:
    """The processors as the files under `root` show them.

    `quota` and `cpuset` are the control group's: processors' worth of time, and ids it is confined to (() for all).
    """
    facts = _first_processor(read_text(root / "proc/cpuinfo") or "")
    flags = set((facts.get("flags") or facts.get("Features") or "").split())
    online = parse_list(read_text(root / "sys/devices/system/cpu/online") or "")
    usable = _affinity(root) or online
    if cpuset and set(cpuset) & set(usable):
        usable = tuple(cpu for cpu in usable if cpu in set(cpuset))
    siblings = {cpu: _siblings(root, cpu) for cpu in sorted({*online, *usable})}
    cores = _one_of_each(usable, siblings)
    slow = _slow(root, cores)
    nodes = _nodes(root)
    return Cpu(
        model=_arm_name(facts) or facts.get("model name") or facts.get("Model") or None,
        architecture="x86_64" if "flags" in facts else "aarch64" if "Features" in facts else None,
        logical=len(online) or None,
        physical=len({siblings[cpu] for cpu in online}) or None,
        usable=usable,
        cores=tuple(cpu for cpu in cores if cpu not in slow),
        quota=quota,
        isa=tuple(flag for flag in ISA_THAT_MATTERS if flag in flags),
        numa_nodes=len(nodes) or None,
        slow_cores=tuple(cpu for cpu in cores if cpu in slow),
        isolated=parse_list(read_text(root / "sys/devices/system/cpu/isolated") or ""),
        nodes=nodes,
        last_level_cache_bytes=_last_level_cache(root, online),
    )


def _first_processor(cpuinfo: str) -> dict[str, str]:
    facts: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            facts.setdefault(name.strip(), value.strip())
    return facts


def _arm_name(facts: dict[str, str]) -> str | None:
    try:
        return _ARM_CORES.get((int(facts["CPU implementer"], 16), int(facts["CPU part"], 16)))
    except (KeyError, ValueError):
        return None


def _affinity(root: Path) -> tuple[int, ...]:
    for line in (read_text(root / "proc/self/status") or "").splitlines():
        name, _, value = line.partition(":")
        if name == "Cpus_allowed_list":
            return parse_list(value)
    return ()


def _one_of_each(usable: tuple[int, ...], siblings: dict[int, tuple[int, ...]]) -> tuple[int, ...]:
    """The first usable hardware thread of each core."""
    taken: set[int] = set()
    cores: list[int] = []
    for cpu in usable:
        if cpu not in taken:
            cores.append(cpu)
            taken.update(siblings[cpu])
    return tuple(cores)


def _slow(root: Path, cores: tuple[int, ...]) -> frozenset[int]:
    """Those of the cores that are small ones, where there are others beside them.

    Intel's hybrid processors are two devices to the kernel, `cpu_core` and `cpu_atom`; ARM's have a capacity each.
    """
    fast = set(parse_list(read_text(root / "sys/devices/cpu_core/cpus") or ""))
    if fast & set(cores):
        return frozenset(cores) - fast
    capacities = {core: read_int(root / f"sys/devices/system/cpu/cpu{core}/cpu_capacity") for core in cores}
    known = {core: capacity for core, capacity in capacities.items() if capacity}
    largest = max(known.values(), default=0)
    return frozenset(core for core, capacity in known.items() if capacity < _SLOW_BELOW * largest)


def _nodes(root: Path) -> tuple[NumaNode, ...]:
    nodes = []
    for node in parse_list(read_text(root / "sys/devices/system/node/online") or ""):
        directory = root / f"sys/devices/system/node/node{node}"
        memory: dict[str, int] = {}
        for line in (read_text(directory / "meminfo") or "").splitlines():
            words = line.split()  # Node 0 MemTotal:       263779060 kB
            if len(words) == 5 and words[3].isdigit() and words[4] == "kB":
                memory[words[2]] = int(words[3]) * 1024
        cpus = parse_list(read_text(directory / "cpulist") or "")
        nodes.append(NumaNode(node, cpus, memory.get("MemTotal:"), memory.get("MemFree:")))
    return tuple(nodes)


def _siblings(root: Path, cpu: int) -> tuple[int, ...]:
    """The hardware threads of one core; the thread alone where the kernel does not say."""
    text = read_text(root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
    return parse_list(text or "") or (cpu,)


def _last_level_cache(root: Path, cpus: tuple[int, ...]) -> int | None:
    """Bytes of all caches of the highest level that is there, each counted once however many share it."""
    levels: dict[int, dict[str, int]] = {}
    for cpu in cpus:
        for index in range(5):
            cache = root / f"sys/devices/system/cpu/cpu{cpu}/cache/index{index}"
            level = read_int(cache / "level")
            size = (read_text(cache / "size") or "").strip()
            shared = (read_text(cache / "shared_cpu_list") or "").strip()
            if level is not None and size.endswith("K") and size[:-1].isdigit():
                levels.setdefault(level, {})[shared] = int(size[:-1]) * 1024
    return sum(levels[max(levels)].values()) if levels else None
