"""Recorded machines, each as it is seen: processors, memory, disks, limits, and what kind of host it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from serving.hardware import Host, Machine
from serving.hardware.disk import mount_of, read_mounts
from serving.hardware.known import KINDS, machine
from tests.support.recorded import lay_out, names

GIB = 1024**3
MIB = 1024**2


@pytest.mark.parametrize("name", names())
def test_every_machine_is_read_and_round_trips(name: str, tmp_path: Path) -> None:
    """It has cores and memory, nothing is warned of, and its JSON reads back to an equal machine."""
    seen = lay_out(name, tmp_path).detect()
    assert seen.warnings == ()
    assert seen.cpu.model
    assert seen.cpu.cores
    assert seen.cpu.isa
    assert (seen.memory.usable_bytes or 0) > GIB
    assert Machine.from_json(seen.to_json()) == seen


@pytest.mark.parametrize("kind", KINDS)
def test_machines_for_the_planner_round_trip(kind: str) -> None:
    """The made-up ones too."""
    made = machine(kind, 8)  # type: ignore[arg-type]
    assert Machine.from_json(made.to_json()) == made
    assert made.cpu.parallel == 64
    assert all((gpu.memory_free_bytes or 0) < (gpu.memory_total_bytes or 0) for gpu in made.gpus)


def test_a_machine_file_may_be_older_or_newer() -> None:
    """Missing fields are not known, unknown ones are passed over, nonsense is refused."""
    read = Machine.from_json('{"gpus": [{"index": 0, "colour": "green"}], "cpu": {"cores": [0, 1]}, "measured": {}}')
    assert read.cpu.parallel == 2
    assert read.gpus[0].name is None
    for nonsense in ("", "[]", '{"cpu": 5}', '{"gpus": [{}]}'):
        with pytest.raises(ValidationError):
            Machine.from_json(nonsense)


def test_two_sockets(tmp_path: Path) -> None:
    """Cores, nodes with their memory, and sixteen caches that eight cores share each."""
    seen = lay_out("epyc-8xh100", tmp_path).detect(disk=Path("/"))
    cpu, memory = seen.cpu, seen.memory
    assert (cpu.model, cpu.architecture) == ("AMD EPYC 9554 64-Core Processor", "x86_64")
    assert (cpu.physical, cpu.logical, cpu.parallel, cpu.cores) == (128, 256, 128, tuple(range(128)))
    assert {"avx2", "avx512_vnni", "avx512_bf16"} <= set(cpu.isa)
    assert cpu.last_level_cache_bytes == 512 * MIB
    assert [node.id for node in cpu.nodes] == [0, 1]
    assert cpu.nodes[1].cpus == (*range(64, 128), *range(192, 256))
    assert cpu.nodes[0].memory_total_bytes == 792421800 * 1024
    assert (memory.total_bytes, memory.limit_bytes) == (1584935724 * 1024, None)
    assert (memory.swap_total_bytes, memory.huge_pages, memory.huge_page_bytes) == (0, 0, 2 * MIB)
    assert memory.transparent_huge_pages == "madvise"
    assert seen.host == Host("Supermicro AS -8125GS-TNHR", "5.15.0-119-generic", virtual=False, container=False)
    assert seen.disk is not None
    assert seen.disk.filesystem == "ext4"
    assert seen.disk.rotational is None  # the recording has no such file for this disk


def test_a_batch_job_has_its_cpuset(tmp_path: Path) -> None:
    """The scheduler's group confines it: processors, memory, of which page cache is free."""
    recorded = lay_out("a100-mig", tmp_path)
    seen = recorded.detect(disk=Path("/"))
    assert seen.cpu.usable == seen.cpu.cores == tuple(range(16, 32))
    assert (seen.cpu.logical, seen.cpu.physical, seen.cpu.numa_nodes) == (32, 32, 4)
    assert seen.memory.limit_bytes == 128 * GIB
    assert seen.memory.limit_remaining_bytes == 128 * GIB - (8589934592 - 5368709120 - 2147483648)
    assert seen.disk is not None
    assert (seen.disk.filesystem, seen.disk.rotational) == ("xfs", True)
    # where affinity was widened by hand, the cpuset still holds
    recorded.write("proc/self/status", "Cpus_allowed_list:\t0-31\n")
    assert recorded.detect().cpu.usable == tuple(range(16, 32))


