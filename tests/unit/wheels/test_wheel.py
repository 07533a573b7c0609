"""What a wheel of llama-cpp-python says of itself, read without loading anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import BadFile, FileMissing, NoFitError
from serving.hardware.cpu import ISA_THAT_MATTERS
from serving.wheels import flags_of, read_wheel, require_processor
from serving.wheels.switches import instruction_sets
from tests.support.harness import SOURCE
from tests.support.wheels import GENERIC, library, wheel

V3 = "-msse4.2 -mf16c -mfma -mbmi2 -mavx -mavx2"
PLAIN = library(GENERIC)
PORTABLE = {
    "llama": PLAIN,
    "ggml": PLAIN,
    "ggml-base": PLAIN,
    "ggml-cpu-haswell": library(GENERIC, f"{GENERIC} {V3}"),
    "ggml-cpu-sandybridge": library(f"{GENERIC} -msse4.2 -mavx"),
    "ggml-cpu-x64": PLAIN,
}


def without(*names: str) -> dict[str, bytes]:
    return {name: data for name, data in PORTABLE.items() if name not in names}


def test_a_portable_wheel_runs_everywhere(tmp_path: Path) -> None:
    """It has a part for each kind of processor, one of them for any; libgomp travels in it."""
    found = read_wheel(wheel(tmp_path, PORTABLE))
    assert (found.version, found.glibc, found.level, found.needs) == ("0.3.36", (2, 34), 1, ())
    assert [variant.name for variant in found.variants] == ["x64", "sandybridge", "haswell"]
    assert set(found.variants[-1].needs) == {"sse4_2", "f16c", "fma", "bmi2", "avx", "avx2"}
    assert found.vendored == ("libgomp-f9a9ad78.so.1.0.0",)
    assert [variant.name for variant in found.fitting(flags_of(2))] == ["x64"]
    assert len(found.fitting(flags_of(4))) == 3
    require_processor(found, "x86_64", ())


def test_a_wheel_for_one_level_says_which(tmp_path: Path) -> None:
    """And a host below it is refused by the names of the flags that it lacks."""
    found = read_wheel(wheel(tmp_path, {**without(*PORTABLE), "llama": PLAIN, "ggml-cpu": library(f"{GENERIC} {V3}")}))
    assert (found.level, [variant.name for variant in found.variants]) == (3, [""])
    require_processor(found, "x86_64", flags_of(3))
    with pytest.raises(NoFitError) as refused:
        require_processor(found, "x86_64", (*flags_of(2), "avx", "f16c", "bmi2"))
    assert "needs `avx2`, `fma`, which this processor lacks" in refused.value.message


def test_the_least_that_is_missing_is_named(tmp_path: Path) -> None:
    """Of several parts the one that the processor is nearest to."""
    found = read_wheel(wheel(tmp_path, without("ggml-cpu-x64")))
    with pytest.raises(NoFitError, match="needs `avx`, which"):
        require_processor(found, "x86_64", flags_of(2))


def test_what_every_part_rests_on_counts(tmp_path: Path) -> None:
    """A part for any processor is of no use under a libllama for AVX2."""
    found = read_wheel(wheel(tmp_path, {**PORTABLE, "llama": library("GNU C -march=x86-64-v3")}))
    assert found.level == 3
    with pytest.raises(NoFitError, match="`avx2`"):
        require_processor(found, "x86_64", flags_of(2))


def test_beyond_the_levels_there_is_none(tmp_path: Path) -> None:
    """VNNI is in no level: no level promises that such a wheel runs."""
    only = {"llama": PLAIN, "ggml-cpu": library(f"{GENERIC} -mavx512f -mavx512vnni")}
    assert read_wheel(wheel(tmp_path, only)).level is None


@pytest.mark.parametrize(
    ("libraries", "says"),
    [
        ({"ggml-cpu-x64": library("GNU C11 -march=znver4 -mavx512f")}, "compiled for one processor, `znver4`"),
        ({"llama": library("GNU C11 -march=native")}, "one processor, `native`"),
        ({"llama": library()}, "does not say what it was compiled for"),
        ({"llama": library("GNU C11 -mavx10.1")}, "`-mavx10.1`"),
        ({"llama": library(GENERIC, machine=183)}, "machine 183"),
        ({"ggml": b"\x7fELF"}, "not a whole library"),
        ({"ggml": PLAIN[:-1]}, "not a whole library"),
    ],
)
def test_what_is_not_portable_is_refused(tmp_path: Path, libraries: dict[str, bytes], says: str) -> None:
    """By the name of the library, among many that are sound."""
    with pytest.raises(BadFile, match=says) as refused:
        read_wheel(wheel(tmp_path, {**PORTABLE, **libraries}))
    assert f"lib{next(iter(libraries))}.so" in refused.value.message


def test_what_is_no_such_wheel_is_refused(tmp_path: Path) -> None:
    """Another package's, another machine's, none at all, or one without a part for the CPU."""
    with pytest.raises(BadFile, match="not called"):
        read_wheel(tmp_path / "numpy-2.4.6-cp311-cp311-manylinux_2_27_x86_64.whl")
    with pytest.raises(BadFile, match="not called"):
        read_wheel(tmp_path / "llama_cpp_python-0.3.36-py3-none-manylinux_2_34_aarch64.whl")
    with pytest.raises(FileMissing):
        read_wheel(tmp_path / "llama_cpp_python-0.3.36-py3-none-linux_x86_64.whl")
    with pytest.raises(BadFile, match="it has llama"):
        read_wheel(wheel(tmp_path, {"llama": PLAIN}))
    path = wheel(tmp_path, PORTABLE)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(BadFile, match="cannot be read as a wheel"):
        read_wheel(path)


@given(st.integers(0, len(PLAIN) - 1), st.binary(min_size=1, max_size=8))
def test_no_bytes_break_the_reader(at: int, what: bytes) -> None:
    """A damaged library is refused, or read as what it says."""
    damaged = PLAIN[:at] + what + PLAIN[at + len(what) :]
    with suppress(BadFile):
        assert set(instruction_sets(damaged, "it")) <= set(ISA_THAT_MATTERS)


def test_it_runs_by_itself(tmp_path: Path) -> None:
    """`python -m serving.wheels`, as `make portable` does, with no package beside Python: lines, or an exit status."""

    def ask(path: Path) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-S", "-m", "serving.wheels", str(path)]
        return subprocess.run(argv, cwd=SOURCE, env=dict(os.environ), capture_output=True, text=True, check=False)

    told = ask(wheel(tmp_path, PORTABLE))
    assert json.loads(told.stdout)["level"] == 1
    refused = ask(wheel(tmp_path, {**PORTABLE, "llama": library("GNU C -march=native")}))
    assert (refused.returncode, refused.stdout) == (BadFile.exit_status, "")
    assert refused.stderr.startswith("error: `llama_cpp/lib/libllama.so` was compiled for one processor")
