"""`serve hardware` for people: what stands in its rows on machines of every kind."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.cli.hardware import rows, speed_rows
from serving.hardware import Machine
from serving.hardware.measure import Measurement, MemoryRead
from serving.hardware.measure_disk import DiskRead
from tests.support.recorded import lay_out, names


@pytest.mark.parametrize("name", names())
def test_every_machine_has_its_rows(name: str, tmp_path: Path) -> None:
    """One row per device, and nothing is shown as Python would."""
    machine = lay_out(name, tmp_path).detect()
    table = rows(machine)
    assert sum(what.startswith("gpu") for what, _ in table) == max(1, len(machine.gpus))
    assert not any("None" in value or "True" in value for _, value in table)


@pytest.mark.parametrize(
    ("name", "what", "says"),
    [
        ("epyc-8xh100", "gpu 0", "3352 GB/s, 700 W, NVSwitch to 7 others, numa node 0"),
        ("epyc-8xh100", "driver", "535.183.06, CUDA up to 12.2"),
        ("a100-mig", "gpu 0 slice", "MIG-c7384736-a75d-5afc-978f-d2f1294409fd"),
        ("a100-mig", "gpu 1", "NVLink to 2"),
        ("a100-mig", "limit", "127.0 GiB left in it"),
        ("jetson-orin", "gpu 0", "shares main memory"),
        ("laptop-4090", "cores", "16 of them slow cores; 8 to compute on"),
        ("l4-kubernetes", "host", "Google Compute Engine, virtual, in a container"),
        ("l4-kubernetes", "cores", "quota of 6"),
        ("cgroup-v1", "huge pages", "4096 set aside"),
        ("graviton", "gpu", "none"),
    ],
)
def test_what_matters_is_shown(name: str, what: str, says: str, tmp_path: Path) -> None:
    """The first row of that name has it."""
    table = rows(lay_out(name, tmp_path).detect())
    assert says in next(value for row, value in table if row == what)


def test_a_machine_of_unknowns_is_dashes() -> None:
    """Nothing is made up."""
    assert dict(rows(Machine()))["memory"] == "–, – available"


def test_speeds_for_people() -> None:
    """In decimal units, as makers give them; who disturbed the measurement, and why there is none."""
    quiet = Measurement(MemoryRead(12e9, 40e9, 8, 2**28, 0.05), DiskRead(Path("/m"), 0.7e9, 2**29, "direct"))
    assert speed_rows(quiet) == [
        ("memory reads", "12.0 GB/s with 1 thread, 40.0 GB/s with 8"),
        ("disk reads", "700 MB/s at /m"),
    ]
    busy = Measurement(MemoryRead(12e9, 40e9, 8, 2**28, 3.5), DiskRead(Path("/m"), skipped="it is full"))
    memory, disk = (value for _, value in speed_rows(busy))
    assert memory.endswith("(while other programs kept 3.5 processors busy: it may be more)")
    assert disk == "not measured at /m: it is full"
    assert speed_rows(Measurement(MemoryRead(skipped="too little memory"), busy.disk))[0][1].startswith("not measured")
