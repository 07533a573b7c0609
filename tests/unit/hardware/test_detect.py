"""`detect` reads machines as the kernel shows them: whole ones, containers, and those that say little."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.hardware import Machine, detect
from tests.support.nvml import RecordedNvml

GIB = 1024**3


NO_GPU = RecordedNvml({"init": "NVMLError_LibraryNotFound"})


def tree(root: Path, files: dict[str, str]) -> Path:
    """Files under `root`, by path."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def processors(cores: int, threads: int, allowed: str | None = None) -> dict[str, str]:
    """A machine of `cores` cores; thread `i` and thread `i + cores` are one core where there are two each."""
    logical = cores * threads
    files = {
        "proc/cpuinfo": "model name\t: Intel(R) Xeon(R) Gold 6430\nflags\t\t: fpu avx2 avx512f amx_int8\n",
        "proc/self/status": f"Name:\tpython\nCpus_allowed_list:\t{allowed or f'0-{logical - 1}'}\n",
        "sys/devices/system/cpu/online": f"0-{logical - 1}\n",
        "sys/devices/system/node/online": "0-1\n",
    }
    for cpu in range(logical):
        siblings = ",".join(str(cpu % cores + cores * thread) for thread in range(threads))
        files[f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"] = siblings + "\n"
    for node in range(2):
        files[f"sys/devices/system/node/node{node}/cpulist"] = f"{node}\n"
    return files


MEMINFO = {"proc/meminfo": "MemTotal:       67108864 kB\nMemFree:  1 kB\nMemAvailable:   50331648 kB\n"}


def test_a_whole_machine(tmp_path: Path) -> None:
    """Hyper-threads count once, all of memory is ours, and nothing limits it."""
    machine = detect(tree(tmp_path, {**processors(8, 2), **MEMINFO}), nvml=NO_GPU)
    cpu, memory = machine.cpu, machine.memory
    assert (cpu.physical, cpu.logical, cpu.cores, cpu.parallel) == (8, 16, tuple(range(8)), 8)
    assert cpu.isa == ("avx2", "avx512f", "amx_int8")
    assert cpu.model == "Intel(R) Xeon(R) Gold 6430"
    assert cpu.numa_nodes == 2
    assert (memory.total_bytes, memory.available_bytes, memory.limit_bytes) == (64 * GIB, 48 * GIB, None)
    assert memory.usable_bytes == 48 * GIB
    assert machine.warnings == ()


def test_affinity_narrows_the_cores(tmp_path: Path) -> None:
    """Of two threads of one core one is a core to compute on."""
    machine = detect(tree(tmp_path, {**processors(8, 2, allowed="2-3,10-11"), **MEMINFO}), nvml=NO_GPU)
    assert machine.cpu.usable == (2, 3, 10, 11)
    assert machine.cpu.cores == (2, 3)
    assert machine.cpu.parallel == 2


def test_a_container_under_cgroup_v2(tmp_path: Path) -> None:
    """The tightest limit on the way to the root holds; page cache counts as free under it."""
    files = {
        **processors(16, 1),
        **MEMINFO,
        "proc/self/cgroup": "0::/kubepods/pod1\n",
        "sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
        "sys/fs/cgroup/kubepods/memory.max": f"{32 * GIB}\n",
        "sys/fs/cgroup/kubepods/memory.current": f"{20 * GIB}\n",
        "sys/fs/cgroup/kubepods/memory.stat": f"anon {5 * GIB}\ninactive_file {3 * GIB}\nactive_file {1 * GIB}\n",
        "sys/fs/cgroup/kubepods/pod1/memory.max": f"{20 * GIB}\n",
        "sys/fs/cgroup/kubepods/pod1/memory.current": f"{2 * GIB}\n",
        "sys/fs/cgroup/kubepods/pod1/cpu.max": "350000 100000\n",
        "sys/fs/cgroup/kubepods/cpu.max": "max 100000\n",
    }
    machine = detect(tree(tmp_path, files), nvml=NO_GPU)
    assert machine.memory.limit_bytes == 20 * GIB
    assert machine.memory.limit_remaining_bytes == 16 * GIB
    assert machine.memory.usable_bytes == 16 * GIB
    assert machine.cpu.quota == 3.5
    assert machine.cpu.parallel == 3


def test_a_container_under_cgroup_v1_that_sees_the_hosts_path(tmp_path: Path) -> None:
    """Where the group's path does not exist here, the mount is the group; "no limit" is a huge number."""
    files = {
        **processors(4, 1),
        **MEMINFO,
        "proc/self/cgroup": "4:memory:/docker/abc\n2:cpu,cpuacct:/docker/abc\n0::/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{8 * GIB}\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{3 * GIB}\n",
        "sys/fs/cgroup/memory/memory.stat": f"total_inactive_file {1 * GIB}\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "200000\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
    }
    machine = detect(tree(tmp_path, files), nvml=NO_GPU)
    assert (machine.memory.limit_bytes, machine.memory.limit_remaining_bytes) == (8 * GIB, 6 * GIB)
    assert machine.cpu.quota == 2
    unlimited = {**files, "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}
    assert detect(tree(tmp_path, unlimited), nvml=NO_GPU).memory.limit_bytes is None


def test_a_limit_above_the_machine_limits_nothing(tmp_path: Path) -> None:
    """A group that may have more than there is has what there is."""
    files = {
        **MEMINFO,
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/cgroup.controllers": "memory\n",
        "sys/fs/cgroup/memory.max": f"{128 * GIB}\n",
        "sys/fs/cgroup/memory.current": f"{1 * GIB}\n",
    }
    memory = detect(tree(tmp_path, files), nvml=NO_GPU).memory
    assert (memory.limit_bytes, memory.usable_bytes) == (None, 48 * GIB)


def test_what_cannot_be_read_is_none(tmp_path: Path) -> None:
    """An empty root gives a machine of unknowns, and says that memory cannot be checked."""
    machine = detect(tmp_path, nvml=NO_GPU)
    assert (machine.cpu.model, machine.cpu.physical, machine.memory.total_bytes) == (None, None, None)
    assert machine.memory.usable_bytes is None
    assert machine.cpu.parallel == 1
    assert len(machine.warnings) == 1


@pytest.mark.parametrize("nonsense", ["\0\xff", "MemTotal: many kB\nMemAvailable: -5 kB", "0-", "max max", "5-3-2"])
def test_nonsense_in_files_is_not_known(tmp_path: Path, nonsense: str) -> None:
    """Files with nonsense in them never raise."""
    names = [*processors(2, 1), "proc/meminfo", "proc/self/cgroup", "sys/fs/cgroup/cpu.max", "sys/fs/cgroup/memory.max"]
    files = {**dict.fromkeys(names, nonsense), "sys/fs/cgroup/cgroup.controllers": ""}
    machine = detect(tree(tmp_path, files), nvml=NO_GPU)
    assert isinstance(machine, Machine)
    assert machine.memory.total_bytes is None


def test_this_machine() -> None:
    """The real one can be read, and has something to compute on and with."""
    machine = detect()
    assert machine.cpu.usable
    assert machine.cpu.cores
    assert (machine.memory.usable_bytes or 0) > 0
