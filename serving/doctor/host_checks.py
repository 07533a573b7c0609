"""Checks of the processors and the kernel's way with them."""

from __future__ import annotations

from collections.abc import Iterator

from serving.doctor.facts import Facts
from serving.doctor.finding import Finding

_YEARS_S = (1735689600.0, 4102444800.0)
"""2025 to 2100: a clock outside was never set."""


def check_host(facts: Facts) -> Iterator[Finding]:
    """Processors, and the clock."""
    noted = set(facts.machine.warnings) - set(facts.machine.gpu_faults)
    yield from (Finding("hardware", "warning", note) for note in facts.machine.warnings if note in noted)
    yield from _cpu(facts)
    yield from _quota(facts)
    yield from _frequency(facts)
    yield from _numa(facts)
    yield from _clock(facts)


def _cpu(facts: Facts) -> Iterator[Finding]:
    cpu = facts.machine.cpu
    threads = "two threads each" if facts.kernel.smt else "one thread each" if facts.kernel.smt is False else ""
    cores = f"{cpu.parallel} {'core' if cpu.parallel == 1 else 'cores'} to compute on"
    if cpu.slow_cores:
        cores += f", {len(cpu.slow_cores)} slow ones left out"
    found = ", ".join(part for part in (cpu.model, cores, threads) if part)
    if cpu.architecture == "x86_64" and "avx2" not in cpu.isa:
        advice = "expect a fraction of the usual speed; in a virtual machine, pass the host's CPU model through"
        yield Finding("cpu", "warning", f"{found}; no AVX2", advice)
    elif cpu.architecture is None:
        yield Finding("cpu", "unknown", f"{found}; /proc/cpuinfo does not say what it can compute")
    else:
        yield Finding("cpu", "good", found)


def _quota(facts: Facts) -> Iterator[Finding]:
    cpu = facts.machine.cpu
    cores = len(cpu.cores) or len(cpu.usable)
    if cpu.quota is None:
        return
    if cpu.quota < cores or cpu.quota != int(cpu.quota):
        found = f"a quota of {cpu.quota:g} processors over {cores} cores: all threads stand still when it is used up"
        advice = "give whole cores instead (a cpuset, or Kubernetes' static CPU manager), or raise the quota"
        yield Finding("cpu quota", "warning", found, advice)
    else:
        yield Finding("cpu quota", "good", f"{cpu.quota:g} processors, for {cores} cores")


def _frequency(facts: Facts) -> Iterator[Finding]:
    kernel = facts.kernel
    advice = "`cpupower frequency-set -g performance`, or the firmware's performance profile"
    # These drivers give `powersave` another meaning: the hardware chooses, as its energy preference says.
    by_hardware = kernel.frequency_driver in ("intel_pstate", "amd-pstate-epp", "amd_pstate_epp")
    saving = {"power", "balance_power"} & set(kernel.energy_preferences)
    if by_hardware and saving:
        yield Finding("cpu clock", "warning", f"energy preference `{'`, `'.join(sorted(saving))}`", advice)
    elif "powersave" in kernel.governors and not by_hardware:
        yield Finding("cpu clock", "warning", "governor `powersave`: processors stay at their lowest clock", advice)
    elif kernel.governors:
        yield Finding("cpu clock", "good", f"governor `{'`, `'.join(kernel.governors)}`")


def _numa(facts: Facts) -> Iterator[Finding]:
    nodes = [node for node in facts.machine.cpu.nodes if node.cpus]
    if len(nodes) < 2:
        return
    if facts.kernel.numa_balancing:
        found = f"{len(nodes)} nodes, and the kernel moves pages between them while they are computed on"
        yield Finding("numa", "warning", found, "`sysctl kernel.numa_balancing=0`")
    else:
        yield Finding("numa", "good", f"{len(nodes)} nodes, pages stay where they are")


def _clock(facts: Facts) -> Iterator[Finding]:
    clock = facts.clock
    advice = "run chrony or systemd-timesyncd against a time server inside the perimeter"
    why = "keys expire and records are dated by it"
    if clock.now_s is None:
        yield Finding("clock", "unknown", "cannot be read", advice)
    elif not _YEARS_S[0] <= clock.now_s <= _YEARS_S[1] or clock.now_s < (clock.at_least_s or 0):
        yield Finding("clock", "problem", f"is wrong, earlier than this software or beyond reason; {why}", advice)
    elif clock.is_synchronised is None:
        yield Finding("clock", "unknown", "the kernel does not say whether it is synchronised")
    elif not clock.is_synchronised:
        yield Finding("clock", "warning", f"is not synchronised, as far as this kernel knows; {why}", advice)
    else:
        yield Finding("clock", "good", "synchronised")
