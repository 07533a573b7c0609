"""What vLLM reaches for at run time: looked for as its process would, and judged for a host without a network."""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.cli.doctor import page, vllm_environment
from serving.doctor import Facts, Finding, examine
from serving.doctor.facts import CacheDirectory, Place, Surroundings, VllmInstall
from serving.doctor.surroundings import read_surroundings
from serving.doctor.surroundings_checks import _VOCABULARY_SHA256, is_open
from serving.engines.vllm import plan_engine
from serving.hardware import Machine
from serving.hardware.known import machine
from serving.planner import VllmPlan, Wishes, plan
from serving.planner.types import Engines
from serving.registry import load_catalogue
from serving.settings import Settings
from tests.support.recorded import lay_out
from tests.unit.doctor.test_checks import HEALTHY, PRIVATE

CACHE = "/var/cache/perimeter"


def with_vllm(**changes: Any) -> Facts:
    """The healthy host, its vLLM installed otherwise."""
    assert HEALTHY.vllm is not None
    return replace(HEALTHY, vllm=replace(HEALTHY.vllm, **changes))


def around(facts: Facts = HEALTHY, **changes: Any) -> Facts:
    """A host where vLLM finds other things around it."""
    assert facts.surroundings is not None
    return replace(facts, surroundings=replace(facts.surroundings, **changes))


def caches(mode: int, owner: int = 990, **more: Any) -> tuple[CacheDirectory, ...]:
    """The healthy host's cache with another mode, owner or mount."""
    return (CacheDirectory(Path(CACHE), (*PRIVATE[:-1], Place(Path(CACHE), owner, mode)), **{"noexec": False, **more}),)


def only(facts: Facts, name: str) -> Finding:
    """The one finding of a name."""
    (finding,) = (finding for finding in examine(facts) if finding.name == name)
    return finding


@pytest.mark.parametrize(
    ("facts", "name", "status", "says", "advises"),
    [
        (
            around(compiler=None),
            "compiler",
            "problem",
            "no gcc or clang on /usr/local/bin:",
            "engines.vllm.environment",
        ),
        (around(compiler=None, cc="icx"), "compiler", "problem", "CC is `icx`", "correct CC"),
        (around(has_headers=False), "compiler", "problem", "`/usr/include/python3.12` has no Python.h", "python3-dev"),
        (
            with_vllm(flashinfer_cubin=None, flashinfer_jit_cache=None),
            "flashinfer",
            "warning",
            "no nvcc or ninja to compile any",
            "--no-index",
        ),
        (
            around(with_vllm(flashinfer_cubin=None), nvcc="/usr/bin/nvcc", ninja="/usr/bin/ninja"),
            "flashinfer",
            "warning",
            "fetches kernels from NVIDIA's server",
            "FLASHINFER_CUBIN_DIR",
        ),
        (
            with_vllm(flashinfer_jit_cache=None),
            "flashinfer",
            "warning",
            "and nvcc and ninja to compile",
            "flashinf",
        ),
        (
            around(with_vllm(flashinfer_jit_cache=None), nvcc="/usr/bin/nvcc", ninja="/usr/bin/ninja"),
            "flashinfer",
            "warning",
            "when it first runs",
            "flashinfer-jit-cache 0.6.18",
        ),
        (
            with_vllm(flashinfer_cubin="0.6.17"),
            "flashinfer",
            "problem",
            "flashinfer-cubin 0.6.17: it refuses",
            "0.6.18",
        ),
        (with_vllm(harmony=None), "harmony", "warning", "does not serve gpt-oss", "/opt/vllm/bin/python"),
        (
            with_vllm(harmony="openai-harmony 0.0.8", harmony_fetches=True),
            "harmony",
            "warning",
            "OpenAI's server",
            "TIKTOKEN_ENCODINGS_BASE in `[engines.vllm.environment]`",
        ),
        (around(encodings="/no"), "harmony", "warning", "where no o200k_base.tiktoken can be read", "leave it out"),
        (
            around(encodings="/e", encoding_sha256="00"),
            "harmony",
            "warning",
            "`/e/o200k_base.tiktoken` is not",
            "446a9",
        ),
        (around(caches=caches(0o755)), "kernel caches", "warning", "can look into", "chmod 700"),
        (around(caches=caches(0o777)), "kernel caches", "warning", "can put code into", "chmod 700"),
        (around(caches=caches(0o700, owner=1234)), "kernel caches", "warning", "can put code into", "paths.cache_dir"),
        (around(caches=caches(0o700, noexec=True)), "kernel caches", "problem", "mounted noexec", "without noexec"),
    ],
)
def test_what_is_lacking_is_named(facts: Facts, name: str, status: str, says: str, advises: str) -> None:
    """Each with its cause and what to do; what would only be slower or serves one model only is a warning."""
    finding = only(facts, name)
    assert finding.status == status
    assert says in finding.found
    assert advises in (finding.advice or "")


