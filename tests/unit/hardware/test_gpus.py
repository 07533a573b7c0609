"""GPUs as NVML tells of them: whole ones, slices, links, hidden ones, and drivers in every state of disrepair."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from serving.hardware import Machine, MigSlice
from tests.support import nvml as stand_in
from tests.support.nvml import RecordedNvml
from tests.support.recorded import Recorded, lay_out

GIB = 1024**3
REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def board(tmp_path: Path) -> Recorded:
    """Eight H100 behind NVSwitch."""
    return lay_out("epyc-8xh100", tmp_path)


@pytest.fixture
def sliced(tmp_path: Path) -> Recorded:
    """Three A100, the first cut into three."""
    return lay_out("a100-mig", tmp_path)


def without_gpu(tmp_path: Path) -> Recorded:
    """A machine whose kernel knows of no NVIDIA device."""
    return lay_out("graviton", tmp_path)


def indices(machine: Machine) -> list[int]:
    """NVML's numbers of the GPUs that can be used."""
    return [gpu.index for gpu in machine.gpus]


def test_a_board_of_eight(board: Recorded) -> None:
    """All that NVML says of a healthy GPU; every one reaches every other through the switch."""
    machine = board.detect()
    assert machine.warnings == ()
    first, last = machine.gpus[0], machine.gpus[7]
    assert (first.name, first.compute_capability) == ("NVIDIA H100 80GB HBM3", (9, 0))
    assert (first.memory_total_bytes, first.memory_free_bytes) == (85520809984, 84949336064)
    assert (first.driver, first.cuda) == ("535.183.06", "12.2")
    assert (first.nvlink_links, first.nvswitch, first.fabric_ready) == (18, True, True)
    assert first.nvlink_peers == (1, 2, 3, 4, 5, 6, 7)
    assert last.nvlink_peers == (0, 1, 2, 3, 4, 5, 6)
    assert first.memory_bandwidth_bytes_s == 3_352_320_000_000
    assert (first.power_limit_w, first.power_limit_set_w, first.power_limit_default_w) == (700.0, 700.0, 700.0)
    assert (first.numa_node, machine.gpus[4].numa_node, first.pci_address) == (0, 1, "00000000:1B:00.0")
    assert (first.ecc, first.ecc_uncorrected, first.repair_pending, first.repair_failed) == (True, 0, False, False)
    assert (first.mig, first.slice, first.persistence, first.processes) == (False, None, True, 0)
    assert (first.unified_memory, first.memory_numa_node) == (False, None)


def test_slices_stand_in_the_place_of_their_gpu(sliced: Recorded) -> None:
    """Each has its own memory and name; what it shares with its GPU is the GPU's; the GPU itself is not listed."""
    machine = sliced.detect()
    assert indices(machine) == [0, 0, 0, 1, 2]
    large, medium, small, *_ = machine.gpus
    assert large.name == "NVIDIA A100-SXM4-80GB MIG 3g.40gb"
    assert large.uuid == "MIG-c7384736-a75d-5afc-978f-d2f1294409fd"
    parent = "GPU-e86cb44c-6756-fd30-cd4a-1e6da3caf9b0"
    assert large.slice == MigSlice(0, parent, gpu_instance=2, compute_instance=0)
    assert [gpu.memory_total_bytes for gpu in (large, medium, small)] == [42144366592, 20937965568, 10200547328]
    assert all(gpu.mig and gpu.repair_pending and gpu.compute_capability == (8, 0) for gpu in (large, medium, small))
    assert (large.nvlink_links, large.nvlink_peers, large.processes, small.processes) == (None, (), 1, 0)
    assert (large.memory_bandwidth_bytes_s, large.numa_node) == (2_039_040_000_000, 3)


def test_direct_links_join_those_at_their_ends(sliced: Recorded) -> None:
    """Without a switch, peers are who is at the far end; a GPU that is not ours, or is cut up, is none."""
    *_, second, third = sliced.detect().gpus
    assert (second.nvlink_links, second.nvswitch, second.nvlink_peers) == (12, False, (2,))
    assert third.nvlink_peers == (1,)


def test_links_that_are_down_join_nobody(board: Recorded) -> None:
    """Links are counted while they are up."""
    down = board.change(3, nvmlDeviceGetNvLinkState=[0] * 18).detect()
    assert (down.gpus[3].nvlink_links, down.gpus[3].nvlink_peers) == (0, ())
    assert down.gpus[0].nvlink_peers == (1, 2, 4, 5, 6, 7)
    silent = board.change(3, nvmlDeviceGetNvLinkRemotePciInfo={"error": "NVMLError_NotSupported"}).detect()
    assert (silent.gpus[3].nvlink_links, silent.gpus[3].nvswitch, silent.gpus[3].nvlink_peers) == (18, None, ())


