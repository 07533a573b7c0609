"""Checks of the installed engines against the machine."""

from __future__ import annotations

from collections.abc import Iterator

from serving.doctor.facts import Facts, VllmInstall
from serving.doctor.finding import Finding

_X86 = {
    "avx": "AVX",
    "avx2": "AVX2",
    "fma": "FMA",
    "f16c": "F16C",
    "avx_vnni": "AVX_VNNI",
    "avx512f": "AVX512",
    "avx512_vnni": "AVX512_VNNI",
    "avx512_bf16": "AVX512_BF16",
    "amx_int8": "AMX_INT8",
}
_ARM = {"asimd": "NEON", "asimddp": "DOTPROD", "i8mm": "MATMUL_INT8", "sve": "SVE", "sme": "SME"}
"""The kernel's names of instruction sets, and llama.cpp's (`ggml_backend_cpu_get_features` in ggml-cpu.cpp)."""

_LEAST_CAPABILITY = (7, 0)
"""What vLLM's CUDA kernels are built for at least (vLLM's installation guide)."""


def check_engines(facts: Facts) -> Iterator[Finding]:
    """Whether each engine runs here, and uses what the machine has."""
    yield from _llamacpp(facts)
    yield from _vllm(facts)


def _llamacpp(facts: Facts) -> Iterator[Finding]:
    name, build = "llama.cpp", facts.llamacpp
    rebuild = 'build it here: `CMAKE_ARGS="-DGGML_NATIVE=on" pip install --no-binary :all: llama-cpp-python`'
    carry = f"{rebuild}; or, without a compiler, install the portable wheel (`make portable`)"
    if build.signal == "SIGILL":
        yield Finding(name, "problem", "uses instructions that this processor does not have (SIGILL)", carry)
        return
    if build.failure is not None:
        yield Finding(name, "problem", f"does not load: {build.failure}", "install the package again")
        return
    isa = set(facts.machine.cpu.isa)
    if not isa or not build.flags:
        yield Finding(name, "unknown", f"version {build.version}; its build cannot be compared with the processor")
        return
    names = _X86 if facts.machine.cpu.architecture == "x86_64" else _ARM
    unused = [theirs for ours, theirs in names.items() if ours in isa and theirs not in build.flags]
    if "AVX512_VNNI" in build.flags:
        unused = [name for name in unused if name != "AVX_VNNI"]  # the same instructions, of half the width
    what = f"version {build.version}" + (f", portable (its part for `{build.variant}`)," if build.variant else "")
    lacking = [theirs for ours, theirs in names.items() if ours not in isa and theirs in build.flags]
    if lacking:
        found = f"{what} is built for {', '.join(lacking)}, which this processor does not have"
        yield Finding(name, "problem", found, carry)
    elif unused:
        found = f"{what} is built without {', '.join(unused)}, which this processor has"
        yield Finding(name, "warning", found, rebuild)
    else:
        used = [theirs for theirs in names.values() if theirs in build.flags]
        yield Finding(name, "good", f"{what} uses all that this processor has: {', '.join(used) or 'no vectors'}")


def _vllm(facts: Facts) -> Iterator[Finding]:
    name, vllm, gpus = "vllm", facts.vllm, facts.machine.gpus
    if vllm is None:
        return
    if vllm.failure is not None:
        yield Finding(name, "problem", f"`{vllm.python}` cannot be asked: {vllm.failure}", "name a Python that runs")
    elif vllm.version is None:
        if gpus and not facts.llamacpp.gpu_offload:
            advice = "install vLLM, or a llama.cpp that is built with a GPU backend"
            yield Finding(name, "warning", "not installed, and llama.cpp is built without GPUs: none is used", advice)
        elif gpus:
            yield Finding(name, "warning", "not installed: GPUs are used by llama.cpp alone", "install vLLM")
        else:
            yield Finding(name, "good", "not installed, and not needed without a GPU")
    else:
        yield from _vllm_on_gpus(vllm, facts)


def _vllm_on_gpus(vllm: VllmInstall, facts: Facts) -> Iterator[Finding]:
    name, gpus = "vllm", facts.machine.gpus
    what = f"version {vllm.version}"
    if not gpus:
        yield Finding(name, "good", f"{what}; there is no GPU for it")
        return
    if vllm.cuda is None:
        found = f"{what} is built without CUDA: it does not use the GPUs"
        yield Finding(name, "warning", found, "install vLLM's CUDA build in the Python that runs it")
        return
    what += f" for CUDA {vllm.cuda}"
    old = sorted({gpu.compute_capability for gpu in gpus if gpu.compute_capability} - {(7, 0)})
    if old and old[0] < _LEAST_CAPABILITY:
        found = f"{what} needs compute capability 7.0, the oldest GPU here has {'.'.join(map(str, old[0]))}"
        yield Finding(name, "warning", found, "hide that GPU with CUDA_VISIBLE_DEVICES")
    build, driver = _version(vllm.cuda), _version(gpus[0].cuda)
    if build is None or driver is None:
        yield Finding(name, "unknown", f"{what}; the driver does not say which CUDA it serves")
    elif build[0] > driver[0]:
        found = f"{what}, and the driver serves CUDA {gpus[0].cuda} at most: it does not start"
        yield Finding(name, "problem", found, "install a newer driver, or a vLLM built for an older CUDA")
    elif build > driver:
        # CUDA's minor version compatibility: it runs, but for kernels that have to be compiled on the spot.
        found = f"{what}, newer than the driver's {gpus[0].cuda}: kernels compiled at run time may fail"
        yield Finding(name, "warning", found, "install a newer driver")
    else:
        yield Finding(name, "good", f"{what}, and the driver serves up to {gpus[0].cuda}")


def _version(text: str | None) -> tuple[int, int] | None:
    major, _, minor = (text or "").partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None