@pytest.mark.parametrize(
    ("facts", "name", "says"),
    [
        (HEALTHY, "harmony", "brings gpt-oss' vocabulary along"),
        (around(encodings="/e", encoding_sha256=_VOCABULARY_SHA256), "harmony", "is in `/e`"),
        (with_vllm(flashinfer=None), "flashinfer", "without it"),
        (around(with_vllm(flashinfer_cubin=None), cubin_dir="/cubins"), "flashinfer", "its kernels are here"),
        (HEALTHY, "kernel caches", CACHE),
    ],
)
def test_what_is_there_is_good(facts: Facts, name: str, says: str) -> None:
    """And needs no advice."""
    finding = only(facts, name)
    assert (finding.status, finding.advice) == ("good", None)
    assert says in finding.found


def test_what_cannot_be_known_is_not_judged() -> None:
    """Neither good nor bad."""
    for facts, name in (
        (around(has_headers=None), "compiler"),
        (with_vllm(harmony_fetches=None), "harmony"),
        (around(caches=caches(0o700, noexec=None)), "kernel caches"),
    ):
        assert only(facts, name).status == "unknown"


def test_without_a_gpu_nothing_of_it_is_a_problem() -> None:
    """The host serves from its processors; a build for those compiles nothing with Triton."""
    without = replace(HEALTHY, machine=replace(HEALTHY.machine, gpus=()))
    for changes in ({"compiler": None}, {"caches": caches(0o700, noexec=True)}):
        assert all(finding.status != "problem" for finding in examine(around(without, **changes)))
    built_for_cpu = with_vllm(cuda=None)
    assert {"compiler", "flashinfer"}.isdisjoint(finding.name for finding in examine(built_for_cpu))


def test_nothing_is_said_where_vllm_is_not_to_run() -> None:
    """Not installed, or no GPU and no Python named for it."""
    names = {"compiler", "flashinfer", "harmony", "kernel caches"}
    for facts in (replace(HEALTHY, surroundings=None), with_vllm(version=None), replace(HEALTHY, vllm=None)):
        assert names.isdisjoint(finding.name for finding in examine(facts))


steps = st.lists(st.tuples(st.sampled_from([0, 990, 1234]), st.integers(0, 0o1777)), min_size=1, max_size=4)


@given(steps, st.booleans(), st.integers(0, 3), st.integers(0, 0o077))
def test_who_locks_up_more_is_never_more_open(given: list[tuple[int, int]], is_made: bool, at: int, taken: int) -> None:
    """Taking rights from others at any step opens nothing; what others can change was theirs, or writable."""
    paths = [Path("/"), *(Path("/", *"abc"[: count + 1]) for count in range(3))]

    def cache(modes: list[tuple[int, int]]) -> CacheDirectory:
        places = tuple(Place(path, owner, mode) for path, (owner, mode) in zip(paths, modes, strict=False))
        return CacheDirectory(places[-1].path if is_made else places[-1].path / "new", places)

    at %= len(given)
    owner, mode = given[at]
    stricter = [*given[:at], (owner, mode & ~taken), *given[at + 1 :]]
    for to_change in (True, False):
        assert is_open(cache(given), 990, to_change=to_change) or not is_open(cache(stricter), 990, to_change=to_change)
    if is_made and is_open(cache(given), 990, to_change=True):
        assert any(owner == 1234 or mode & 0o022 for owner, mode in given)


