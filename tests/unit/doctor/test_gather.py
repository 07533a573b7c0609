"""Gathering: files as the kernel writes them, processes that answer or die, directories that can be had or not."""

from __future__ import annotations

import stat
import sys
import venv
from pathlib import Path

import pytest

from serving.doctor.facts import Kernel, LlamaCppBuild
from serving.doctor.gather import (
    ask_llamacpp,
    ask_vllm,
    read_clock,
    read_directories,
    read_directory,
    read_kernel,
    read_models,
    read_ulimits,
)
from serving.errors import BadSettings
from serving.hardware.disk import read_disk
from serving.registry import load_catalogue
from tests.support.gguf_bytes import tiny
from tests.support.recorded import lay_out


def script(path: Path, text: str) -> str:
    """An executable that does what the shell text says."""
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_the_installed_llamacpp_answers() -> None:
    """Its version, its flags, and whether it knows of GPUs."""
    build = ask_llamacpp()
    assert build.failure is None
    assert build.version
    assert build.flags
    assert build.gpu_offload is not None


def test_a_build_that_dies_is_told_from_one_that_fails(tmp_path: Path) -> None:
    """The signal is named; an error is its last line; nonsense is no answer."""
    died = ask_llamacpp(script(tmp_path / "a", "kill -ILL $$"))
    assert (died.signal, died.failure) == ("SIGILL", "its process was ended by SIGILL")
    failed = ask_llamacpp(
        script(tmp_path / "b", "echo Traceback >&2; echo \"No module named 'llama_cpp'\" >&2; exit 1")
    )
    assert failed == LlamaCppBuild(failure="No module named 'llama_cpp'")
    assert ask_llamacpp(script(tmp_path / "c", "exit 3")).failure == "its process ended with 3"
    assert ask_llamacpp(script(tmp_path / "d", "echo []")).failure
    assert ask_llamacpp("/no/such/python").failure


def test_vllm_is_asked_for_without_importing_it(tmp_path: Path) -> None:
    """The Python that runs it says what it has installed; PyTorch's CUDA is read from its own file."""
    here = ask_vllm(sys.executable)
    assert here.failure is None
    assert here.include
    assert here.harmony_fetches is None
    answer = """{"vllm": "0.22.0", "torch": "2.11.0", "cuda": "12.8", "harmony": "openai-harmony 0.0.8"}"""
    told = ask_vllm(script(tmp_path / "a", f"echo '{answer}'"))
    assert (told.version, told.torch, told.cuda, told.harmony) == ("0.22.0", "2.11.0", "12.8", "openai-harmony 0.0.8")
    for nonsense in ("null", "[]", "3", '{"vllm": 1, "other": 2}'):
        assert ask_vllm(script(tmp_path / "c", f"echo '{nonsense}'")).failure
    assert "no/such" in str(ask_vllm("/no/such/python").failure)
    assert ask_vllm(script(tmp_path / "b", "echo broken >&2; exit 1")).failure == "broken"


def environment_of(directory: Path, files: dict[str, bytes]) -> str:
    """A Python whose site-packages hold these files."""
    venv.create(directory, with_pip=False, symlinks=True)
    for name, content in files.items():
        path = next(directory.glob("lib/python*/site-packages")) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return str(directory / "bin/python")


@pytest.mark.parametrize(("binary", "fetches"), [(b"..https://openaipublic.blob..", True), (b"vocabulary", False)])
def test_what_vllm_would_reach_for_is_asked_of_its_python(tmp_path: Path, binary: bytes, fetches: bool) -> None:
    """Distributions by their metadata; of the harmony library, whether it knows where to fetch its vocabulary."""
    files = {
        "torch/__init__.py": b"raise SystemExit('imported')",
        "torch/version.py": b"cuda: Optional[str] = '13.0'\n",
        "openai_harmony/__init__.py": b"raise SystemExit('imported')",
        "openai_harmony/openai_harmony.abi3.so": binary,
    }
    distributions = {"vllm": "0.33.1", "openai-harmony": "0.0.8", "flashinfer-python": "0.6.18.post1"}
    for name, version in distributions.items():
        metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode()
        files[f"{name.replace('-', '_')}-{version}.dist-info/METADATA"] = metadata
    told = ask_vllm(environment_of(tmp_path / "env", files))
    assert told.failure is None
    assert (told.version, told.cuda, told.flashinfer) == ("0.33.1", "13.0", "0.6.18.post1")
    assert (told.flashinfer_cubin, told.flashinfer_jit_cache) == (None, None)
    assert (told.harmony, told.harmony_fetches) == ("openai-harmony 0.0.8", fetches)