def test_a_gpu_in_mig_mode_without_slices_is_no_device(sliced: Recorded) -> None:
    """It is not listed, and an operator is told why."""
    machine = sliced.change(0, mig=[]).detect()
    assert indices(machine) == [1, 2]
    assert any("GPU 0 is in MIG mode and has no slices" in warning for warning in machine.warnings)
    assert machine.gpu_faults == ()


def test_memory_that_is_main_memory_is_not_known(tmp_path: Path) -> None:
    """A GPU without memory of its own has None, never 0; also where it answers with zeros."""
    jetson = lay_out("jetson-orin", tmp_path)
    zeros = jetson.change(0, nvmlDeviceGetMemoryInfo={"total": 0, "free": 0, "used": 0})
    for machine in (jetson.detect(), zeros.detect()):
        (gpu,) = machine.gpus
        assert (gpu.memory_total_bytes, gpu.memory_free_bytes, gpu.unified_memory) == (None, None, True)
        assert (gpu.name, gpu.compute_capability, gpu.memory_bandwidth_bytes_s) == ("Orin (nvgpu)", (8, 7), None)
    denied = jetson.change(0, nvmlDeviceGetMemoryInfo={"error": "NVMLError_NoPermission"}).detect()
    assert (denied.gpus[0].memory_total_bytes, denied.gpus[0].unified_memory) == (None, None)


def test_memory_that_a_gpu_lends_to_the_kernel_is_not_ours(tmp_path: Path) -> None:
    """Grace Hopper: the kernel counts the GPU's HBM as main memory; the machine does not."""
    machine = lay_out("gh200", tmp_path).detect()
    (gpu,) = machine.gpus
    assert (gpu.memory_total_bytes, gpu.memory_numa_node, gpu.unified_memory) == (102625181696, 1, False)
    assert gpu.fabric_ready is None
    assert machine.memory.total_bytes == (601233408 - 99619456) * 1024
    assert machine.memory.available_bytes == (584056832 - 98983936) * 1024
    assert machine.cpu.model == "Neoverse-V2"