def test_a_directory_in_tmp_is_its_owners_once_it_is_made() -> None:
    """The sticky bit keeps others from replacing it, and from nothing before it is there."""
    tmp, made = Place(Path("/tmp"), 0, 0o1777), Place(Path("/tmp/p"), 990, 0o700)
    root = Place(Path("/"), 0, 0o755)
    assert not is_open(CacheDirectory(Path("/tmp/p"), (root, tmp, made)), 990, to_change=True)
    assert is_open(CacheDirectory(Path("/tmp/p"), (root, tmp)), 990, to_change=True)
    assert is_open(CacheDirectory(Path("/tmp/p"), (root, replace(tmp, mode=0o777), made)), 990, to_change=True)


digests = st.sampled_from([None, "00", _VOCABULARY_SHA256])
texts = st.sampled_from([None, "0.6.18", "0.6.18+cu130", "0.5"])
installs = st.builds(
    VllmInstall,
    python=st.just("/opt/vllm/bin/python"),
    version=st.sampled_from([None, "0.33"]),
    cuda=st.sampled_from([None, "13.0"]),
    harmony=st.sampled_from([None, "oss-harmony 0.0.11"]),
    harmony_fetches=st.none() | st.booleans(),
    flashinfer=texts,
    flashinfer_cubin=texts,
    flashinfer_jit_cache=texts,
    include=st.sampled_from([None, "/usr/include"]),
)
surroundings = st.none() | st.builds(
    Surroundings,
    program_path=st.just("/usr/bin"),
    user=st.just(990),
    encodings=st.sampled_from([None, "/e"]),
    encoding_sha256=digests,
    cubin_dir=st.sampled_from([None, "/c"]),
    nvcc=st.sampled_from([None, "/n"]),
    ninja=st.sampled_from([None, "/j"]),
    compiler=st.sampled_from([None, "/g"]),
    cc=st.sampled_from([None, "cc"]),
    has_headers=st.none() | st.booleans(),
    caches=st.just(()) | st.builds(caches, st.integers(0, 0o777), noexec=st.none() | st.booleans()),
)


@given(installs, surroundings, st.booleans())
def test_whatever_is_wrong_comes_with_advice(vllm: VllmInstall, found: Surroundings | None, with_gpus: bool) -> None:
    """Every warning and problem says what to do; the page shows all in the width asked for."""
    here = HEALTHY.machine if with_gpus else Machine()
    findings = examine(replace(HEALTHY, machine=here, vllm=vllm, surroundings=found))
    for finding in findings:
        if finding.name in ("compiler", "flashinfer", "harmony", "kernel caches"):
            assert finding.status not in ("warning", "problem") or finding.advice
    assert all(len(line) <= 110 for line in page(findings, 110).splitlines())


def put(root: Path, path: str, content: bytes = b"", mode: int = 0o644) -> None:
    """A file under the root."""
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_bytes(content)
    (root / path).chmod(mode)


def test_programs_are_looked_for_on_vllms_own_path(tmp_path: Path) -> None:
    """The operator's PATH is another; what cannot be run is not found; CC and CUDA_HOME come before a search."""
    root = lay_out("epyc-8xh100", tmp_path).root
    path = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
    assert read_surroundings(path, "/usr/include/python3.12", root) == Surroundings(
        program_path=path["PATH"], user=os.getuid(), has_headers=False
    )
    put(root, "opt/gcc/bin/gcc", mode=0o755)
    put(root, "usr/bin/gcc", mode=0o644)
    assert read_surroundings(path, None, root).compiler is None
    assert read_surroundings({**path, "CC": "/opt/gcc/bin/gcc"}, None, root).compiler == "/opt/gcc/bin/gcc"
    put(root, "bin/clang", mode=0o755)
    assert read_surroundings(path, None, root).compiler == "/bin/clang"
    put(root, "usr/bin/gcc", mode=0o755)
    put(root, "usr/include/python3.12/Python.h")
    put(root, "usr/local/cuda/bin/nvcc", mode=0o755)
    there = read_surroundings(path, "/usr/include/python3.12", root)
    assert (there.compiler, there.has_headers, there.nvcc) == ("/usr/bin/gcc", True, "/usr/local/cuda/bin/nvcc")
    assert read_surroundings({**path, "CUDA_HOME": "/opt/cuda"}, None, root).nvcc is None


