"""Each check by example: what is found good, what is warned of, what is a problem, and what to do about it."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.cli.doctor import page
from serving.doctor import Facts, Finding, examine
from serving.doctor.facts import (
    CacheDirectory,
    Clock,
    Directory,
    Kernel,
    LlamaCppBuild,
    Models,
    OwnDirectory,
    Place,
    Surroundings,
    Ulimits,
    VllmInstall,
)
from serving.hardware import Cpu, Disk, Gpu, Host, Machine, Memory, MigSlice, NumaNode
from serving.hardware.known import machine
from serving.hardware.measure import MemoryRead
from serving.hardware.measure_disk import DiskRead

GIB = 1024**3
MIB = 1024**2
FLAGS = ("SSE3", "AVX", "AVX2", "FMA", "F16C", "AVX512", "AVX512_VNNI", "AVX512_BF16", "OPENMP")
NOW = 1_790_000_000.0

PRIVATE = (
    Place(Path("/"), 0, 0o755),
    Place(Path("/var"), 0, 0o755),
    Place(Path("/var/cache"), 0, 0o755),
    Place(Path("/var/cache/perimeter"), 990, 0o700),
)

HEALTHY = Facts(
    machine=machine("H100", 4),
    python=(3, 12, 4),
    llamacpp=LlamaCppBuild("0.3.36", FLAGS, gpu_offload=False),
    vllm=VllmInstall(
        *("/opt/vllm/bin/python", "0.22.0", "2.11.0", "12.8"),
        harmony="oss-harmony 0.0.11",
        harmony_fetches=False,
        flashinfer="0.6.18",
        flashinfer_cubin="0.6.18",
        flashinfer_jit_cache="0.6.18+cu129",
        include="/usr/include/python3.12",
    ),
    surroundings=Surroundings(
        program_path="/usr/local/bin:/usr/bin:/bin",
        user=990,
        compiler="/usr/bin/gcc",
        has_headers=True,
        caches=(CacheDirectory(Path("/var/cache/perimeter"), PRIVATE, noexec=False),),
    ),
    ulimits=Ulimits(65536, 65536, 0, "unlimited", "unlimited"),
    clock=Clock(is_synchronised=True, now_s=NOW, at_least_s=NOW - 1),
    kernel=Kernel(0, numa_balancing=False, smt=True, governors=("performance",), core_pattern="core"),
    shared_memory_bytes=256 * GIB,
    weights=(Directory(Path("/models"), Disk(Path("/models"), 4000 * GIB, 2000 * GIB, "xfs", rotational=False)),),
    models=Models(59, (Path("/models/a.gguf"),)),
    runtime=OwnDirectory(Path("/run/perimeter"), GIB),
    cache=OwnDirectory(Path("/var/cache/perimeter"), GIB),
)


def found(facts: Facts, name: str) -> list[Finding]:
    """The findings of one name."""
    return [finding for finding in examine(facts) if finding.name == name]


def only(facts: Facts, name: str, status: str) -> Finding:
    """The one finding of a name, which must have this status."""
    (finding,) = found(facts, name)
    assert finding.status == status, finding
    return finding


def with_machine(**changes: Any) -> Facts:
    """The healthy host with another machine."""
    return replace(HEALTHY, machine=replace(HEALTHY.machine, **changes))


def with_gpu(**changes: Any) -> Facts:
    """The healthy host, its GPU 1 changed."""
    gpus = HEALTHY.machine.gpus
    return with_machine(gpus=(gpus[0], replace(gpus[1], **changes), *gpus[2:]))


def with_cpu(**changes: Any) -> Facts:
    """The healthy host with other processors."""
    return with_machine(cpu=replace(HEALTHY.machine.cpu, **changes))


def with_memory(**changes: Any) -> Facts:
    """The healthy host with other memory."""
    return with_machine(memory=replace(HEALTHY.machine.memory, **changes))


def with_kernel(**changes: Any) -> Facts:
    """The healthy host with other settings of the kernel."""
    return replace(HEALTHY, kernel=replace(HEALTHY.kernel, **changes))


def with_disk(**changes: Any) -> Facts:
    """The healthy host with another disk."""
    directory = HEALTHY.weights[0]
    return replace(HEALTHY, weights=(replace(directory, disk=replace(directory.disk, **changes)),))


def test_a_healthy_host_is_good_throughout() -> None:
    """Nothing is warned of, and nothing needs advice."""
    findings = examine(HEALTHY)
    assert {finding.status for finding in findings} == {"good"}
    assert all(finding.advice is None for finding in findings)
    assert "4 × NVIDIA H100 80GB HBM3; driver 570.133.20, CUDA up to 12.8" in only(HEALTHY, "gpu", "good").found


def test_what_is_wrong_comes_with_advice() -> None:
    """On the worst host of all; what is not known may come without."""
    worst = Facts(machine=Machine(), python=(3, 9, 0), require_gpu=True)
    for finding in examine(worst):
        assert finding.status != "problem" or finding.advice


def test_gpus_that_do_not_work() -> None:
    """Each fault is a problem, and those that work are still told of."""
    fault = "GPU 3 does not answer (GPU is lost): it is not used"
    facts = with_machine(gpus=HEALTHY.machine.gpus[:3], gpu_faults=(fault,), warnings=(fault, "another matter"))
    assert [(finding.status, finding.found[:3]) for finding in found(facts, "gpu")] == [
        ("problem", "GPU"),
        ("good", "3 ×"),
    ]
    assert only(facts, "hardware", "warning").found == "another matter"


def test_no_gpu_is_good_unless_one_is_required() -> None:
    """`hardware.require_gpu` decides."""
    without = with_machine(gpus=())
    assert "served from the CPU" in only(without, "gpu", "good").found
    assert only(replace(without, require_gpu=True), "gpu", "problem").advice
    broken = with_machine(gpus=(), gpu_faults=("the driver is broken",))
    assert only(broken, "gpu", "problem").found == "the driver is broken"


@pytest.mark.parametrize(
    ("change", "name", "status", "says"),
    [
        ({"fabric_ready": False}, "nvswitch", "problem", "GPU 1: CUDA does not start"),
        ({"nvlink_links": 17}, "nvlink", "warning", "fewer links than the others' 18 on GPU 1"),
        ({"repair_failed": True}, "gpu memory", "problem", "GPU 1"),
        ({"repair_pending": True}, "gpu memory", "warning", "waits for a reset on GPU 1"),
        ({"ecc_uncorrected": 2}, "gpu memory", "warning", "GPU 1"),
        ({"power_limit_w": 450.0}, "gpu power", "warning", "450 W of 700 W on GPU 1"),
        ({"persistence": False}, "gpu persistence", "warning", "off on GPU 1"),
        ({"processes": 2, "memory_free_bytes": 10 * GIB}, "gpu use", "warning", "GPU 1: 2 hold 69.6 GiB"),
    ],
)
def test_gpus_that_ail(change: dict[str, Any], name: str, status: str, says: str) -> None:
    """Which GPU, and what with."""
    finding = only(with_gpu(**change), name, status)
    assert says in finding.found
    assert finding.advice


def test_what_gpus_do_not_tell_is_passed_over() -> None:
    """A consumer card knows neither of errors nor of persistence; a laptop's power limit moves by itself."""
    laptop = Gpu(0, "RTX", power_limit_w=80.0, power_limit_default_w=150.0, driver="560", cuda="12.8")
    names = {finding.name for finding in examine(with_machine(gpus=(laptop,)))}
    assert names.isdisjoint({"gpu memory", "gpu power", "gpu persistence", "gpu use", "nvlink", "nvswitch"})


