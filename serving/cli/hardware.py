"""`serve hardware`."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from serving.cli.show import known, print_json, print_rows
from serving.errors import FileMissing, UsageError
from serving.hardware import Cpu, Gpu, Machine, Memory, detect
from serving.hardware.measure import Measurement, MemoryRead, measure
from serving.hardware.measure_disk import DiskRead
from serving.planner.text import gib
from serving.wheels import flags_of, lacking, level_of


def show_hardware(*, as_json: bool, measured: bool = False, directory: Path | None = None) -> int:
    """Print what this machine has, and with `measured` how fast it reads memory and the directory's disk."""
    directory = (directory or Path.cwd()).resolve()
    if not directory.exists():
        raise FileMissing(f"there is no directory `{directory}`", hint="give --directory one that is there")
    if not directory.is_dir():
        raise UsageError(f"`{directory}` is not a directory", hint=f"give --directory {directory.parent}")
    machine = detect(disk=directory)
    if measured and not as_json:
        sys.stderr.write("measuring for some seconds …\n")
    speeds = measure(machine, directory) if measured else None
    if as_json:
        # The machine's own fields at the top, so that `serve plan --machine` reads the file with or without speeds.
        facts = dataclasses.asdict(machine)
        print_json(facts if speeds is None else {**facts, "measured": dataclasses.asdict(speeds)})
    else:
        print_rows(rows(machine) + (speed_rows(speeds) if speeds else []))
        for warning in machine.warnings:
            sys.stderr.write(f"warning: {warning}\n")
    return 0


def rows(machine: Machine) -> list[tuple[str, str]]:
    """The machine as (what, value) for people."""
    host, disk = machine.host, machine.disk
    kind = [*(["virtual"] if host.virtual else []), *(["in a container"] if host.container else [])]
    table = [("host", ", ".join([host.product or "unnamed machine", *kind, f"Linux {known(host.kernel)}"]))]
    table += _cpu_rows(machine.cpu)
    table += _memory_rows(machine.memory)
    if disk is not None:
        what = ", ".join(part for part in (disk.filesystem, "a disk that turns" if disk.rotational else None) if part)
        room = f"{_size(disk.free_bytes)} free of {_size(disk.total_bytes)} at {disk.path}"
        table.append(("disk", f"{room}, {what}" if what else room))
    table += [_gpu_row(gpu) for gpu in machine.gpus]
    if machine.gpus:
        table.append(("driver", f"{known(machine.gpus[0].driver)}, CUDA up to {known(machine.gpus[0].cuda)}"))
    if not machine.gpus:
        table.append(("gpu", "none"))
    return table


def speed_rows(speeds: Measurement) -> list[tuple[str, str]]:
    """What was measured, as (what, value) for people."""
    return [("memory reads", _memory_speed(speeds.memory)), ("disk reads", _disk_speed(speeds.disk))]


def _cpu_rows(cpu: Cpu) -> list[tuple[str, str]]:
    cores = f"{known(cpu.physical)} physical, {known(cpu.logical)} logical, {len(cpu.usable)} usable"
    if cpu.slow_cores:
        cores += f", {len(cpu.slow_cores)} of them slow cores"
    if cpu.isolated:
        cores += f", {len(cpu.isolated)} isolated"
    if cpu.quota is not None:
        cores += f", quota of {cpu.quota:g}"
    nodes = f"{known(cpu.numa_nodes)} node{'' if cpu.numa_nodes == 1 else 's'}"
    own = [node for node in cpu.nodes if node.memory_total_bytes]
    if len(own) > 1:
        nodes += ": " + ", ".join(f"{node.id} has {_size(node.memory_total_bytes)}" for node in own)
    return [
        ("cpu", known(cpu.model)),
        ("cores", f"{cores}; {cpu.parallel} to compute on"),
        ("isa", _isa(cpu)),
        *([("cache", f"{gib(cpu.last_level_cache_bytes)} of the last level")] if cpu.last_level_cache_bytes else []),
        ("numa", nodes),
    ]


def _isa(cpu: Cpu) -> str:
    """The level of x86-64 and what is there beyond it; all by name where there is none, or the flags are not whole."""
    level = level_of(cpu.isa)
    if level == 1:
        return " ".join(cpu.isa) or "–"
    return " ".join([f"x86-64-v{level}", *lacking(cpu.isa, flags_of(level))])


def _memory_rows(memory: Memory) -> list[tuple[str, str]]:
    swap = {None: "", 0: ", swap off"}.get(memory.swap_total_bytes, f", swap {_size(memory.swap_total_bytes)}")
    table = [("memory", f"{_size(memory.total_bytes)}, {_size(memory.available_bytes)} available{swap}")]
    if memory.limit_bytes is not None:
        table.append(("limit", f"{_size(memory.limit_bytes)}, {_size(memory.limit_remaining_bytes)} left in it"))
    if memory.huge_pages or memory.transparent_huge_pages:
        reserved = f", {memory.huge_pages} set aside" if memory.huge_pages else ""
        table.append(("huge pages", f"transparent: {known(memory.transparent_huge_pages)}{reserved}"))
    return table


def _gpu_row(gpu: Gpu) -> tuple[str, str]:
    if gpu.unified_memory:
        memory = "shares main memory"
    else:
        memory = f"{_size(gpu.memory_free_bytes)} free of {_size(gpu.memory_total_bytes)}"
    capability = ".".join(map(str, gpu.compute_capability)) if gpu.compute_capability else "–"
    facts = [known(gpu.name), memory, f"compute capability {capability}"]
    if gpu.slice is not None:
        return f"gpu {gpu.index} slice", ", ".join([*facts, known(gpu.uuid)])
    if gpu.memory_bandwidth_bytes_s:
        facts.append(f"{gpu.memory_bandwidth_bytes_s / 1e9:.0f} GB/s")
    if gpu.power_limit_w:
        facts.append(f"{gpu.power_limit_w:.0f} W")
    if gpu.nvlink_peers:
        facts.append(f"{'NVSwitch' if gpu.nvswitch else 'NVLink'} to {_numbers(gpu.nvlink_peers)}")
    if gpu.numa_node is not None:
        facts.append(f"numa node {gpu.numa_node}")
    return f"gpu {gpu.index}", ", ".join(facts)


def _numbers(ids: tuple[int, ...]) -> str:
    return ", ".join(map(str, ids)) if len(ids) < 4 else f"{len(ids)} others"


def _memory_speed(read: MemoryRead) -> str:
    if read.skipped is not None:
        return f"not measured: {read.skipped}"
    text = f"{_rate(read.one_thread_bytes_s)} with 1 thread, {_rate(read.all_threads_bytes_s)} with {read.threads}"
    if read.others_cpus is not None and read.others_cpus >= 0.2:
        text += f" (while other programs kept {read.others_cpus:g} processors busy: it may be more)"
    return text


def _disk_speed(read: DiskRead) -> str:
    if read.skipped is not None:
        return f"not measured at {read.path}: {read.skipped}"
    past = "" if read.method == "direct" else ", perhaps partly from the page cache"
    return f"{_rate(read.read_bytes_s)} at {read.path}{past}"


def _rate(rate: float | None) -> str:
    return "–" if rate is None else f"{rate / 1e9:.1f} GB/s" if rate >= 1e9 else f"{rate / 1e6:.0f} MB/s"


def _size(size: int | None) -> str:
    return "–" if size is None else gib(size)