@pytest.mark.parametrize(
    ("environment", "left"),
    [
        ({}, [0, 1, 2, 3, 4, 5, 6, 7]),
        ({"CUDA_VISIBLE_DEVICES": "3,1"}, [3, 1]),
        ({"CUDA_VISIBLE_DEVICES": " 3 , 1 "}, [3, 1]),
        ({"CUDA_VISIBLE_DEVICES": ""}, []),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, []),
        ({"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, []),
        ({"CUDA_VISIBLE_DEVICES": "0,-1,2"}, [0]),
        ({"CUDA_VISIBLE_DEVICES": "1,9,2"}, [1]),
        ({"CUDA_VISIBLE_DEVICES": "1,1"}, []),
        ({"CUDA_VISIBLE_DEVICES": "GPU-5b1f0e6a-3d0c-8a74-9f41-0c6f2f8b7a14"}, [4]),
        ({"CUDA_VISIBLE_DEVICES": "gpu-5B1F0E6A-3d0c-8a74-9f41-0c6f2f8b7a16"}, [6]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-5b1f0e6a"}, []),
        ({"NVIDIA_VISIBLE_DEVICES": "all"}, [0, 1, 2, 3, 4, 5, 6, 7]),
        ({"NVIDIA_VISIBLE_DEVICES": "void"}, [0, 1, 2, 3, 4, 5, 6, 7]),
        ({"NVIDIA_VISIBLE_DEVICES": ""}, [0, 1, 2, 3, 4, 5, 6, 7]),
        ({"NVIDIA_VISIBLE_DEVICES": "/var/run/nvidia-container-devices"}, [0, 1, 2, 3, 4, 5, 6, 7]),
        ({"NVIDIA_VISIBLE_DEVICES": "none"}, []),
        ({"NVIDIA_VISIBLE_DEVICES": "5,2"}, [2, 5]),
        ({"NVIDIA_VISIBLE_DEVICES": "8,9,10,11,12,13,14,15"}, [0, 1, 2, 3, 4, 5, 6, 7]),
        ({"NVIDIA_VISIBLE_DEVICES": "GPU-00000000"}, []),
        (
            {"NVIDIA_VISIBLE_DEVICES": "GPU-5b1f0e6a-3d0c-8a74-9f41-0c6f2f8b7a12", "CUDA_VISIBLE_DEVICES": "2"},
            [2],
        ),
        ({"NVIDIA_VISIBLE_DEVICES": "4,5", "CUDA_VISIBLE_DEVICES": "0"}, []),
    ],
)
def test_the_environment_chooses(board: Recorded, environment: dict[str, str], left: list[int]) -> None:
    """By index and by UUID, as CUDA and the container runtime read it; where all are hidden, that is said."""
    machine = board.detect(environment)
    assert indices(machine) == left
    assert bool(machine.warnings) == (not left or environment.get("CUDA_VISIBLE_DEVICES") == "1,9,2")
    assert machine.gpu_faults == ()


@pytest.mark.parametrize(
    ("variable", "chosen", "left"),
    [
        ("CUDA_VISIBLE_DEVICES", "MIG-a28ad590-3fda-56dd-84fc-0a0b96edc58d", ["2g.20gb"]),
        ("CUDA_VISIBLE_DEVICES", "MIG-GPU-e86cb44c-6756-fd30-cd4a-1e6da3caf9b0/9/0", ["1g.10gb"]),
        ("CUDA_VISIBLE_DEVICES", "0", ["3g.40gb"]),
        ("CUDA_VISIBLE_DEVICES", "GPU-e86cb44c-6756-fd30-cd4a-1e6da3caf9b0", ["3g.40gb"]),
        ("NVIDIA_VISIBLE_DEVICES", "0:1", ["2g.20gb"]),
        ("NVIDIA_VISIBLE_DEVICES", "GPU-e86cb44c-6756-fd30-cd4a-1e6da3caf9b0", ["3g.40gb", "2g.20gb", "1g.10gb"]),
    ],
)
def test_slices_are_chosen_by_their_names(sliced: Recorded, variable: str, chosen: str, left: list[str]) -> None:
    """Of a GPU that is cut up CUDA takes the first slice, the container runtime all."""
    gpus = sliced.detect({variable: chosen}).gpus
    assert [str(gpu.name).rpartition(" ")[2] for gpu in gpus] == left


def test_indices_of_unlike_gpus_are_warned_of(board: Recorded) -> None:
    """CUDA numbers the fastest first, NVML by address: with unlike GPUs an index may mean another one."""
    mixed = board.change(5, nvmlDeviceGetName="NVIDIA L4")
    assert "CUDA_DEVICE_ORDER" in mixed.detect({"CUDA_VISIBLE_DEVICES": "0"}).warnings[0]
    ordered = {"CUDA_VISIBLE_DEVICES": "0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert mixed.detect(ordered).warnings == ()


def test_no_driver_and_no_gpu_is_a_normal_machine(tmp_path: Path) -> None:
    """Nothing to say, also where the driver's library lies about without a GPU."""
    machine = without_gpu(tmp_path)
    for init in ("NVMLError_LibraryNotFound", "NVMLError_DriverNotLoaded"):
        seen = machine.with_nvml({"init": init}).detect()
        assert (seen.gpus, seen.warnings, seen.gpu_faults) == ((), (), ())


@pytest.mark.parametrize(
    ("init", "says", "advice"),
    [
        ("NVMLError_LibRmVersionMismatch", "version mismatch", "reboot"),
        ("NVMLError_GpuIsLost", "GPU is lost", "Xid"),
        ("NVMLError_NoPermission", "Insufficient Permissions", "/dev/nvidiactl"),
        ("NVMLError_Unknown", "Unknown Error", "GPUs are not used"),
    ],
)
def test_a_broken_driver_is_a_fault_with_its_cause(tmp_path: Path, init: str, says: str, advice: str) -> None:
    """NVML's own words, and what to do, whatever the bus shows."""
    machine = without_gpu(tmp_path).with_nvml({"init": init}).detect()
    (fault,) = machine.gpu_faults
    assert says in fault
    assert advice in fault
    assert machine.warnings == (fault,)


def test_a_gpu_without_a_driver_is_told(tmp_path: Path) -> None:
    """The PCI bus shows it; who has taken it is named; one that was given to a virtual machine is not ours."""
    machine = lay_out("laptop-4090", tmp_path).with_nvml({"init": "NVMLError_LibraryNotFound"})
    machine.remove("proc/driver/nvidia/version")
    uevent = "sys/bus/pci/devices/0000:01:00.0/uevent"
    machine.write(uevent, "DRIVER=nouveau\nPCI_CLASS=30000\n")
    (fault,) = machine.detect().gpu_faults
    expected = "an NVIDIA GPU on the PCI bus (0000:01:00.0), but no NVIDIA driver is installed (`nouveau` has taken it)"
    assert expected in fault
    (fault,) = machine.with_nvml({"init": "NVMLError_DriverNotLoaded"}).detect().gpu_faults
    assert "modprobe nvidia" in fault
    machine.write(uevent, "DRIVER=vfio-pci\n")
    assert machine.detect().gpu_faults == ()


def test_a_container_without_its_gpus_is_told(tmp_path: Path) -> None:
    """The kernel module is loaded on the host, and library or device files were not handed in."""
    machine = lay_out("l4-kubernetes", tmp_path)
    (fault,) = machine.with_nvml({"init": "NVMLError_LibraryNotFound"}).detect().gpu_faults
    assert "its library libnvidia-ml.so.1 is not here" in fault
    assert "nvidia.com/gpu" in fault
    unloaded = machine.with_nvml({"init": "NVMLError_DriverNotLoaded"})
    assert "there is no /dev/nvidia* here" in unloaded.detect().gpu_faults[0]
    machine.write("dev/nvidia0", "")
    assert "it does not answer (Driver Not Loaded)" in unloaded.detect().gpu_faults[0]


def test_a_missing_package_matters_where_there_is_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without nvidia-ml-py nothing is seen; that is said only where there is something to see."""
    monkeypatch.setattr("serving.hardware.gpu.load_nvml", lambda: None)
    bare, with_gpu = without_gpu(tmp_path / "a"), lay_out("l4-kubernetes", tmp_path / "b")
    bare.nvml = with_gpu.nvml = None  # type: ignore[assignment]
    assert bare.detect().warnings == ()
    assert "nvidia-ml-py" in with_gpu.detect().gpu_faults[0]


@pytest.mark.parametrize(
    "answers",
    [
        {"handle": {"error": "NVMLError_GpuIsLost"}},
        {"nvmlDeviceGetMemoryInfo": {"error": "NVMLError_GpuIsLost"}},
        {"nvmlDeviceGetName": {"error": "NVMLError_GpuIsLost"}},
        {"nvmlDeviceGetNvLinkState": {"error": "NVMLError_GpuIsLost"}},
    ],
)
def test_a_lost_gpu_is_named(board: Recorded, answers: dict[str, object]) -> None:
    """Whichever question it fails at, it is a fault with the way out, and the others are there, not its peers."""
    machine = board.change(2, **answers).detect()
    assert indices(machine) == [0, 1, 3, 4, 5, 6, 7]
    (fault,) = machine.gpu_faults
    assert fault.startswith("GPU 2 does not answer (GPU is lost): it is not used")
    assert "Xid" in fault
    assert 2 not in machine.gpus[0].nvlink_peers


def test_questions_without_an_answer_are_not_known(board: Recorded) -> None:
    """An old driver answers few of them."""
    bare = board.with_nvml({"devices": [{"nvmlDeviceGetName": "Tesla K80"}]})
    (gpu,) = bare.detect().gpus
    assert gpu.name == "Tesla K80"
    unknown = ("uuid", "memory_total_bytes", "mig", "nvlink_links", "power_limit_w", "driver", "cuda", "processes")
    assert all(getattr(gpu, name) is None for name in unknown)
    assert bare.nvml.is_open == 0


def test_nvml_is_closed_whatever_happened(board: Recorded) -> None:
    """Also after a fault in the middle."""
    broken = board.change(0, handle={"error": "NVMLError_Unknown"})
    broken.detect()
    assert broken.nvml.is_open == 0


def test_only_what_the_stand_in_offers_is_asked() -> None:
    """Every name of pynvml that the package uses is one that the tests can answer."""
    used = set()
    for path in (REPOSITORY / "serving/hardware").glob("*.py"):
        used |= set(re.findall(r"\bnvml\.(\w+)", path.read_text()))
    assert used
    assert used <= stand_in.offered() | {"NVMLError"}


def test_the_stand_in_offers_only_what_nvml_has() -> None:
    """Names, constants and words of the stand-in are those of the real package, where it is installed."""
    pynvml = pytest.importorskip("pynvml")
    played = RecordedNvml({})
    for name in sorted(stand_in.offered()):
        assert hasattr(pynvml, name), name
        if name.startswith("NVML_"):
            assert getattr(pynvml, name) == getattr(played, name)
    fields = dict(pynvml.c_nvmlGpuFabricInfo_t._fields_)
    assert all(fields[name] is kind for name, kind in stand_in.FabricInfo._fields_)
    codes = pynvml.NVMLError._errcode_to_string
    for name, text in stand_in.ERRORS.items():
        kind = getattr(pynvml, f"NVMLError_{name}")
        assert issubclass(kind, pynvml.NVMLError)
        assert text in codes.values()