def test_slices_speak_once_for_their_gpu() -> None:
    """What they share is told once."""
    slices = tuple(
        Gpu(0, f"A100 MIG {number}", f"MIG-{number}", mig=True, slice=MigSlice(0, "GPU-0"), persistence=False)
        for number in range(3)
    )
    assert only(with_machine(gpus=slices), "gpu persistence", "warning").found == "off on GPU 0"


@pytest.mark.parametrize(
    ("build", "status", "says"),
    [
        (LlamaCppBuild("0.3.36", FLAGS), "good", "AVX512_BF16"),
        (LlamaCppBuild("0.3.36", FLAGS[:5]), "warning", "without AVX512, AVX512_VNNI, AVX512_BF16"),
        (LlamaCppBuild("0.3.36", (*FLAGS, "AMX_INT8")), "problem", "built for AMX_INT8"),
        (LlamaCppBuild("0.3.36", FLAGS, variant="zen4"), "good", "portable (its part for `zen4`), uses all"),
        (LlamaCppBuild("0.3.36", FLAGS[:5], variant="haswell"), "warning", "`haswell`), is built without AVX512"),
        (LlamaCppBuild(failure="its process was ended by SIGILL", signal="SIGILL"), "problem", "(SIGILL)"),
        (LlamaCppBuild(failure="No module named 'llama_cpp'"), "problem", "No module named"),
        (LlamaCppBuild("0.3.36"), "unknown", "cannot be compared"),
    ],
)
def test_llamacpp_is_compared_with_the_processor(build: LlamaCppBuild, status: str, says: str) -> None:
    """What it does not use costs speed; what the processor lacks ends it."""
    assert says in only(replace(HEALTHY, llamacpp=build), "llama.cpp", status).found


