"""Other servers and ours under the scenarios that ship, by `serve bench`: results, and a report of them side by side.

    python -m benchmarks.peers.servers --model Q8_0.gguf [--model16 BF16.gguf] [--llama-server PATH]
        [--llama-cpp-python PYTHON] [--vllm-python PYTHON] [--scenarios chat,prefix-heavy] -o DIRECTORY

Every server has the same cores, as many threads as there are, and sixteen sequences at a time where it knows such a
thing; one runs at a time. vLLM's CPU build serves the same shape in 16 bits from a directory that describes it: it does
not read GGUF; ours serves `--model16` beside it. The files are to be of `benchmarks.synthetic`: their answers are as
long as they are asked to be.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from serving.synthetic.description import tokenizer_files

ROOT = Path(__file__).parents[2]
SEQUENCES = 16
CONTEXT = 2048
READY_TIMEOUT_S = 600.0
SHAPE = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 10,
    "num_attention_heads": 12,
    "num_key_value_heads": 12,
    "vocab_size": 32_000,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500_000.0,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
}
"""That of `benchmarks.synthetic`'s 100m, as Transformers writes it."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A server, as its documentation starts it for several clients."""

    name: str
    command: tuple[str, ...]
    ready: str
    """Path that answers with 200 once it serves."""
    environment: Mapping[str, str] = field(default_factory=dict)


def peers_of(options: argparse.Namespace, port: int, place: Path) -> Iterator[Peer]:
    """Those that are named on the command line, ours first."""
    at, threads = ("--host", "127.0.0.1", "--port", str(port)), str(len(os.sched_getaffinity(0)))
    ours = (sys.executable, "-m", "serving", "--open", *at, "--concurrency", str(SEQUENCES), "--context", str(CONTEXT))
    yield Peer("perimeter-q8_0", (*ours, "--no-profile", "--model", str(options.model)), "/ready")
    if options.model16:
        yield Peer("perimeter-bf16", (*ours, "--no-profile", "--model", str(options.model16)), "/ready")
    if options.llama_server:
        together = (
            "--alias",
            "synthetic",
            "-np",
            str(SEQUENCES),
            "-c",
            str(SEQUENCES * CONTEXT),
            "-t",
            threads,
            "--jinja",
        )
        yield Peer("llama-server-q8_0", (options.llama_server, "-m", str(options.model), *at, *together), "/health")
    if options.llama_cpp_python:
        # it computes one answer at a time, and by default ends it as soon as somebody else asks
        module = (
            options.llama_cpp_python,
            "-m",
            "llama_cpp.server",
            "--model",
            str(options.model),
            "--model_alias",
            "synthetic",
            *at,
        )
        yield Peer(
            "llama-cpp-python-q8_0",
            (*module, "--n_ctx", str(CONTEXT), "--n_threads", threads, "--interrupt_requests", "false"),
            "/v1/models",
        )
    if options.vllm_python:
        module = (options.vllm_python, "-m", "vllm.entrypoints.openai.api_server", *at)
        shape = ("--model", str(described(place)), "--served-model-name", "synthetic", "--load-format", "dummy")
        bounds = ("--max-model-len", str(CONTEXT), "--max-num-seqs", str(SEQUENCES))
        yield Peer(
            "vllm-cpu-bf16",
            (*module, *shape, *bounds, "--dtype", "bfloat16", "--enforce-eager"),
            "/health",
            {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_CPU_OMP_THREADS_BIND": f"0-{int(threads) - 1}"},
        )


def described(place: Path) -> Path:
    """A directory from which vLLM makes random weights of the shape."""
    directory = place / "shape"
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(SHAPE))
    for name, content in tokenizer_files(SHAPE["vocab_size"]).items():
        (directory / name).write_text(json.dumps(content))
    return directory


@contextlib.contextmanager
def running(peer: Peer, port: int, log: Path) -> Iterator[str]:
    """The server's URL once it is ready; it is ended afterwards. Raises RuntimeError with its last words."""
    environment = {**os.environ, **peer.environment}
    with log.open("wb") as out:
        process = subprocess.Popen(peer.command, stdout=out, stderr=out, env=environment, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not answers(f"{url}{peer.ready}"):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{peer.name} did not become ready:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.5)
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(url: str) -> bool:
    """Whether it says 200."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def serve(*argv: str) -> None:
    """`serve …`, which must succeed."""
    subprocess.run([sys.executable, "-m", "serving", *argv], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def measure(options: argparse.Namespace, scenarios: Sequence[str]) -> None:
    """Every server under every scenario, then a page for each of these."""
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    files: dict[str, list[str]] = {scenario: [] for scenario in scenarios}
    with tempfile.TemporaryDirectory() as scratch, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        for peer in peers_of(options, port, Path(scratch)):
            with running(peer, port, Path(scratch) / f"{peer.name}.log") as url:
                for scenario in scenarios:
                    path = out / f"{scenario}-{peer.name}.json"
                    print(f"{peer.name}: {scenario}", file=sys.stderr)
                    serve("bench", "run", scenario, "--url", url, "-o", str(path), "--name", peer.name,
                          "--tokenizer", str(options.model))  # fmt: skip
                    files[scenario].append(str(path))
    for scenario, paths in files.items():
        serve("bench", "compare", *paths, "-o", str(out / f"{scenario}.html"))


def main() -> None:
    """Run, and leave the results in a directory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--model16", type=Path)
    parser.add_argument("--llama-server")
    parser.add_argument("--llama-cpp-python", help="a Python that has llama-cpp-python[server]")
    parser.add_argument("--vllm-python")
    parser.add_argument("--scenarios", default="chat,prefix-heavy")
    parser.add_argument("-o", "--out", type=Path, required=True)
    options = parser.parse_args()
    measure(options, options.scenarios.split(","))


if __name__ == "__main__":
    main()
