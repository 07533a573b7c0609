"""What the meters say, one of them alone, and none."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from serving.hardware import power
from serving.hardware.power import Meters, Reading
from tests.support.nvml import RecordedNvml

GPU = {
    "nvmlDeviceGetPowerUsage": 300_000,
    "nvmlDeviceGetUtilizationRates": {"gpu": 80, "memory": 20},
    "nvmlDeviceGetMemoryInfo": {"total": 80, "used": 40, "free": 40},
    "nvmlDeviceGetClockInfo": 1500,
}
LACK = {"init": "NVMLError_LibraryNotFound"}


def test_gpus_are_added_up_and_averaged(tmp_path: Path) -> None:
    """Watts and bytes together, busy time and clocks in the mean; one that does not answer is passed over."""
    lost = {**GPU, "nvmlDeviceGetPowerUsage": {"error": "NVMLError_GpuIsLost"}, "nvmlDeviceGetClockInfo": 500}
    meters = Meters(tmp_path, RecordedNvml({"devices": [GPU, GPU, lost]}))
    assert meters.names == ("nvml",)
    assert meters.read() == Reading(600.0, pytest.approx(0.8), 120, pytest.approx(3500 / 3))
    meters.close()


def test_processors_are_metered_by_their_counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Energy over time, packages added up, parts of them not counted twice, over the counter's end too."""
    seconds = itertools.count(10.0, 2.0)
    monkeypatch.setattr(power.time, "perf_counter", lambda: next(seconds))
    root = tmp_path / "sys/class/powercap"
    for name, energy in (("intel-rapl:0", 1_000_000), ("intel-rapl:1", 90_000_000), ("intel-rapl:0:0", 5)):
        (root / name).mkdir(parents=True)
        (root / name / "energy_uj").write_text(f"{energy}\n")
        (root / name / "max_energy_range_uj").write_text("100000000\n")
    meters = Meters(tmp_path, RecordedNvml(LACK))
    assert meters.names == ("rapl",)
    assert meters.read().power_w is None
    (root / "intel-rapl:0/energy_uj").write_text("11000000\n")
    (root / "intel-rapl:1/energy_uj").write_text("10000000\n")
    # 10 J in the first, 20 J in the second, whose counter began anew at 100 J; in two seconds
    assert meters.read().power_w == pytest.approx(15)
    (root / "intel-rapl:1/energy_uj").unlink()
    assert meters.read().power_w is None


def test_a_machine_without_meters_says_nothing(tmp_path: Path) -> None:
    """None of what it does not know is 0."""
    meters = Meters(tmp_path, RecordedNvml(LACK))
    assert meters.names == ()
    assert meters.read() == Reading()
    meters.close()