def test_avx_vnni_is_no_loss_beside_avx512_vnni() -> None:
    """The same instructions at half the width: no portable part has both, and nothing is slower for it."""
    both = with_cpu(isa=(*HEALTHY.machine.cpu.isa, "avx_vnni"))
    assert only(replace(both, llamacpp=LlamaCppBuild("0.3.36", FLAGS, variant="zen4")), "llama.cpp", "good")
    less = LlamaCppBuild("0.3.36", FLAGS[:5], variant="haswell")
    assert "AVX_VNNI" in only(replace(both, llamacpp=less), "llama.cpp", "warning").found


def test_a_build_for_another_processor_has_two_ways_out() -> None:
    """A compiler here, or the wheel that needs none."""
    ended = LlamaCppBuild(failure="its process was ended by SIGILL", signal="SIGILL")
    advice = only(replace(HEALTHY, llamacpp=ended), "llama.cpp", "problem").advice
    assert advice is not None
    assert "GGML_NATIVE=on" in advice
    assert "make portable" in advice


def test_llamacpp_on_arm() -> None:
    """ARM's names are others."""
    arm = with_cpu(architecture="aarch64", isa=("asimd", "asimddp", "i8mm", "sve"))
    build = LlamaCppBuild("0.3.36", ("NEON", "ARM_FMA", "DOTPROD"))
    assert "without MATMUL_INT8, SVE" in only(replace(arm, llamacpp=build), "llama.cpp", "warning").found


@pytest.mark.parametrize(
    ("vllm", "gpus", "status", "says"),
    [
        (VllmInstall("python", "0.22.0", "2.11.0", "12.8"), True, "good", "for CUDA 12.8"),
        (VllmInstall("python", "0.22.0", "2.11.0", "12.9"), True, "warning", "newer than the driver's 12.8"),
        (VllmInstall("python", "0.22.0", "2.11.0", "13.0"), True, "problem", "CUDA 12.8 at most"),
        (VllmInstall("python", "0.22.0", "2.11.0", "11.8"), True, "good", "for CUDA 11.8"),
        (VllmInstall("python", "0.22.0", "2.11.0"), True, "warning", "built without CUDA"),
        (VllmInstall("python", "0.22.0", "2.11.0"), False, "good", "no GPU"),
        (VllmInstall("python"), True, "warning", "not installed"),
        (VllmInstall("python"), False, "good", "not needed"),
        (VllmInstall("/no/python", failure="No such file"), True, "problem", "/no/python"),
    ],
)
def test_vllm_is_compared_with_the_driver(vllm: VllmInstall, gpus: bool, status: str, says: str) -> None:
    """A newer CUDA than the driver serves does not start; within one major version it mostly does."""
    facts = replace(HEALTHY if gpus else with_machine(gpus=()), vllm=vllm)
    assert says in only(facts, "vllm", status).found


