"""Checks of what vLLM reaches for while it runs: on a host without a network nothing may be missing then."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from serving.doctor.facts import VOCABULARY, CacheDirectory, Facts, Place, Surroundings, VllmInstall
from serving.doctor.finding import Finding, Status

_VOCABULARY_SHA256 = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
"""What both harmony libraries hold the file against (openai/harmony, src/tiktoken_ext/public_encodings.rs)."""
_VOCABULARY_URL = "https://openaipublic.blob.core.windows.net/encodings/"
_KERNELS_URL = "https://flashinfer.ai/whl/"
_SETTINGS = "`[engines.vllm.environment]`"


def check_surroundings(facts: Facts) -> Iterator[Finding]:
    """What an isolated host lacks for vLLM; nothing where it is not to run."""
    vllm, around = facts.vllm, facts.surroundings
    if vllm is None or vllm.version is None or around is None:
        return
    is_problem: Status = "problem" if facts.machine.gpus else "warning"
    if vllm.cuda is not None:
        yield _compiler(vllm, around, is_problem)
        yield _flashinfer(vllm, around, is_problem)
    yield _harmony(vllm, around)
    yield _caches(around, is_problem)


def _compiler(vllm: VllmInstall, around: Surroundings, worst: Status) -> Finding:
    name = "compiler"
    why = "Triton compiles with it when vLLM starts"
    another = f"or name one with CC in {_SETTINGS}"
    if around.compiler is None and around.cc is not None:
        return Finding(name, worst, f"CC is `{around.cc}`, which is not there; {why}", "correct CC, or leave it out")
    if around.compiler is None:
        found = f"no gcc or clang on {around.program_path}, which is the PATH that vLLM gets; {why}"
        return Finding(name, worst, found, f"`apt install gcc libc6-dev`, {another}")
    if around.has_headers is False:
        found = f"`{around.compiler}`, but `{vllm.include}` has no Python.h; {why}"
        advice = f"install the headers of `{vllm.python}`, such as python3-dev, or run vLLM with a Python that has them"
        return Finding(name, worst, found, advice)
    if around.has_headers is None:
        return Finding(name, "unknown", f"`{around.compiler}`; where Python's headers belong is not known")
    return Finding(name, "good", f"`{around.compiler}`, and Python's headers are there")


def _flashinfer(vllm: VllmInstall, around: Surroundings, worst: Status) -> Finding:
    name, version = "flashinfer", vllm.flashinfer
    if version is None:
        return Finding(name, "good", "not installed: vLLM computes without it")
    packages = {"flashinfer-cubin": vllm.flashinfer_cubin, "flashinfer-jit-cache": vllm.flashinfer_jit_cache}
    carry = (
        f"carry the wheels of {' and '.join(packages)} {_public(version)} in from {_KERNELS_URL} (`vllm "
        "download-kernels --dry-run` names them) and install them with `pip install --no-index --find-links DIR`"
    )
    others = [f"{one} {there}" for one, there in packages.items() if _public(there or version) != _public(version)]
    if others:
        return Finding(name, worst, f"version {version}, beside {' and '.join(others)}: it refuses to load", carry)
    lacking = [tool for tool, where in (("nvcc", around.nvcc), ("ninja", around.ninja)) if where is None]
    if vllm.flashinfer_cubin is None and around.cubin_dir is None:
        if lacking:
            found = f"without kernels, and no {' or '.join(lacking)} to compile any: vLLM leaves it out"
        else:
            found = "fetches kernels from NVIDIA's server when it runs"
            carry += f"; or set FLASHINFER_CUBIN_DIR and VLLM_HAS_FLASHINFER_CUBIN in {_SETTINGS}"
    elif vllm.flashinfer_jit_cache is not None:
        return Finding(name, "good", f"version {version}, its kernels are here")
    elif lacking:
        found = f"lacks the kernels of flashinfer-jit-cache, and {' and '.join(lacking)} to compile them when it runs"
    else:
        found = "compiles kernels when it first runs, for minutes, since flashinfer-jit-cache is missing"
    return Finding(name, "warning", f"version {version} {found}", carry)


def _harmony(vllm: VllmInstall, around: Surroundings) -> Finding:
    """Only gpt-oss needs it, so that nothing is a problem here."""
    name = "harmony"
    bring = f"bring {VOCABULARY} from {_VOCABULARY_URL} here, and name its directory as TIKTOKEN_ENCODINGS_BASE in "
    bring += _SETTINGS
    if vllm.harmony is None:
        return Finding(name, "warning", "not installed: vLLM does not serve gpt-oss", f"install it in `{vllm.python}`")
    if around.encodings is not None:
        return _encodings(vllm, around, bring, Path(around.encodings))
    if vllm.harmony_fetches is None:
        return Finding(name, "unknown", f"{vllm.harmony}; where it has gpt-oss' vocabulary from is not known", bring)
    if vllm.harmony_fetches:
        found = f"{vllm.harmony} fetches gpt-oss' vocabulary ({VOCABULARY}) from OpenAI's server when it is first used"
        return Finding(name, "warning", found, bring)
    return Finding(name, "good", f"{vllm.harmony} brings gpt-oss' vocabulary along")


def _encodings(vllm: VllmInstall, around: Surroundings, bring: str, base: Path) -> Finding:
    """The variable is set: then each harmony library takes the file that is there, and none of its own."""
    if around.encoding_sha256 is None:
        found = f"TIKTOKEN_ENCODINGS_BASE is `{base}`, where no {VOCABULARY} can be read: gpt-oss is not served"
        return Finding("harmony", "warning", found, bring if vllm.harmony_fetches else f"{bring}, or leave it out")
    if around.encoding_sha256 != _VOCABULARY_SHA256:
        found = f"`{base / VOCABULARY}` is not the file that {vllm.harmony} takes: gpt-oss is not served"
        return Finding("harmony", "warning", found, f"{bring}; its SHA-256 is {_VOCABULARY_SHA256}")
    return Finding("harmony", "good", f"{vllm.harmony}, gpt-oss' vocabulary is in `{base}`")


def _caches(around: Surroundings, worst: Status) -> Finding:
    name = "kernel caches"
    elsewhere = "set `paths.cache_dir` to a directory of this user's own"
    if noexec := [cache for cache in around.caches if cache.noexec]:
        found = f"{_named(noexec)} {_is_or_are(noexec)} mounted noexec: what vLLM compiles cannot be loaded from there"
        return Finding(name, worst, found, f"{elsewhere} on a mount without noexec")
    open_to_change = [cache for cache in around.caches if is_open(cache, around.user, to_change=True)]
    if open_to_change:
        found = f"others can put code into {_named(open_to_change)}, which vLLM loads and runs"
        return Finding(name, "warning", found, f"`chmod 700` the directory if it is this user's, or {elsewhere}")
    if seen := [cache for cache in around.caches if is_open(cache, around.user, to_change=False)]:
        found = f"others can look into {_named(seen)}"
        return Finding(name, "warning", found, f"`chmod 700` the directory, or {elsewhere}")
    if not around.caches or any(cache.noexec is None for cache in around.caches):
        return Finding(name, "unknown", "how they are mounted cannot be read")
    outer = [cache for cache in around.caches if not any(one.path in cache.path.parents for one in around.caches)]
    return Finding(name, "good", f"{_named(outer)}: this user's alone, or still to be made; code may be loaded")


def is_open(cache: CacheDirectory, user: int, *, to_change: bool) -> bool:
    """Whether anybody but `user` and root gets to what lies in the directory: `to_change` it, or else to see it.

    Who may not pass one of the directories above it does not get there. One that is still to be made is open only where
    others could make it first.
    """
    for place in cache.places:
        if place.owner in (0, user) and not place.mode & 0o011:
            return False
        if to_change and _may_change(place, user, is_last=place is cache.places[-1]):
            return True
    return not to_change and bool(cache.places) and cache.places[-1].path == cache.path


def _may_change(place: Place, user: int, *, is_last: bool) -> bool:
    """Whether others may put something into a directory, or, where it is not the last, in place of the next one.

    The sticky bit keeps them off what is not theirs, not from making what is not there yet.
    """
    if place.owner not in (0, user):
        return True
    return bool(place.mode & 0o022) and (is_last or not place.mode & 0o1000)


def _public(version: str) -> str:
    """The version without what a builder added to it: packages of kernels name their CUDA there."""
    return version.partition("+")[0]


def _named(caches: list[CacheDirectory]) -> str:
    return ", ".join(f"`{cache.path}`" for cache in caches)


def _is_or_are(caches: list[CacheDirectory]) -> str:
    return "are" if len(caches) > 1 else "is"