def test_the_vocabulary_is_read_where_the_variable_says(tmp_path: Path) -> None:
    """Its digest, so that another file of that name is told from it."""
    put(tmp_path, "srv/encodings/o200k_base.tiktoken", b"IQ== 0\n")
    found = read_surroundings({"TIKTOKEN_ENCODINGS_BASE": "/srv/encodings"}, None, tmp_path)
    assert (found.encodings, found.encoding_sha256) == ("/srv/encodings", hashlib.sha256(b"IQ== 0\n").hexdigest())
    assert read_surroundings({"TIKTOKEN_ENCODINGS_BASE": "/srv"}, None, tmp_path).encoding_sha256 is None


def test_a_directory_of_cubins_counts_where_vllm_is_told_of_it(tmp_path: Path) -> None:
    """Without the second variable vLLM takes FlashInfer to have none; an empty directory holds none."""
    both = {"FLASHINFER_CUBIN_DIR": "/cubins", "VLLM_HAS_FLASHINFER_CUBIN": "1"}
    assert read_surroundings(both, None, tmp_path).cubin_dir is None
    put(tmp_path, "cubins/sm90/a.cubin")
    assert read_surroundings(both, None, tmp_path).cubin_dir == "/cubins"
    assert read_surroundings({**both, "VLLM_HAS_FLASHINFER_CUBIN": "0"}, None, tmp_path).cubin_dir is None


def test_caches_have_their_mounts_and_all_that_is_above_them(tmp_path: Path) -> None:
    """As this machine was recorded: its temporary directory is mounted as it is, and what is not there is left out."""
    recorded = lay_out("epyc-8xh100", tmp_path)
    mounts = (recorded.root / "proc/self/mountinfo").read_text()
    recorded.write("proc/self/mountinfo", f"{mounts}99 1 0:77 / /scratch rw,noexec,nosuid - tmpfs tmpfs rw\n")
    (recorded.root / "scratch/t").mkdir(parents=True, mode=0o700)
    (recorded.root / "scratch").chmod(stat.S_ISVTX | 0o777)
    environment = {"TRITON_CACHE_DIR": "/scratch/t", "VLLM_CACHE_ROOT": "/var/cache/vllm"}
    vllm, triton = read_surroundings(environment, None, recorded.root).caches
    assert (vllm.path, vllm.noexec, vllm.places[0].path) == (Path("/var/cache/vllm"), False, Path("/"))
    assert triton.noexec is True
    assert [(place.path, place.mode) for place in triton.places[1:]] == [
        (Path("/scratch"), 0o1777),
        (Path("/scratch/t"), 0o700),
    ]


def test_doctor_looks_where_the_engine_is_sent() -> None:
    """The variables are those that the engine gets, the operator's own included."""
    vllm = {"environment": {"CC": "/opt/gcc"}}
    settings = Settings.model_validate({"engines": {"vllm": vllm}, "paths": {"cache_dir": CACHE}})
    model = load_catalogue().find("llama3-8b")
    outcome = plan(machine("H100", 1), model, Wishes(), Engines(vllm=True))
    assert isinstance(outcome, VllmPlan)
    spec = plan_engine(outcome, model, settings, Path("/run/e.sock"), Path("/run/e.d"), Path(CACHE))
    assert vllm_environment(settings).items() <= dict(spec.env).items()
    assert {name for name, value in spec.env if value.startswith(CACHE)} - {"XDG_CACHE_HOME"} <= set(
        vllm_environment(settings)
    )