def test_gpus_that_vllm_is_not_built_for() -> None:
    """Named by their capability; a driver that does not tell its CUDA is not judged."""
    old, driver = found(with_gpu(compute_capability=(6, 1)), "vllm")
    assert (old.status, driver.status) == ("warning", "good")
    assert "6.1" in old.found
    silent = with_machine(gpus=(Gpu(0, "H100"),))
    assert only(silent, "vllm", "unknown")


@pytest.mark.parametrize(
    ("facts", "name", "status", "says"),
    [
        (with_cpu(isa=("avx",)), "cpu", "warning", "no AVX2"),
        (with_cpu(architecture=None), "cpu", "unknown", "/proc/cpuinfo"),
        (with_cpu(slow_cores=(64, 65)), "cpu", "good", "2 slow ones left out"),
        (with_cpu(quota=6.0), "cpu quota", "warning", "quota of 6 processors over 64 cores"),
        (with_cpu(quota=64.5), "cpu quota", "warning", "64.5"),
        (with_cpu(quota=64.0), "cpu quota", "good", "64"),
        (
            with_kernel(governors=("powersave",), frequency_driver="acpi-cpufreq"),
            "cpu clock",
            "warning",
            "lowest clock",
        ),
        (with_kernel(governors=("powersave",), frequency_driver="intel_pstate"), "cpu clock", "good", "powersave"),
        (
            with_kernel(frequency_driver="amd-pstate-epp", energy_preferences=("balance_power",)),
            "cpu clock",
            "warning",
            "balance_power",
        ),
        (with_kernel(numa_balancing=True), "numa", "warning", "2 nodes"),
        (replace(HEALTHY, clock=Clock(is_synchronised=False, now_s=NOW)), "clock", "warning", "not synchronised"),
        (replace(HEALTHY, clock=Clock(is_synchronised=True, now_s=0.0)), "clock", "problem", "wrong"),
        (
            replace(HEALTHY, clock=Clock(is_synchronised=True, now_s=NOW, at_least_s=NOW + 5)),
            "clock",
            "problem",
            "wrong",
        ),
        (replace(HEALTHY, clock=Clock(now_s=NOW)), "clock", "unknown", "does not say"),
        (replace(HEALTHY, clock=Clock()), "clock", "unknown", "cannot be read"),
    ],
)
def test_processors_and_clock(facts: Facts, name: str, status: str, says: str) -> None:
    """What slows them down, and what makes the time wrong."""
    assert says in only(facts, name, status).found


@pytest.mark.parametrize(
    ("facts", "name", "status", "says"),
    [
        (with_memory(available_bytes=2 * GIB), "memory", "warning", "only small models fit"),
        (with_memory(available_bytes=None), "memory", "unknown", "cannot be read"),
        (with_memory(limit_bytes=64 * GIB, limit_remaining_bytes=60 * GIB), "memory", "good", "limit of 64.0 GiB"),
        (with_memory(limit_bytes=3 * GIB, limit_remaining_bytes=2 * GIB), "memory", "warning", "limit of 3.0 GiB"),
        (with_memory(swap_total_bytes=8 * GIB), "swap", "warning", "prompts with them"),
        (with_memory(swap_total_bytes=None), "swap", "unknown", "cannot be read"),
        (with_memory(huge_pages=512, huge_pages_free=512), "huge pages", "warning", "1.0 GiB set aside"),
        (with_kernel(overcommit=2), "overcommit", "warning", "reserve more than they use"),
        (replace(HEALTHY, shared_memory_bytes=64 * MIB), "shared memory", "problem", "64 MiB"),
        (replace(with_machine(gpus=()), shared_memory_bytes=64 * MIB), "shared memory", "good", "64 MiB"),
        (replace(HEALTHY, shared_memory_bytes=None), "shared memory", "unknown", "cannot be read"),
        (
            replace(HEALTHY, memory_read=MemoryRead(11e9, 40e9, 8, GIB, 0.1)),
            "memory speed",
            "good",
            "at most 8.1 tokens/s",
        ),
        (replace(HEALTHY, memory_read=MemoryRead(11e9, 40e9, 8, GIB, 3.0)), "memory speed", "warning", "3 processors"),
        (replace(HEALTHY, memory_read=MemoryRead(skipped="too little")), "memory speed", "unknown", "too little"),
    ],
)
def test_memory(facts: Facts, name: str, status: str, says: str) -> None:
    """Its size, its speed, and the kernel's way with it."""
    assert says in only(facts, name, status).found