def test_a_pod(tmp_path: Path) -> None:
    """Limits stand at the mount itself, the quota is finer than the cores, the model's volume is a disk."""
    recorded = lay_out("l4-kubernetes", tmp_path)
    seen = recorded.detect({"NVIDIA_VISIBLE_DEVICES": "GPU-2b4e1c60-71f3-0f5a-6d7e-94f0a1d3c8b5"})
    assert (seen.cpu.quota, seen.cpu.cores, seen.cpu.parallel) == (6.0, (0, 1, 2, 3), 4)
    assert seen.memory.limit_bytes == 24 * GIB
    assert seen.memory.usable_bytes == 24 * GIB - (4 * GIB - 2 * GIB - GIB // 2)
    assert [gpu.name for gpu in seen.gpus] == ["NVIDIA L4"]
    assert seen.gpus[0].numa_node is None
    assert (seen.host.container, seen.host.virtual, seen.host.product) == (True, True, "Google Compute Engine")
    mounts = read_mounts(recorded.root)
    model, shared = mount_of(Path("/models/llama"), mounts), mount_of(Path("/dev/shm"), mounts)
    assert model is not None
    assert shared is not None
    assert (model.filesystem, model.device, shared.filesystem) == ("ext4", "8:16", "tmpfs")


def test_hybrid_cores(tmp_path: Path) -> None:
    """Compute threads are bound to the performance cores, one thread each; confined to the others, to those."""
    recorded = lay_out("laptop-4090", tmp_path)
    cpu = recorded.detect().cpu
    assert (cpu.physical, cpu.logical, cpu.cores, cpu.parallel) == (24, 32, tuple(range(0, 16, 2)), 8)
    assert cpu.slow_cores == tuple(range(16, 32))
    assert "avx_vnni" in cpu.isa
    assert "avx512f" not in cpu.isa
    recorded.write("proc/self/status", "Cpus_allowed_list:\t16-23\n")
    confined = recorded.detect().cpu
    assert (confined.cores, confined.slow_cores) == (tuple(range(16, 24)), ())


def test_small_arm_cores(tmp_path: Path) -> None:
    """Where the kernel gives capacities, cores far below the largest are the small ones."""
    recorded = lay_out("graviton", tmp_path)
    assert recorded.detect().cpu.slow_cores == ()
    for core in range(4):
        recorded.write(f"sys/devices/system/cpu/cpu{core}/cpu_capacity", "462\n")
    cpu = recorded.detect().cpu
    assert (cpu.cores, cpu.slow_cores) == (tuple(range(4, 16)), (0, 1, 2, 3))


def test_arm(tmp_path: Path) -> None:
    """ARM gives numbers in place of a model's name, and flags of its own."""
    seen = lay_out("graviton", tmp_path).detect()
    assert (seen.cpu.model, seen.cpu.architecture, seen.cpu.parallel) == ("Neoverse-V1", "aarch64", 16)
    assert {"asimd", "asimddp", "i8mm", "bf16", "sve"} <= set(seen.cpu.isa)
    assert (seen.host.product, seen.host.virtual) == ("Amazon EC2 c7g.4xlarge", None)


def test_an_old_container(tmp_path: Path) -> None:
    """Version 1 groups by the host's path; huge pages set aside; memory that swap is behind."""
    seen = lay_out("cgroup-v1", tmp_path).detect(disk=Path("/"))
    assert (seen.cpu.usable, seen.cpu.quota, seen.cpu.parallel) == (tuple(range(4, 10)), 4.0, 4)
    assert (seen.memory.limit_bytes, seen.memory.limit_remaining_bytes) == (16 * GIB, 14 * GIB)
    assert (seen.memory.huge_pages, seen.memory.huge_pages_free) == (4096, 4096)
    assert (seen.memory.transparent_huge_pages, seen.host.container) == ("never", True)
    assert (seen.memory.swap_total_bytes, seen.memory.swap_free_bytes) == (16777212 * 1024, 16012288 * 1024)
    assert seen.disk is not None
    assert (seen.disk.filesystem, seen.disk.rotational) == ("overlay", None)


def test_windows_beneath(tmp_path: Path) -> None:
    """No firmware to ask, no kernel module, and the GPU is there."""
    recorded = lay_out("wsl2", tmp_path)
    seen = recorded.detect()
    assert (seen.host.product, seen.host.virtual) == (None, True)
    assert [gpu.name for gpu in seen.gpus] == ["NVIDIA GeForce RTX 4080"]
    assert seen.gpus[0].numa_node is None
    drive = mount_of(Path("/mnt/c/models"), read_mounts(recorded.root))
    assert drive is not None
    assert drive.filesystem == "9p"


def test_a_board_computer(tmp_path: Path) -> None:
    """The device tree names it."""
    seen = lay_out("jetson-orin", tmp_path).detect()
    assert (seen.host.product, seen.cpu.model) == ("NVIDIA Jetson AGX Orin Developer Kit", "Cortex-A78AE")
    assert seen.cpu.nodes[0].cpus == ()


def test_mounts_over_one_another(tmp_path: Path) -> None:
    """The last one mounted at a place is the one that is seen; blanks in names are blanks."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text(
        "1 0 8:1 / / rw - ext4 /dev/a rw\n"
        "2 1 8:2 / /data rw - xfs /dev/b rw\n"
        "3 1 0:9 / /data rw - tmpfs none rw\n"
        "4 1 8:3 / /my\\040disk rw shared:1 master:2 - btrfs /dev/c rw\n"
        "nonsense\n"
    )
    mounts = read_mounts(tmp_path)
    found = [mount_of(Path(path), mounts) for path in ("/data/x", "/my disk", "/database", "relative")]
    assert [mount.filesystem if mount else None for mount in found] == ["tmpfs", "btrfs", "ext4", None]
