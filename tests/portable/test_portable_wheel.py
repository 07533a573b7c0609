"""The wheel that `make portable` builds, on processors that are not here: qemu-user has no AVX-512 at all, and AVX2
only where the emulated processor has it."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from serving.wheels import LlamaCppWheel, read_wheel, require_processor
from tests.support.demo import MODEL, needs_demo
from tests.support.harness import SOURCE, wait_until
from tests.support.wheels import portable_wheel

PROCESSORS = {"Nehalem": "sse42", "SandyBridge": "sandybridge", "Haswell": "haswell"}
"""Emulated processors, and which part of the wheel is for each."""
QUESTIONS = ("Who are you?", "What is 17 plus 25?")
ENVIRONMENT = {"OMP_WAIT_POLICY": "passive", "GGML_NO_BACKTRACE": "1", "LANG": "C.UTF-8"}


@pytest.fixture(scope="module")
def wheel() -> Path:
    return portable_wheel()


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with nothing but the wheel, as an isolated host would install it."""
    target = tmp_path_factory.mktemp("installed")
    argv = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*argv, "--target", str(target), str(wheel)], check=True)
    return target


@pytest.fixture(scope="module")
def qemu() -> str:
    found = shutil.which("qemu-x86_64")
    if found is None:
        pytest.skip("no qemu-x86_64 (Debian: qemu-user)")
    return found


@dataclass(frozen=True)
class Answer:
    text: str
    margin: float
    """By how much the log-probability of each token is above the next best one's, the least of all."""


@contextmanager
def engine(argv: list[str], directory: Path, libraries: Path | None = None) -> Iterator[httpx2.Client]:
    """The engine by itself, run by `argv`, with llama.cpp from `libraries` in place of the installed one."""
    address = directory / "engine.sock"
    options = ["--model", str(MODEL), "--uds", str(address), "--alias", "m", "--parallel", "2", "--ctx", "512"]
    paths = os.pathsep.join(map(str, filter(None, (libraries, SOURCE))))
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [*argv, "-m", "serving.llamacpp", *options, "--threads", "2"],
            env={**os.environ, **ENVIRONMENT, "PYTHONPATH": paths},
            stdout=log,
            stderr=log,
        )
    client = httpx2.Client(transport=httpx2.HTTPTransport(uds=str(address)), base_url="http://engine", timeout=120)

    def is_ready() -> bool:
        assert process.poll() is None, (directory / "log").read_text()
        with socket.socket(socket.AF_UNIX) as probe:
            is_listening = probe.connect_ex(str(address)) == 0
        return is_listening and client.get("/ready").status_code == 200

    try:
        wait_until(is_ready, "the engine is ready", within_s=120)
        yield client
    finally:
        client.close()
        process.terminate()
        process.wait(30)


def answers(client: httpx2.Client) -> list[Answer]:
    """What the demo model says to each question, greedily."""
    found = []
    for question in QUESTIONS:
        body = {"model": "m", "messages": [{"role": "user", "content": question}], "temperature": 0}
        told = client.post("/v1/chat/completions", json={**body, "max_tokens": 24, "logprobs": True, "top_logprobs": 2})
        choice = told.raise_for_status().json()["choices"][0]
        tops = [token["top_logprobs"] for token in choice["logprobs"]["content"]]
        margin = min(best["logprob"] - second["logprob"] for best, second in tops)
        found.append(Answer(choice["message"]["content"], margin))
    return found


def described(argv: list[str], libraries: Path) -> dict:
    """What llama.cpp says of itself there."""
    paths = os.pathsep.join(map(str, (libraries, SOURCE)))
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run([*argv, "-m", "serving.llamacpp.build"], env=environment, capture_output=True, check=True)
    return json.loads(done.stdout)


def test_it_says_that_it_runs_everywhere(wheel: Path) -> None:
    """Each library by the compiler's record: nothing was compiled for the processor of its builder."""
    found = read_wheel(wheel)
    assert (found.level, found.needs) == (1, ())
    assert found.glibc is not None
    assert {"x64", *PROCESSORS.values(), "skylakex", "zen4"} <= {variant.name for variant in found.variants}
    assert [re.sub(r"-[0-9a-f]+", "", name) for name in found.vendored] == ["libgomp.so.1.0.0"]
    require_processor(found, "x86_64", ())


def test_its_code_uses_no_wider_registers_than_it_says(wheel: Path, tmp_path: Path) -> None:
    """Nobody's word for it: what is disassembled without AVX has no YMM registers, without AVX-512 no ZMM or masks."""
    if shutil.which("objdump") is None:
        pytest.skip("no objdump (Debian: binutils)")
    found: LlamaCppWheel = read_wheel(wheel)
    needs = {f"libggml-cpu-{variant.name}.so": variant.needs for variant in found.variants}
    narrow = 0
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            library = name.rpartition("/")[2]
            if ".so" not in library or "avx512f" in needs.get(library, ()):
                continue
            archive.extract(name, tmp_path)
            wide = "%zmm|%k[1-7]" if "avx" in needs.get(library, ()) else "%zmm|%k[1-7]|%ymm"
            script = 'objdump -d --no-show-raw-insn "$1" | grep -m1 -E "$2"'
            done = subprocess.run(["sh", "-c", script, "sh", tmp_path / name, wide], capture_output=True, check=False)
            assert (done.returncode, done.stdout) == (1, b""), library
            narrow += 1
    assert narrow >= 9


