"""The same requests to one live server by three harnesses in turn: `serve bench`, guidellm, `vllm bench serve`.

    python -m benchmarks.peers.harnesses --model FILE.gguf --guidellm PATH --vllm-python PATH -o result.json

The server is ours, of a synthetic model (benchmarks.synthetic), on all cores but the last, which the harness has for
itself: on shared cores a harness that computes more makes the server slower, and reports that.

A round is each of them once, in an order that changes; each has prompts of its own, of the same lengths, since one that
was sent before would be found in the server's cache. What the others report stands beside what ours does, as the median
over the rounds of each round's ratio, with a distribution-free 95% interval.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.machine import described, interval
from serving.bench.counting import Asking, find_counting
from serving.bench.drive import Target
from serving.bench.identity import identify, only_model
from serving.bench.prompts import Writer
from serving.bench.record import read_result
from serving.bench.served import served
from serving.engines.remote import origin_of
from serving.gateway.upstream import Upstream
from serving.synthetic.description import tokenizer_files

ROOT = Path(__file__).parents[2]
READY_TIMEOUT_S = 120.0
FIGURES = ("output_tokens_per_s", "ttft_mean_s", "itl_mean_s")
_VLLM = """
import argparse
from vllm.benchmarks.serve import add_cli_args, main
parser = argparse.ArgumentParser()
add_cli_args(parser)
main(parser.parse_args())
"""
"""Its command wants a package of the name `vllm`, which its build for processors is not; the module is the same."""


async def written(url: str, seed: str, count: int, tokens: int) -> tuple[str, str, list[str]]:
    """Model, what the server calls itself, and prompts of that length."""
    target = Target(origin_of(url), "")
    upstream = Upstream(target.origin)
    try:
        model = await only_model(upstream, target)
        server = await identify(upstream, target)
        counting = await find_counting(Asking(upstream, model, "completions"), None)
        empty = await counting.prompt("")
        prompts = [
            (await Writer(f"{seed}/{number}").text(("", empty), tokens, counting.prompt))[0] for number in range(count)
        ]
    finally:
        upstream.close()
    return model, "" if server is None else f"{server.name} {server.version}", prompts


def ours(options: argparse.Namespace, prompts: list[str], model: str, place: Path) -> dict[str, float]:
    """What `serve bench` reports."""
    asked = [{"prompt": prompt, "output_tokens": options.output} for prompt in prompts]
    (place / "own.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in asked))
    (place / "own.toml").write_text(
        f'title = "t"\nroute = "completions"\nrequests = {len(prompts)}\n'
        f'[load]\nkind = "closed"\nclients = {options.clients}\n[work]\nkind = "file"\npath = "own.jsonl"\n'
    )
    argv = [sys.executable, "-m", "serving", "bench", "run", str(place / "own.toml"), "--url", options.url]
    run([*argv, "--model", model, "-o", str(place / "own.json"), "--samples", str(place / "samples.jsonl")])
    (stage,) = read_result(place / "own.json").stages
    check(stage.requests.completed, prompts)
    samples = [json.loads(line) for line in (place / "samples.jsonl").read_text().splitlines()]
    whole = max(sample["ended"] for sample in samples) - min(sample["sent"] for sample in samples)
    speed = stage.rates.output_tokens_per_s
    return {
        # the others have the whole run, with the tail in which clients fall idle; ours leaves that out, and says so
        "output_tokens_per_s": sum(sample["output_tokens"] for sample in samples) / whole,
        "output_tokens_per_s_steady": 0.0 if speed is None else speed.value,
        "ttft_mean_s": mean_of(samples, lambda sample: sample["arrivals"][0] - sample["sent"]),
        "itl_mean_s": mean_of(
            samples, lambda sample: (sample["arrivals"][-1] - sample["arrivals"][0]) / (sample["output_tokens"] - 1)
        ),
    }


def mean_of(samples: list[dict[str, Any]], figure: Any) -> float:
    """Over all requests."""
    return sum(map(figure, samples)) / len(samples)


def guidellm(options: argparse.Namespace, prompts: list[str], model: str, place: Path) -> dict[str, float]:
    """What guidellm reports, of the requests that it counts as successful."""
    rows = [{"prompt": prompt, "output_tokens_count": options.output} for prompt in prompts]
    (place / "guide.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    run(
        [
            *(options.guidellm, "run", "--disable-console"),
            *("--backend", f"kind=openai_http,target={options.url},model={model},request_format=/v1/completions"),
            *("--profile", f"kind=concurrent,streams={options.clients}"),
            *("--constraint", f"kind=max_requests,count={len(prompts)}"),
            *("--data", f"kind=json_file,path={place / 'guide.jsonl'}"),
            *("--tokenizer", f"kind=huggingface_auto,model={place / 'tokenizer'}"),
            *("--output", f"kind=json,path={place / 'guide.json'}"),
        ]
    )
    (benchmark,) = json.loads((place / "guide.json").read_text())["benchmarks"]
    metrics = benchmark["metrics"]
    check(metrics["request_totals"]["successful"], prompts)
    return {
        "output_tokens_per_s": metrics["output_tokens_per_second"]["successful"]["mean"],
        "ttft_mean_s": metrics["time_to_first_token_ms"]["successful"]["mean"] / 1000,
        "itl_mean_s": metrics["inter_token_latency_ms"]["successful"]["mean"] / 1000,
    }


def vllm(options: argparse.Namespace, prompts: list[str], model: str, place: Path) -> dict[str, float]:
    """What `vllm bench serve` reports."""
    rows = [{"prompt": prompt, "output_tokens": options.output} for prompt in prompts]
    (place / "vllm.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    run(
        [
            *(options.vllm_python, "-c", _VLLM, "--backend", "openai", "--base-url", options.url),
            *("--endpoint", "/v1/completions", "--model", model, "--tokenizer", str(place / "tokenizer")),
            *("--dataset-name", "custom", "--dataset-path", str(place / "vllm.jsonl"), "--skip-chat-template"),
            *("--custom-output-len", str(options.output), "--ignore-eos", "--disable-shuffle"),
            *("--num-prompts", str(len(prompts)), "--max-concurrency", str(options.clients), "--disable-tqdm"),
            *("--save-result", "--result-dir", str(place), "--result-filename", "vllm.json"),
        ]
    )
    found = json.loads((place / "vllm.json").read_text())
    check(found["completed"], prompts)
    return {
        "output_tokens_per_s": found["output_throughput"],
        "ttft_mean_s": found["mean_ttft_ms"] / 1000,
        "itl_mean_s": found["mean_itl_ms"] / 1000,
    }


def check(completed: int, prompts: list[str]) -> None:
    """Figures of fewer requests than were sent are of another load."""
    if completed != len(prompts):
        raise RuntimeError(f"{completed} of {len(prompts)} requests were completed")


def run(argv: list[str]) -> None:
    """A command that must succeed; its words where it does not."""
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode:
        raise RuntimeError(f"{argv[0]} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-3000:]}")


HARNESSES = {"serve_bench": ours, "guidellm": guidellm, "vllm_bench_serve": vllm}


@contextlib.contextmanager
def server(options: argparse.Namespace, place: Path) -> Iterator[str]:
    """The URL of the server under load; harnesses are given the last core."""
    if options.url:
        yield options.url
        return
    cores = sorted(os.sched_getaffinity(0))
    own = cores[:-1] or cores
    config = place / "serving.toml"
    # guidellm asks for usage in every event, which OpenAI's protocol does not know
    config.write_text('[server]\nunknown_fields = "ignore"\n')
    os.sched_setaffinity(0, own)
    flags = (
        "--open",
        "--model",
        str(options.model),
        "--threads",
        str(len(own)),
        "--config",
        str(config),
        "--no-profile",
    )
    with served(flags, READY_TIMEOUT_S) as running:
        os.sched_setaffinity(0, cores[-1:])
        yield running.url


def measure(options: argparse.Namespace) -> dict[str, object]:
    """All rounds."""
    with tempfile.TemporaryDirectory() as scratch, server(options, Path(scratch)) as url:
        options.url = url
        return rounds_of(options, Path(scratch))


def rounds_of(options: argparse.Namespace, place: Path) -> dict[str, object]:
    """The harnesses in turn, on a server that is there."""
    rounds: list[Mapping[str, Mapping[str, float]]] = []
    model = kind = ""
    tokenizer = place / "tokenizer"
    tokenizer.mkdir()
    for name, content in tokenizer_files(options.vocabulary).items():
        (tokenizer / name).write_text(json.dumps(content))
    for at in range(options.rounds):
        found = {}
        names = list(HARNESSES)
        for name in names[at % 3 :] + names[: at % 3]:
            seed = f"{time.time()}/{name}"
            model, kind, prompts = asyncio.run(written(options.url, seed, options.requests, options.prompt))
            found[name] = HARNESSES[name](options, prompts, model, place)
            print(f"round {at + 1}, {name}: {found[name]}", file=sys.stderr)
        rounds.append(found)
    ratios = {
        name: {figure: ratio([one[name][figure] / one["serve_bench"][figure] for one in rounds]) for figure in FIGURES}
        for name in HARNESSES
        if name != "serve_bench"
    }
    return {
        "what": "what other harnesses report over what ours does, of the same load on the same server",
        "server": kind,
        "model": model,
        "clients": options.clients,
        "requests": options.requests,
        "prompt_tokens": options.prompt,
        "output_tokens": options.output,
        "ratios": ratios,
        "rounds": rounds,
        **described(),
    }


def ratio(values: list[float]) -> dict[str, float]:
    """Median and its interval."""
    low, high = interval(values)
    return {"median": round(statistics.median(values), 4), "low95": round(low, 4), "high95": round(high, 4)}


def main() -> None:
    """Run and print the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--model", type=Path, help="synthetic GGUF file, to be served")
    target.add_argument("--url", help="of a server of one")
    parser.add_argument("--guidellm", required=True)
    parser.add_argument("--vllm-python", required=True)
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--requests", type=int, default=60)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--output", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("-o", "--out", type=Path)
    options = parser.parse_args()
    text = json.dumps(measure(options), indent=1)
    if options.out:
        options.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