NOT_OURS = OwnDirectory(failure="the runtime directory `/run/p` belongs to somebody else")


def read_at(rate: float | None, **more: Any) -> Facts:
    """The healthy host, its disk measured."""
    read = DiskRead(Path("/models"), rate, 512 * MIB, "direct", **more)
    return replace(HEALTHY, weights=(replace(HEALTHY.weights[0], read=read),))


@pytest.mark.parametrize(
    ("facts", "name", "status", "says"),
    [
        (read_at(2.5e9), "weights", "good", "reads 2.50 GB/s"),
        (read_at(0.1e9), "weights", "warning", "load slowly"),
        (read_at(None, skipped="read-only"), "weights", "good", "not measured (read-only)"),
        (with_disk(rotational=True), "weights", "warning", "turns"),
        (with_disk(filesystem="9p"), "weights", "warning", "Windows"),
        (with_disk(filesystem="nfs4"), "weights", "warning", "network"),
        (with_disk(free_bytes=GIB), "weights", "warning", "little room"),
        (with_disk(free_bytes=None), "weights", "unknown", "cannot be read"),
        (replace(HEALTHY, runtime=NOT_OURS), "runtime directory", "problem", "somebody"),
        (replace(HEALTHY, runtime=OwnDirectory(Path("/run/p"), 0)), "runtime directory", "problem", "too little"),
        (replace(HEALTHY, runtime=OwnDirectory()), "runtime directory", "unknown", "not looked for"),
        (HEALTHY, "models", "good", "59 in the catalogue, 1 weight file of theirs here"),
        (
            replace(HEALTHY, models=Models(60, (), ("`/a.gguf` does not exist",))),
            "models",
            "warning",
            "/a.gguf",
        ),
        (replace(HEALTHY, models=Models(failure="catalogue `/x` is wrong")), "models", "problem", "`/x` is wrong"),
        (replace(HEALTHY, models=Models()), "models", "unknown", "not looked at"),
        (
            replace(HEALTHY, cache=OwnDirectory(failure="`/x` is full"), surroundings=None),
            "cache directory",
            "warning",
            "--dummy-weights",
        ),
        (replace(HEALTHY, cache=OwnDirectory(failure="`/x` is full")), "cache directory", "problem", "vLLM keeps"),
    ],
)
def test_storage(facts: Facts, name: str, status: str, says: str) -> None:
    """Room, speed where it was measured, and what is known to be slow where it was not."""
    assert says in only(facts, name, status).found


def test_a_virtual_disk_is_not_taken_at_its_word() -> None:
    """Hypervisors' disks say that they turn."""
    virtual = replace(with_disk(rotational=True), machine=replace(HEALTHY.machine, host=Host(virtual=True)))
    assert only(virtual, "weights", "good")


def limits(**changes: Any) -> Facts:
    """The healthy host with other limits."""
    return replace(HEALTHY, ulimits=replace(HEALTHY.ulimits, **changes))