def test_the_kernels_settings(tmp_path: Path) -> None:
    """As the files have them; an empty root has none."""
    assert read_kernel(tmp_path) == Kernel()
    for path, text in {
        "proc/sys/vm/overcommit_memory": "2\n",
        "proc/sys/kernel/numa_balancing": "1\n",
        "proc/sys/kernel/core_pattern": "|/usr/share/apport/apport -p%p\n",
        "sys/devices/system/cpu/smt/active": "0\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_driver": "intel_pstate\n",
        "sys/devices/system/cpu/cpu0/cpufreq/energy_performance_preference": "balance_performance\n",
        "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "performance\n",
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert read_kernel(tmp_path) == Kernel(
        overcommit=2,
        numa_balancing=True,
        smt=False,
        governors=("performance", "powersave"),
        frequency_driver="intel_pstate",
        energy_preferences=("balance_performance",),
        core_pattern="|/usr/share/apport/apport -p%p",
    )


def test_this_process() -> None:
    """Limits and clock can be read here."""
    limits = read_ulimits()
    assert limits.open_files is not None
    assert limits.core_bytes is not None
    clock = read_clock()
    assert (clock.now_s or 0) > (clock.at_least_s or 0) > 0


def test_directories_of_weights_once_per_file_system(tmp_path: Path) -> None:
    """Files and directories; what is gone is passed over."""
    (tmp_path / "a.gguf").write_bytes(b"")
    (tmp_path / "b").mkdir()
    paths = [tmp_path / "absent/x.gguf", tmp_path / "a.gguf", tmp_path / "b"]
    (directory,) = read_directories(paths, Path("/"), measured=False)
    assert directory.path == tmp_path
    assert directory.disk.free_bytes
    assert directory.read is None


SITE = """
[[models."llama3.2-1b".variants]]
name = "q8_0"
path = "gone.gguf"

[models.own]
title = "Own"
context = 4096

[[models.own.variants]]
name = "f32"
format = "gguf"
backends = ["llamacpp"]
path = "own.gguf"
"""


def test_a_sites_models_are_looked_at(tmp_path: Path) -> None:
    """Those that are here are counted and opened; those that should be are named; a wrong catalogue is a finding."""
    site = tmp_path / "site.toml"
    site.write_text(SITE)
    tiny().write(tmp_path / "own.gguf")
    found = read_models(lambda: load_catalogue(site))
    assert tmp_path / "own.gguf" in found.paths
    missing, shorter = found.faults
    assert missing == f"llama3.2-1b: `{tmp_path}/gone.gguf` (q8_0) does not exist"
    assert "context 1024" in shorter
    (tmp_path / "own.gguf").write_bytes(b"GGUF")
    assert any("own.gguf` is truncated" in fault for fault in read_models(lambda: load_catalogue(site)).faults)
    site.write_text("models = 5")
    wrong = read_models(lambda: load_catalogue(site))
    assert "`models` = `5`: must be a table" in str(wrong.failure)
    assert wrong.hint
    assert read_models(load_catalogue).faults == ()


def test_a_disk_says_the_same_of_itself_wherever_it_is_asked(tmp_path: Path) -> None:
    """In a virtual machine one that turns is not believed, for the machine and for the weights alike."""
    root = lay_out("a100-mig", tmp_path).root
    assert read_disk(Path("/"), root).rotational is True
    for is_virtual, turns in ((True, None), (False, True)):
        (directory,) = read_directories([Path("/")], root, measured=False, is_virtual=is_virtual)
        assert directory.disk.rotational is turns


def test_a_runtime_directory_that_cannot_be_had(tmp_path: Path) -> None:
    """The reason is what `serve` would have said."""

    def refuse() -> Path:
        raise BadSettings("the runtime directory `/run/x` belongs to somebody else")

    assert "somebody else" in str(read_directory(refuse).failure)
    there = read_directory(lambda: tmp_path / "not yet")
    assert there.path == tmp_path / "not yet"
    assert there.free_bytes
    assert not (tmp_path / "not yet").exists()