@needs_demo
@pytest.mark.timeout(600)
@pytest.mark.parametrize("processor", PROCESSORS)
def test_it_answers_on_an_emulated_processor(installed: Path, qemu: str, processor: str, tmp_path: Path) -> None:
    """The whole engine, with neither AVX-512 nor, on the older ones, AVX2; the same answers as the build that is
    installed here gives. The demo model is sure of each token by far more than roundings differ."""
    argv = [qemu, "-cpu", processor, sys.executable]
    build = described(argv, installed)
    assert build["variant"] == PROCESSORS[processor]
    assert not [flag for flag in build["flags"] if flag.startswith("AVX512")]
    assert ("AVX2" in build["flags"]) is (processor == "Haswell")
    with engine([sys.executable], tmp_path) as here:
        expected = answers(here)
    with engine(argv, tmp_path, installed) as emulated:
        found = answers(emulated)
    assert [answer.text for answer in found] == [answer.text for answer in expected]
    assert min(answer.margin for answer in [*found, *expected]) > 1.0


_WIDEN = """
import ctypes, sys
import numpy as np
directory, part = sys.argv[1:]
for name in ("ggml-base", f"ggml-cpu-{part}"):
    library = ctypes.CDLL(f"{directory}/llama_cpp/lib/lib{name}.so")
numbers, halves = np.arange(64, dtype=np.float32), np.zeros(64, dtype=np.uint16)
library.ggml_cpu_fp32_to_fp16(ctypes.c_void_p(numbers.ctypes.data), ctypes.c_void_p(halves.ctypes.data), 64)
assert (halves.view(np.float16) == numbers).all()
"""


@pytest.mark.parametrize(
    ("processor", "part", "runs"),
    [
        ("Haswell", "haswell", True),
        ("Haswell", "skylakex", False),
        ("max", "zen4", False),
        ("Nehalem", "haswell", False),
    ],
)
def test_the_emulator_ends_what_its_processor_has_not(
    installed: Path, qemu: str, processor: str, part: str, runs: bool
) -> None:
    """So the answers above prove something: a part for a newer processor, loaded by force, dies of SIGILL there."""
    done = subprocess.run(
        [qemu, "-cpu", processor, sys.executable, "-c", _WIDEN, str(installed), part], capture_output=True, check=False
    )
    assert done.returncode in ((0,) if runs else (-4, 132)), done.stderr


def test_without_a_part_for_the_processor_it_says_so(installed: Path, qemu: str, tmp_path: Path) -> None:
    """Rather than die: an engine whose only part is for a newer processor ends with a sentence."""
    shutil.copytree(installed, tmp_path / "some", ignore=shutil.ignore_patterns("libggml-cpu-[!z]*"))
    libraries = os.pathsep.join(map(str, (tmp_path / "some", SOURCE)))
    done = subprocess.run(
        [qemu, "-cpu", "Haswell", sys.executable, "-m", "serving.llamacpp.build"],
        env={**os.environ, "PYTHONPATH": libraries},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "is for this processor" in done.stderr


def test_it_brings_its_own_openmp(installed: Path) -> None:
    """A host without a compiler often has no libgomp: the one that is loaded, and no other, came in the wheel."""
    libraries = os.pathsep.join(map(str, (installed, SOURCE)))
    code = "from serving.llamacpp import binding; binding.start_backend(); print(open('/proc/self/maps').read())"
    environment = {**os.environ, "PYTHONPATH": libraries}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    loaded = set(re.findall(r"/\S*libgomp\S*", done.stdout))
    assert [Path(each).parent for each in loaded] == [installed / "llama_cpp_python.libs"]


def test_nothing_is_loaded_from_the_working_directory(installed: Path, tmp_path: Path) -> None:
    """llama.cpp by itself would look there; a library that somebody left in it is not opened."""
    planted = tmp_path / "libggml-cpu-planted.so"
    shutil.copy(installed / "llama_cpp/lib/libggml-cpu-x64.so", planted)
    libraries = os.pathsep.join(map(str, (installed, SOURCE)))
    code = "from serving.llamacpp.build import describe_build; print(describe_build()['variant'])"
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("no strace (Debian: strace)")
    done = subprocess.run(
        [strace, "-f", "-e", "trace=open,openat", sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": libraries},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "libggml-cpu-x64.so" in done.stderr
    assert planted.name not in done.stderr