@pytest.mark.parametrize(
    ("facts", "name", "status", "says"),
    [
        (replace(HEALTHY, python=(3, 10, 2)), "python", "problem", "3.10.2"),
        (limits(open_files=1024), "open files", "warning", "1024 at most (hard limit 65536)"),
        (limits(open_files="unlimited"), "open files", "good", "unlimited"),
        (limits(open_files=None), "open files", "unknown", "cannot be read"),
        (limits(core_bytes="unlimited"), "core dumps", "warning", "writes prompts and answers to disk"),
        (limits(core_bytes=None), "core dumps", "unknown", "cannot be read"),
        (with_kernel(core_pattern="|/usr/lib/systemd/systemd-coredump %P"), "core dumps", "good", "off"),
        (with_kernel(core_pattern="|/usr/bin/collect %p"), "core dumps", "warning", "all the same"),
        (limits(address_space_bytes=8 * GIB), "address space", "warning", "8.0 GiB"),
        (limits(locked_bytes=8 * MIB), "locked memory", "warning", "RDMA"),
    ],
)
def test_the_process(facts: Facts, name: str, status: str, says: str) -> None:
    """Limits that a service would start under."""
    assert says in only(facts, name, status).found


cpus = st.builds(
    Cpu,
    model=st.none() | st.just("CPU"),
    architecture=st.sampled_from([None, "x86_64", "aarch64"]),
    cores=st.lists(st.integers(0, 63), unique=True).map(tuple),
    quota=st.none() | st.floats(0.1, 64),
    isa=st.lists(st.sampled_from(["avx2", "avx512f", "asimd"]), unique=True).map(tuple),
    nodes=st.lists(st.builds(NumaNode, st.integers(0, 3), st.just((0,))), max_size=3).map(tuple),
)
memories = st.builds(
    Memory,
    total_bytes=st.none() | st.integers(0, 2**42),
    available_bytes=st.none() | st.integers(0, 2**42),
    limit_bytes=st.none() | st.integers(0, 2**42),
    swap_total_bytes=st.none() | st.integers(0, 2**40),
)
gpus = st.lists(
    st.builds(
        Gpu,
        index=st.integers(0, 7),
        uuid=st.none() | st.text(max_size=4),
        memory_total_bytes=st.none() | st.integers(0, 2**38),
        memory_free_bytes=st.none() | st.integers(0, 2**38),
        compute_capability=st.none() | st.tuples(st.integers(3, 12), st.integers(0, 9)),
        nvlink_links=st.none() | st.integers(0, 18),
        cuda=st.sampled_from([None, "12.8", "nonsense"]),
        processes=st.none() | st.integers(0, 3),
        fabric_ready=st.none() | st.booleans(),
    ),
    max_size=4,
).map(tuple)


@given(cpus, memories, gpus, st.sampled_from([None, VllmInstall("p"), VllmInstall("p", "1", "2", "12.8")]))
def test_any_facts_give_a_page(cpu: Cpu, memory: Memory, gpu: tuple[Gpu, ...], vllm: VllmInstall | None) -> None:
    """Whatever is not known, each finding has a sentence, and the page shows every one in the width asked for."""
    facts = Facts(machine=Machine(gpus=gpu, cpu=cpu, memory=memory), python=(3, 12, 0), vllm=vllm)
    findings = examine(facts)
    assert all(finding.found and not finding.found.endswith(".") for finding in findings)
    text = page(findings, 100)
    assert all(finding.name in text for finding in findings)
    assert all(len(line) <= 100 for line in text.splitlines())


def test_the_page_puts_the_worst_first() -> None:
    """Problems, then warnings, then what is not known; the counts at the end."""
    findings = [
        Finding("a", "good", "fine"),
        Finding("b", "unknown", "cannot be read"),
        Finding("c", "problem", "broken", "mend it"),
        Finding("d", "warning", "slow", "hurry"),
    ]
    assert page(findings) == (
        "problem  c  broken\n"
        "            > mend it\n"
        "warning  d  slow\n"
        "            > hurry\n"
        "unknown  b  cannot be read\n"
        "good     a  fine\n"
        "\n"
        "1 problem, 1 warning, 1 unknown, 1 good\n"
    )


def test_findings_are_frozen() -> None:
    """Nobody changes them on their way to the page."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Finding("a", "good", "b").name = "c"  # type: ignore[misc]
