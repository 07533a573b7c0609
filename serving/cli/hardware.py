"""`serve hardware`."""

from __future__ import annotations

import sys

from serving.cli.show import known, print_json, print_rows
from serving.hardware import Machine, detect
from serving.planner.text import gib


def show_hardware(*, as_json: bool) -> int:
    """Print what this machine has."""
    machine = detect()
    if as_json:
        print_json(machine)
    else:
        print_rows(rows(machine))
        for warning in machine.warnings:
            sys.stderr.write(f"warning: {warning}\n")
    return 0


def rows(machine: Machine) -> list[tuple[str, str]]:
    """The machine as (what, value) for people."""
    cpu, memory, disk = machine.cpu, machine.memory, machine.disk
    quota = f", quota of {cpu.quota:g}" if cpu.quota is not None else ""
    table = [
        ("cpu", known(cpu.model)),
        ("cores", f"{known(cpu.physical)} physical, {known(cpu.logical)} logical, {len(cpu.usable)} usable{quota}"),
        ("isa", " ".join(cpu.isa) or "–"),
        ("numa", known(cpu.numa_nodes, " node" if cpu.numa_nodes == 1 else " nodes")),
        ("memory", f"{_size(memory.total_bytes)}, {_size(memory.available_bytes)} available"),
    ]
    if memory.limit_bytes is not None:
        table.append(("limit", f"{_size(memory.limit_bytes)}, {_size(memory.limit_remaining_bytes)} left in it"))
    if disk is not None:
        table.append(("disk", f"{_size(disk.free_bytes)} free of {_size(disk.total_bytes)} at {disk.path}"))
    for gpu in machine.gpus:
        free = f"{_size(gpu.memory_free_bytes)} free of {_size(gpu.memory_total_bytes)}"
        capability = ".".join(map(str, gpu.compute_capability)) if gpu.compute_capability else "–"
        table.append((f"gpu {gpu.index}", f"{known(gpu.name)}, {free}, compute capability {capability}"))
    if not machine.gpus:
        table.append(("gpu", "none"))
    return table


def _size(size: int | None) -> str:
    return "–" if size is None else gib(size)
